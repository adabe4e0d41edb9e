import fs from "node:fs/promises";

const text = await fs.readFile("données.txt", "utf8");
await fs.mkdir("out");
await fs.writeFile("out/copy.txt", text + "more\n");
console.log("written");
