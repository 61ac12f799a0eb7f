// Damaged, missing, copied and swapped drives: right bytes or an error, never wrong bytes, and nothing written to what
// is not ours.

import assert from "node:assert/strict";
import { closeSync, cpSync, mkdirSync, openSync, readFileSync, readSync, readdirSync } from "node:fs";
import { renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Place } from "../daemon-fixture.js";
import { PAGE, flipBit, forEachPage, makePage, readPage } from "./slab-pages.js";
import type { PageAddress } from "./slab-pages.js";

const FILES = 8;
const PAGES_A_FILE = 256;
const SMALL_FILES = 300;
/** Rounds of reading until every copy had its turn. */
const ROUNDS_MAX = 30;

/** Files of marked pages, and many small ones, so that there is metadata and packed data as well. */
function writeContent(mount: string, mark: string): void {
  for (let file = 0; file < FILES; file += 1) {
    const pages = Array.from({ length: PAGES_A_FILE }, (_none, number) => makePage(mark, file, number));
    writeFileSync(join(mount, `f${file}`), Buffer.concat(pages), { flush: true });
  }
  mkdirSync(join(mount, "small"));
  for (let file = 0; file < SMALL_FILES; file += 1) {
    writeFileSync(join(mount, "small", `s${file}`), `${mark} small ${file}`);
  }
}

function checkContent(mount: string, mark: string): void {
  for (let file = 0; file < FILES; file += 1) {
    const found = readFileSync(join(mount, `f${file}`));
    assert.equal(found.length, PAGES_A_FILE * PAGE);
    for (let number = 0; number < PAGES_A_FILE; number += 1) {
      const page = found.subarray(number * PAGE, (number + 1) * PAGE);
      assert.ok(page.equals(makePage(mark, file, number)), `page ${number} of f${file}`);
    }
  }
  assert.equal(readdirSync(join(mount, "small")).length, SMALL_FILES);
  for (let file = 0; file < SMALL_FILES; file += 1) {
    assert.equal(readFileSync(join(mount, "small", `s${file}`), "utf8"), `${mark} small ${file}`);
  }
}

function counter(place: Place, name: string): number {
  return place.status().pools[0]?.status?.counters[name] ?? Number.NaN;
}

describe("bit rot on one of two drives", () => {
  const place = new Place();
  const data: PageAddress[] = [];
  let metadata = 0;
  let mount = "";

  before(async () => {
    mount = await place.provision({ drives: 2, rf: 2, size: "192MiB" });
    writeContent(mount, "rot");
    assert.equal(await place.stop("SIGTERM"), 0, place.log);
  });
  after(() => place.remove());

  it("every page of data, of tables and of the log, one bit each: everything reads right", async () => {
    const others: PageAddress[] = [];
    forEachPage(join(place.folder, "d1"), (address, page) => {
      (page.toString("latin1", 0, 4) === "rot " ? data : others).push(address);
    });
    assert.ok(data.length >= FILES * PAGES_A_FILE, `${data.length} pages of data on the drive`);
    assert.ok(others.length > 10, `${others.length} other pages`);
    metadata = others.length;
    for (const [index, address] of [...data, ...others].entries()) flipBit(address, (index * 613) % PAGE);
    await place.start();
    checkContent(mount, "rot");
    const [failures, repairs] = [counter(place, "checksum_failures"), counter(place, "repairs")];
    assert.ok(failures > 100, `${failures} checksum failures of ${data.length} + ${metadata} damaged pages`);
    assert.ok(repairs >= failures, `${repairs} repairs of ${failures} failures`);
    assert.equal(place.status().pools[0]?.status?.drives[0]?.state, "active");
  });

  it("what was read was repaired in line: reading goes on without failures, and the drive is right", async () => {
    const quiet = async (): Promise<boolean> => {
      assert.equal(await place.stop("SIGTERM"), 0, place.log);
      await place.start();
      checkContent(mount, "rot");
      return counter(place, "checksum_failures") === 0;
    };
    let [rounds, inARow] = [0, 0];
    // Copies take turns: two quiet rounds in a row, and whatever is asked for was right on both drives.
    for (; inARow < 2 && rounds < ROUNDS_MAX; rounds += 1) inARow = (await quiet()) ? inARow + 1 : 0;
    assert.equal(inARow, 2, `not within ${rounds} rounds`);
    await place.stop("SIGTERM");
    const right = data.filter((address) => isRight(readPage(address))).length;
    assert.ok(right > data.length / 3, `${right} of ${data.length} damaged pages are right again`);
    await place.start();
  });

  function isRight(page: Buffer): boolean {
    const [mark = "", file, number] = page.toString("latin1", 0, 32).split(" ");
    return page.equals(makePage(mark, Number(file), Number(number)));
  }
});

