import { readFileSync } from "node:fs";

const numbers: number[] = readFileSync(0, "utf8").trim().split("\n").map(Number);
console.log(numbers.reduce((sum: number, one: number): number => sum + one, 0));
