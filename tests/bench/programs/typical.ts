import { createHash } from "node:crypto";

enum Kind { Short, Long }
interface Word { text: string; kind: Kind }

const words: Word[] = "the quick brown fox jumps".split(" ").map((text) => ({
  text,
  kind: text.length > 3 ? Kind.Long : Kind.Short,
}));
const long = words.filter((word: Word): boolean => word.kind === Kind.Long);
console.log(long.length, createHash("sha256").update(JSON.stringify(long)).digest("hex").slice(0, 8));
