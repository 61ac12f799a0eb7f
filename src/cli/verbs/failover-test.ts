// holdfast failover GROUP --test: tried on a clone, listed, dropped

import type { Command } from "commander";
import type { TestFailoverAnswer, TestFailoverDropAnswer } from "../../daemon/protocol.js";
import { toPathJson } from "../argv.js";
import { contextOf, showPath } from "../context.js";
import { CliError } from "../errors.js";
import { print, table } from "../output.js";

const TESTS = "/v1/failovers/tests";

export interface TestOptions {
  list?: boolean;
  drop?: boolean;
  mount?: string;
  name?: string;
}

export async function testFailover(
  group: string | undefined,
  { list, drop, mount, name }: TestOptions,
  command: Command,
): Promise<void> {
  const { client, output } = contextOf(command);
  if (list === true) {
    const found = await client.get<TestFailoverAnswer[]>(TESTS);
    const shown = found.filter((one) => group === undefined || one.group === group);
    return print(output, shown, () => testTable(shown));
  }
  if (group === undefined)
    throw new CliError("Invalid", "say which group", "they are listed by: holdfast volume list");
  if (drop === true) {
    const done = await client.delete<TestFailoverDropAnswer>(`${TESTS}/${encodeURIComponent(group)}`);
    return print(output, done, () =>
      done.already
        ? `there is no test failover of ${done.group}`
        : `${done.name} is gone: nothing is left of the test`,
    );
  }
  const where = mount === undefined ? {} : toPathJson(mount);
  const made = await client.post<TestFailoverAnswer>(TESTS, {
    target: group,
    ...where,
    ...(name && { name }),
  });
  print(output, made, () => told(made));
}

function told({ group, name, already, time, volumes, mounts }: TestFailoverAnswer): string {
  const cut = time === null ? "" : `, cut at ${time}`;
  const point = `its newest recovery point${already ? " of then" : ""}${cut}`;
  return [
    `${name} is ${already ? "already " : ""}a clone of ${group} at ${point}`,
    ...volumes.map((volume) => {
      const dirs = mounts.filter((mount) => mount.volume === volume).map(showPath);
      return dirs.length === 0 ? `to use it: holdfast mount ${volume} DIR` : `mounted at ${dirs.join(", ")}`;
    }),
    `the owner goes on, and ${group} follows it; when you are done: holdfast failover ${group} --test --drop`,
  ].join("\n");
}

function testTable(tests: readonly TestFailoverAnswer[]): string {
  const rows = tests.map(({ group, name, time, mounts, problem }) => {
    return [group, name, time ?? "", mounts.map(showPath).join(", "), problem];
  });
  return table(["group", "clone", "as of", "mounted at", "problem"], rows, "no failover is being tested");
}
