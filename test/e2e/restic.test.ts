// The recipe that backs up with restic what the feed tells, and nothing else.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { delimiter, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { MAIN, Place, ROOT, run, without } from "../daemon-fixture.js";

const HOOK = join(ROOT, "src/daemon/hooks/restic");

describe("restic, fed with what changed", { skip: without("restic") }, () => {
  const place = new Place();
  let mount = "";
  let mark = "";
  let environment: NodeJS.ProcessEnv = {};

  const restic = (...args: string[]) => spawnSync("restic", args, { encoding: "utf8", env: environment });
  const backUp = () => spawnSync(HOOK, ["v", mount, mark], { encoding: "utf8", env: environment });
  const put = (name: string, text: string) => writeFileSync(join(mount, name), text);

  /** Files below a folder, with what is in them. */
  function content(folder: string): Record<string, string> {
    const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
    const files = names.filter((name) => statSync(join(folder, name)).isFile()).sort();
    return Object.fromEntries(files.map((name) => [name, readFileSync(join(folder, name), "utf8")]));
  }

  function filesOfLatest(): string[] {
    const lines = restic("ls", "latest", "--json").stdout.trim().split("\n");
    const nodes = lines.map((line) => JSON.parse(line) as { type?: string; path?: string });
    return nodes.flatMap(({ type, path }) => (type === "file" && path !== undefined ? [path] : [])).sort();
  }

  before(async () => {
    mount = await place.provision({ drives: 2, rf: 2 });
    const [bin = "", keep = ""] = place.folders("bin", "keep");
    writeFileSync(join(bin, "holdfast"), `#!/bin/sh\nexec "${process.execPath}" "${MAIN}" "$@"\n`);
    chmodSync(join(bin, "holdfast"), 0o755);
    mark = join(keep, "mark");
    environment = {
      ...process.env,
      PATH: `${bin}${delimiter}${process.env.PATH ?? ""}`,
      HOLDFAST_STATE: place.state,
      RESTIC_REPOSITORY: join(place.folder, "repository"),
      RESTIC_PASSWORD: "test",
      RESTIC_CACHE_DIR: join(place.folder, "cache"),
    };
    assert.equal(restic("init").status, 0);
  });
  after(() => place.remove());

  it("backs up everything once, then only what changed; what is restored in order is the newest state", () => {
    mkdirSync(join(mount, "dir/deep"), { recursive: true });
    for (let number = 0; number < 30; number += 1) put(`dir/${number}`, `${number}`);
    put("dir/deep/a\nb", "a name with a line's end");
    for (const { status, stderr } of [backUp(), backUp()]) assert.deepEqual([status, stderr], [0, ""]);
    assert.equal(filesOfLatest().length, 31);
    assert.equal(
      restic("snapshots", "--json").stdout.split('"time"').length - 1,
      1,
      "nothing new, no snapshot",
    );

    appendFileSync(join(mount, "dir/3"), "more");
    put("dir/new", "new");
    renameSync(join(mount, "dir/4"), join(mount, "dir/four"));
    renameSync(join(mount, "dir/deep"), join(mount, "deep"));
    unlinkSync(join(mount, "dir/5"));
    assert.equal(backUp().status, 0);
    assert.deepEqual(filesOfLatest(), ["/deep/a\nb", "/dir/3", "/dir/four", "/dir/new"]);

    const [target = ""] = place.folders("restored");
    const ids = JSON.parse(restic("snapshots", "--json").stdout) as { id: string }[];
    for (const { id } of ids) assert.equal(restic("restore", id, "--target", target).status, 0);
    const gone = readFileSync(`${mark}.removed`, "utf8").trim().split("\n");
    assert.deepEqual(gone.sort(), ["dir/4", "dir/5", "dir/deep"]);
    for (const name of gone) run("rm", ["-rf", join(target, name)]);
    assert.deepEqual(content(target), content(mount));
    assert.deepEqual(readdirSync(join(place.folder, "keep")).sort(), ["mark", "mark.removed"]);
    // What the next run needs is held, and what the last one needed goes when it begins.
    const held = () => place.json<{ name: string; lsn: number }[]>("snapshot", "list", "v");
    const { toldTo } = JSON.parse(readFileSync(mark, "utf8")) as { toldTo: number };
    assert.ok(held().every(({ name, lsn }) => name === `restic-mark-${lsn}` && lsn <= toldTo));
    assert.equal(held().at(-1)?.lsn, toldTo);
    assert.equal(backUp().status, 0);
    assert.ok(held().length <= 2, JSON.stringify(held()));
    assert.equal(held()[0]?.lsn, toldTo);
  });

  it("begins again where it was, if restic could not", () => {
    put("dir/late", "late");
    const repository = environment.RESTIC_REPOSITORY ?? "";
    renameSync(repository, `${repository}.away`);
    assert.notEqual(backUp().status, 0);
    renameSync(`${repository}.away`, repository);
    assert.equal(backUp().status, 0);
    assert.deepEqual(filesOfLatest(), ["/dir/late"]);
    assert.equal(existsSync(`${mark}.next`), false);
  });
});