describe("bit rot without a second copy", () => {
  const place = new Place();
  after(() => place.remove());

  it("gives EIO for that page only, and never wrong bytes", async () => {
    const mount = await place.provision({ drives: 1, rf: 1, size: "192MiB" });
    writeContent(mount, "one");
    assert.equal(await place.stop("SIGTERM"), 0, place.log);
    const [badFile, badPage] = [3, 100];
    const wanted = makePage("one", badFile, badPage);
    let found = 0;
    forEachPage(join(place.folder, "d1"), (address, page) => {
      if (!page.equals(wanted)) return;
      flipBit(address, 2_000);
      found += 1;
    });
    assert.equal(found, 1, "the page is on the drive once");
    await place.start();
    for (let file = 0; file < FILES; file += 1) {
      const fd = openSync(join(mount, `f${file}`), "r");
      const page = Buffer.alloc(PAGE);
      for (let number = 0; number < PAGES_A_FILE; number += 1) {
        const read = () => readSync(fd, page, 0, PAGE, number * PAGE);
        if (file === badFile && number === badPage) assert.throws(read, { code: "EIO" });
        else {
          assert.equal(read(), PAGE);
          assert.ok(page.equals(makePage("one", file, number)), `page ${number} of f${file}`);
        }
      }
      closeSync(fd);
    }
    assert.ok(counter(place, "checksum_failures") > 0);
    writeFileSync(join(mount, `f${badFile}`), "written anew", { flush: true });
    assert.equal(readFileSync(join(mount, `f${badFile}`), "utf8"), "written anew");
    assert.equal(place.status().mounts[0]?.state, "mounted");
  });
});

describe("a drive that is not there at the start", () => {
  const place = new Place();
  after(() => place.remove());

  it("reads and writes go on, the status names it; when it comes back, it does not count", async () => {
    const mount = await place.provision({ drives: 3, rf: 2, size: "192MiB" });
    writeContent(mount, "away");
    assert.equal(await place.stop("SIGTERM"), 0, place.log);
    const drive = join(place.folder, "d2");
    renameSync(drive, `${drive}-away`);
    await place.start();
    checkContent(mount, "away");
    writeFileSync(join(mount, "while-away"), "written", { flush: true });
    const missing = place.status().pools[0]?.status?.drives.filter(({ state }) => state !== "active");
    assert.deepEqual(
      missing?.map(({ state }) => state),
      ["missing"],
    );
    assert.ok(
      place.status().warnings.some((warning) => warning.includes("missing")),
      JSON.stringify(place.status().warnings),
    );
    await place.stop("SIGKILL");
    await place.start();
    assert.equal(readFileSync(join(mount, "while-away"), "utf8"), "written");
    assert.equal(await place.stop("SIGTERM"), 0, place.log);
    renameSync(`${drive}-away`, drive);
    await place.start();
    checkContent(mount, "away");
    assert.equal(readFileSync(join(mount, "while-away"), "utf8"), "written");
  });
});

