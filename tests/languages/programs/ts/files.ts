import fs from "node:fs/promises";

type Text = string;

const text: Text = await fs.readFile("données.txt", "utf8");
await fs.mkdir("out");
await fs.writeFile("out/copy.txt", (text as string) + "more\n");
console.log("written");
