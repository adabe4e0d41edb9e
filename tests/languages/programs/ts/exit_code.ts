enum Code {
  Fine = 0,
  Bad = 7,
}

console.log("before the end");
process.exit(Code.Bad);
