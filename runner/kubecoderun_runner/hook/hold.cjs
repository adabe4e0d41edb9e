// Holds a Node.js up before it looks for its program, so that it has long started when there is one (held.py).
"use strict";
{
  const fs = require("node:fs");
  const module_ = require("node:module");
  const path = require("node:path");

  delete process.env.NODE_OPTIONS;
  // what most programs use, TypeScript's translator included
  for (const name of ["node:fs/promises", "node:util", "node:events", "node:stream", "node:readline", "node:crypto"]) {
    require(name);
  }
  module_.stripTypeScriptTypes("enum Warm { Up }\nconst up: Warm = Warm.Up;", { mode: "transform" });
  void process.stdout;

  fs.writeSync(4, "\0");
  fs.closeSync(4);
  const pieces = [];
  const piece = Buffer.alloc(65536);
  for (let length; (length = fs.readSync(3, piece)) > 0; ) pieces.push(Buffer.from(piece.subarray(0, length)));
  fs.closeSync(3);
  if (!pieces.length) process.reallyExit(0);
  const [source, ...args] = Buffer.concat(pieces).toString().split("\0").slice(0, -1);
  const held = process.argv[1];
  const program = path.resolve(source);
  process.argv = [process.argv[0], program, ...args];
  if (source.endsWith(".js")) process.execArgv = [];
  // Node.js was told of a program without an ending, for which it would only look for main.js
  const find = module_._findPath;
  module_._findPath = function (request, paths, isMain) {
    const main = isMain && request === held;
    if (!main) module_._findPath = find;
    return find.call(this, main ? program : request, paths, isMain);
  };
}
