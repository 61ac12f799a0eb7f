// Policies on a real daemon and a real mount: snapshots by schedule, pruning, hooks, kills, mistakes.

import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type {
  PolicyAnswer,
  PolicyForecast,
  PolicyStatus,
  SnapshotAnswer,
} from "../../src/daemon/protocol.js";
import { Place, metricsOf, until } from "../daemon-fixture.js";

describe("policies", () => {
  const place = new Place();
  const file = join(place.folder, "policies.yaml");
  let mount = "";

  before(async () => {
    mount = await place.provision({ drives: 2, rf: 2, size: "256MiB" });
    place.json("volume", "create", "w", "--pool", "p");
  });
  after(() => place.remove());

  const apply = (text: string, ...more: string[]): PolicyAnswer => {
    writeFileSync(file, text);
    return place.json<PolicyAnswer>("policy", "apply", file, ...more);
  };
  const snapshots = () => place.json<SnapshotAnswer[]>("snapshot", "list", "v");
  const names = () => snapshots().map(({ name }) => name);
  const policy = (name: string): PolicyStatus => {
    const found = place.status().policies.find((one) => one.name === name);
    assert.ok(found !== undefined, `no policy ${name}`);
    return found;
  };
  const ownOf = (prefix: string) => names().filter((name) => name.startsWith(`${prefix}-2`));

  it("none at first", () => {
    assert.deepEqual(place.json("policy", "show"), { applied: null, policies: [] });
    assert.match(place.cli("policy", "show").stdout, /no policies/);
  });

  it("take snapshots by themselves, which the mount shows, and prune only their own", async () => {
    writeFileSync(join(mount, "file"), "first\n", { flush: true });
    for (const name of ["by-hand", "s-2026-01-01T00-00-00Z", "s-2026-01-02T00-00-00Z"])
      place.json("snapshot", "create", "v", name);
    place.json("snapshot", "hold", "v", "s-2026-01-01T00-00-00Z");
    const answer = apply("policies: {s: {targets: [v], every: 1s, keep: 2x1s}}");
    assert.deepEqual([answer.policies[0]?.schedule, answer.policies[0]?.keep], ["every 1s", ["2x1s"]]);
    await until("some were taken and pruned", () => policy("s").taken >= 4 && policy("s").pruned >= 2);
    const taken = apply("policies: {}");
    assert.deepEqual(taken.policies, []);
    await until("the last run is over", () => place.status().policies.length === 0);
    const left = names();
    assert.ok(left.includes("by-hand") && left.includes("s-2026-01-01T00-00-00Z"), left.join(" "));
    assert.ok(!left.includes("s-2026-01-02T00-00-00Z"), left.join(" "));
    const own = ownOf("s").filter((name) => name !== "s-2026-01-01T00-00-00Z");
    assert.ok(own.length >= 2 && own.length <= 3, left.join(" "));
    const newest = own.at(-1) ?? "";
    assert.equal(readFileSync(join(mount, ".holdfast/snapshots", newest, "file"), "utf8"), "first\n");
    assert.match(place.log, /"snapshot taken"/);
    assert.match(place.log, /"snapshot pruned"/);
  });

  it("foretold without being done", () => {
    writeFileSync(file, "policies: {s: {targets: [v], every: 1h, keep: 3x1h}}");
    const before = names();
    const [told] = place.json<PolicyForecast[]>("policy", "test", file, "--until", "10h");
    assert.deepEqual(
      [told?.policy, told?.target, told?.runs, told?.nextRunsSeconds.length],
      ["s", "v", 10, 5],
    );
    assert.equal(told?.kept.filter(({ exists }) => !exists).length, 3);
    assert.ok((told?.pruned.filter(({ exists }) => exists).length ?? 0) > 0);
    assert.deepEqual(names(), before);
    assert.match(place.cli("policy", "test", file, "--until", "10h").stdout, /10 to come/);
    assert.deepEqual(place.json<PolicyAnswer>("policy", "show").policies, []);
  });

  it("refused with line, column and field; nothing changes", () => {
    apply("policies: {h: {targets: [w], every: 1d, keep: 7x1d}}");
    const refused = (code: number, text: string, ...more: string[]) => {
      writeFileSync(file, text);
      return place.fails(code, "policy", "apply", file, ...more).message;
    };
    assert.match(
      refused(2, "policies:\n  a: {targets: [v], evry: 1h}\n"),
      /policies\.yaml:2:21: policies\.a\.evry: unknown field; allowed/,
    );
    assert.match(
      refused(2, "policies: {a: {targets: [nothing], every: 1h, keep: 1x1h}}"),
      /no volume nothing/,
    );
    assert.match(refused(10, "policies: {a: {targets: [v], every: 1h}}"), /keeps nothing but the newest/);
    assert.equal(place.fails(4, "policy", "test", join(place.folder, "none.yaml")).code, "NotFound");
    assert.match(place.fails(2, "policy", "test", file, "--until", "soon").message, /"soon" is not a time/);
    assert.deepEqual(
      place.json<PolicyAnswer>("policy", "show").policies.map(({ name }) => name),
      ["h"],
    );
    assert.match(place.cli("policy", "show").stdout, /POLICY +TARGETS/);
  });

  it("hooks run around the snapshot, with what they need to know", async () => {
    const noted = join(place.folder, "noted");
    const note = (words: string, state: string) =>
      JSON.stringify(`echo "$HOLDFAST_HOOK ${words}" >> ${noted}; echo ${state} > ${mount}/state`);
    const before = note("$HOLDFAST_POLICY $HOLDFAST_VOLUME $HOLDFAST_GROUP", "frozen");
    const after = note("$HOLDFAST_SNAPSHOT $HOLDFAST_OUTCOME", "thawed");
    apply(
      `policies:\n  k:\n    targets: [v]\n    every: 2s\n    hold: true\n` +
        `    before: {run: [/bin/sh, -c, ${before}]}\n` +
        `    after: {run: [/bin/sh, -c, ${after}]}\n`,
    );
    await until("it ran", () => policy("k").taken >= 1);
    apply("policies: {}");
    await until("it is over", () => readFileSync(noted, "utf8").trimEnd().split("\n").length % 2 === 0);
    const [first, second] = readFileSync(noted, "utf8").split("\n");
    const [name = ""] = ownOf("k");
    assert.deepEqual([first, second], ["before k v v", `after ${name} taken`]);
    assert.equal(readFileSync(join(mount, ".holdfast/snapshots", name, "state"), "utf8"), "frozen\n");
    assert.equal(readFileSync(join(mount, "state"), "utf8"), "thawed\n");
    assert.equal(snapshots().find((one) => one.name === name)?.held, true);
    assert.equal(place.fails(5, "snapshot", "delete", "v", name, "--yes").code, "Conflict");
  });

  it("a hook that fails or hangs: no snapshot, thawed, shown; other policies go on", async () => {
    const thawed = join(place.folder, "thawed");
    apply(
      `policies:\n  bad:\n    targets: [v]\n    every: 1s\n    keep: 2x1s\n` +
        `    before: {run: [/bin/sh, -c, "echo no disk; exit 7"]}\n` +
        `    after: {run: [/bin/sh, -c, "echo $HOLDFAST_OUTCOME >> ${thawed}"]}\n` +
        `  hangs:\n    targets: [v]\n    every: 1s\n    keep: 2x1s\n` +
        `    before: {run: [/bin/sleep, "600"], timeout: 1s}\n` +
        `  good: {targets: [v], every: 1s, keep: 2x1s}\n`,
    );
    await until("all are told", () => {
      const { bad, hangs, good } = Object.fromEntries(place.status().policies.map((one) => [one.name, one]));
      return (bad?.failures ?? 0) > 0 && (hangs?.failures ?? 0) > 0 && (good?.taken ?? 0) > 1;
    });
    assert.match(policy("bad").problems.join(), /v: the hook before \(\/bin\/sh\) exited with 7: no disk/);
    assert.match(policy("hangs").problems.join(), /ran longer than 1 s/);
    assert.equal(readFileSync(thawed, "utf8").split("\n")[0], "failed");
    assert.deepEqual([ownOf("bad"), ownOf("hangs")], [[], []]);
    const status = place.status();
    assert.equal(status.ready, true, "a failed policy is no failed daemon");
    assert.ok(
      status.warnings.some((text) => /^policy bad: .*tried again at/.test(text)),
      status.warnings.join(),
    );
    assert.match(place.cli("status").stdout, /failed \d×/);
    const doctor = place.cli("doctor");
    assert.equal(doctor.code, 11);
    assert.match(doctor.stdout, /FAIL +policy bad: .*no disk/);
    assert.match(doctor.stdout, /ok +policy good: last success/);
    const metrics = await metricsOf(place.state);
    assert.match(metrics, /holdfast_policy_snapshots\{policy="bad",what="failed"\} [1-9]/);
    assert.match(metrics, /holdfast_policy_last_success_seconds\{policy="good"\} 1/);
  });

  it("killed between the hooks: what was frozen is thawed at the next start, and the run is caught up", async () => {
    const [frozen, thawed] = [join(place.folder, "frozen"), join(place.folder, "late")];
    rmSync(thawed, { force: true });
    // The first run is held between the hooks; later ones pass.
    const hold = `[ -e ${frozen} ] || { touch ${frozen}; exec sleep 600; }`;
    apply(
      `policies:\n  z:\n    targets: [v]\n    every: 1s\n    keep: 2x1s\n` +
        `    before: {run: [/bin/sh, -c, ${JSON.stringify(hold)}]}\n` +
        `    after: {run: [/bin/sh, -c, "echo $HOLDFAST_OUTCOME >> ${thawed}"]}\n`,
    );
    await until("it is frozen", () => existsSync(frozen));
    await place.stop("SIGKILL");
    assert.ok(!existsSync(thawed));
    await place.start();
    await until("it is thawed", () => existsSync(thawed));
    assert.equal(readFileSync(thawed, "utf8").split("\n")[0], "failed");
    await until("and runs again", () => policy("z").taken > 0);
  });

  it("are there after an orderly stop, which no hook holds up", async () => {
    apply(
      `policies:\n  slow: {targets: [v], every: 1s, keep: 2x1s, before: {run: [/bin/sleep, "600"]}}\n` +
        `  d: {targets: [w], cron: "0 3 * * *", timezone: Europe/Berlin, keep: 7x1d}\n`,
    );
    await until("the hook runs", () => policy("slow").running);
    assert.equal(await place.stop("SIGTERM"), 0, place.log);
    await place.start();
    assert.deepEqual(
      place.status().policies.map(({ name, schedule }) => [name, schedule]),
      [
        ["slow", "every 1s"],
        ["d", "cron 0 3 * * * (Europe/Berlin)"],
      ],
    );
    apply("policies: {}");
    assert.ok(readdirSync(place.state).includes("policies.json"));
  });
});