describe("drives that do not belong together", () => {
  const place = new Place();
  const other = new Place();
  let mount = "";
  const drive = (name: string) => join(place.folder, name);

  before(async () => {
    mount = await place.provision({ drives: 2, rf: 2, size: "96MiB" });
    const [e1 = "", e2 = ""] = place.folders("e1", "e2");
    place.json("pool", "create", "q", "--size", "96MiB", "--drive", e1, "--drive", e2);
    writeFileSync(join(mount, "canary"), "alive", { flush: true });
    assert.equal(await place.stop("SIGTERM"), 0, place.log);
    await other.start();
  });
  after(async () => {
    await place.remove();
    await other.remove();
  });

  const superblock = (name: string) => readFileSync(join(drive(name), "superblock"));
  const canary = () => assert.equal(readFileSync(join(mount, "canary"), "utf8"), "alive");

  it("the same drive twice: by name, through a link, as a copy", () => {
    const before = superblock("d1");
    const twice = (second: string) =>
      other.fails(2, "pool", "import", "--drive", drive("d1"), "--drive", second);
    assert.match(twice(drive("d1")).message, /is named twice/);
    symlinkSync(drive("d1"), drive("link"));
    assert.match(twice(drive("link")).message, /is named twice/);
    cpSync(drive("d1"), drive("copy"), { recursive: true });
    assert.match(twice(drive("copy")).message, /are the same drive .*leave out the copy/);
    assert.deepEqual(superblock("d1"), before, "nothing was written");
    assert.deepEqual(superblock("copy"), before, "nothing was written");
    rmSync(drive("copy"), { recursive: true });
  });

  it("drives of two pools in one: both are named", () => {
    const mixed = other.fails(2, "pool", "import", "--drive", drive("d1"), "--drive", drive("e1"));
    assert.match(mixed.message, /d1 is in pool p.*e1 in pool q/);
  });

  it("drives swapped between two pools: neither opens, nothing is written, swapped back all is well", async () => {
    const names = ["d1", "d2", "e1", "e2"];
    const before = names.map(superblock);
    const swap = () => {
      renameSync(drive("d2"), drive("away"));
      renameSync(drive("e2"), drive("d2"));
      renameSync(drive("away"), drive("e2"));
    };
    swap();
    await place.start({ ready: false });
    const problems = place.status().pools.map(({ problem }) => problem?.message ?? "");
    assert.equal(problems.length, 2);
    for (const problem of problems) assert.match(problem, /is in pool [pq], drive .* in pool [pq]/);
    await place.stop("SIGTERM");
    swap();
    assert.deepEqual(names.map(superblock), before, "nothing was written");
    await place.start();
    canary();
  });

  it("all drives of another pool in the place of this one's", async () => {
    await place.stop("SIGTERM");
    const swapAll = () => {
      for (const number of ["1", "2"]) {
        renameSync(drive(`d${number}`), drive("away"));
        renameSync(drive(`e${number}`), drive(`d${number}`));
        renameSync(drive("away"), drive(`e${number}`));
      }
    };
    swapAll();
    await place.start({ ready: false });
    const problem = place.status().pools.find(({ name }) => name === "p")?.problem;
    assert.match(problem?.message ?? "", /hold another pool, q/);
    await place.stop("SIGTERM");
    swapAll();
    await place.start();
    canary();
  });

  it("a foreign directory in a drive's place is refused and stays as it is", async () => {
    await place.stop("SIGTERM");
    renameSync(drive("d2"), drive("away"));
    mkdirSync(drive("d2"));
    writeFileSync(join(drive("d2"), "letter"), "dear diary");
    await place.start({ ready: false });
    const problem = place.status().pools.find(({ name }) => name === "p")?.problem;
    assert.match(problem?.message ?? "", /d2 is in no pool/);
    await place.stop("SIGTERM");
    assert.deepEqual(readdirSync(drive("d2")), ["letter"]);
    rmSync(drive("d2"), { recursive: true });
    renameSync(drive("away"), drive("d2"));
    await place.start();
    canary();
  });
});
