// Serves a directory through fuse-native: every request is a JavaScript callback over Node's own asynchronous `fs`.
//   node serve.cjs SOURCE MOUNT        mounts, prints "ready", serves until SIGTERM
// CommonJS, because it is resolved where fuse-native was installed, outside the project.

"use strict";
const fs = require("node:fs");
const { constants } = require("node:os");
const { join, resolve } = require("node:path");
const Fuse = require("fuse-native");

const [source, mount] = process.argv.slice(2).map((path) => resolve(path));

// The best that its libfuse 2.9 can do for one user of the directory: names, attributes and pages stay in the kernel,
// and writes come in 128 KiB instead of 4 KiB. The package has no option for the latter: it goes in beside the name.
const options = {
  fsname: "fuse-native,big_writes",
  kernelCache: true,
  entryTimeout: 86400,
  attrTimeout: 86400,
  force: true,
  timeout: false,
};

const errnoOf = (error) => -(constants.errno[error.code] ?? constants.errno.EIO);
/** Calls back with 0 or minus the errno, then with what came out. */
const answer =
  (done, pick = (value) => value) =>
  (error, value) =>
    error ? done(errnoOf(error)) : done(0, pick(value));
/** read and write answer with their count alone. */
const counted = (done) => (error, count) => done(error ? errnoOf(error) : count);
const at = (path) => join(source, path);

const operations = {
  getattr: (path, done) => fs.lstat(at(path), answer(done)),
  fgetattr: (path, fd, done) => fs.fstat(fd, answer(done)),
  readdir: (path, done) => fs.readdir(at(path), answer(done)),
  readlink: (path, done) => fs.readlink(at(path), answer(done)),
  open: (path, flags, done) => fs.open(at(path), flags & ~fs.constants.O_CREAT, answer(done)),
  create: (path, mode, done) =>
    fs.open(at(path), fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_EXCL, mode, answer(done)),
  read: (path, fd, buffer, length, offset, done) => fs.read(fd, buffer, 0, length, offset, counted(done)),
  write: (path, fd, buffer, length, offset, done) => fs.write(fd, buffer, 0, length, offset, counted(done)),
  fsync: (path, dataOnly, fd, done) => (dataOnly ? fs.fdatasync : fs.fsync)(fd, answer(done)),
  release: (path, fd, done) => fs.close(fd, answer(done)),
  truncate: (path, size, done) => fs.truncate(at(path), size, answer(done)),
  ftruncate: (path, fd, size, done) => fs.ftruncate(fd, size, answer(done)),
  unlink: (path, done) => fs.unlink(at(path), answer(done)),
  rename: (from, to, done) => fs.rename(at(from), at(to), answer(done)),
  link: (from, to, done) => fs.link(at(from), at(to), answer(done)),
  symlink: (target, path, done) => fs.symlink(target, at(path), answer(done)),
  mkdir: (path, mode, done) => fs.mkdir(at(path), mode, answer(done)),
  rmdir: (path, done) => fs.rmdir(at(path), answer(done)),
  chmod: (path, mode, done) => fs.chmod(at(path), mode, answer(done)),
  chown: (path, uid, gid, done) => fs.lchown(at(path), uid, gid, answer(done)),
  utimens: (path, atime, mtime, done) => fs.lutimes(at(path), atime / 1000, mtime / 1000, answer(done)),
  statfs: (path, done) =>
    fs.statfs(
      source,
      answer(done, ({ bsize, blocks, bfree, bavail, files, ffree }) => {
        return { bsize, frsize: bsize, blocks, bfree, bavail, files, ffree, favail: ffree, namemax: 255 };
      }),
    ),
};

const fuse = new Fuse(mount, operations, options);
fuse.mount((error) => {
  if (error) {
    process.stderr.write(`fuse-native: ${error.message}\n`);
    process.exit(1);
  }
  process.stdout.write("ready\n");
});

process.on("SIGTERM", () => {
  fuse.unmount((error) => {
    if (error) process.stderr.write(`fuse-native: ${error.message}\n`);
    process.exit(error ? 1 : 0);
  });
});
