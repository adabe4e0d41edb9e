const crypto = require("node:crypto");
const path = require("node:path");

const words = "the quick brown fox jumps over the lazy dog".split(" ");
const counts = new Map();
for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
console.log(counts.get("the"), crypto.createHash("sha256").update(words.join(path.sep)).digest("hex").slice(0, 8));
