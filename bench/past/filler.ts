// A program of `fill`: makes every so-manieth directory with its files, and a line for each. Its own process, so that
// several requests are under way at once.
//
//   node filler.js MOUNT FILES WRITER WRITERS BYTES

import { closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { FILES_A_DIRECTORY, fileOf } from "./layout.js";

const [mount = "", ...numbers] = process.argv.slice(2);
const [files = 0, writer = 0, writers = 1, bytes = 0] = numbers.map(Number);
const content = Buffer.alloc(bytes, `${writer};`);
const stride = writers * FILES_A_DIRECTORY;

for (let first = writer * FILES_A_DIRECTORY; first < files; first += stride) {
  mkdirSync(dirname(fileOf(mount, first)));
  for (let number = first; number < Math.min(files, first + FILES_A_DIRECTORY); number += 1) {
    const file = openSync(fileOf(mount, number), "wx");
    writeSync(file, content);
    closeSync(file);
  }
  process.stdout.write(`writer ${writer}\n`);
}
