// holdfast cp SRC DST: through the mount, as the user who asks.

import type { Command } from "commander";
import { toPathBytes } from "../argv.js";
import { show, toJson } from "../bytes.js";
import { contextOf } from "../context.js";
import { print } from "../output.js";
import { duplicate } from "../past/duplicate.js";
import { Progress } from "../progress.js";

export function addCp(program: Command): void {
  program
    .command("cp <source> <target>")
    .description("copy a file or tree within a volume by reference, also from the past; whole or not at all")
    .action(async (source: string, target: string, _options: object, command: Command) => {
      const { output } = contextOf(command);
      const progress = new Progress();
      const from = toPathBytes(source);
      const told = (done: number, all: number) =>
        progress.tell(done, all, `${done} of ${all}  ${show(from)}`);
      const done = await duplicate({
        from,
        to: toPathBytes(target),
        progress: progress.isShown ? told : undefined,
      }).finally(() => progress.end());
      const { path, kind, plain, warnings } = done;
      print(
        output,
        { ...toJson(path), from: toJson(done.from), kind, byReference: plain === null, plain, warnings },
        () =>
          [
            `${show(path)} is a copy of ${show(done.from)}`,
            plain === null
              ? "no data was copied: both show the same stored pages"
              : `every byte was copied: ${plain}`,
            ...warnings.map((warning) => `warning: ${warning}`),
          ].join("\n"),
      );
    });
}
