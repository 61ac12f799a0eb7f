// holdfast completion bash|zsh|fish: prints a script made from the verbs themselves.

import { Argument } from "commander";
import type { Command } from "commander";

export function addCompletion(program: Command): void {
  program
    .command("completion")
    .description("print a completion script; for bash: source <(holdfast completion bash)")
    .addArgument(new Argument("<shell>", "which shell").choices(["bash", "zsh", "fish"]))
    .action((shell: "bash" | "zsh" | "fish") => {
      process.stdout.write(SCRIPTS[shell](wordsOf(program)));
    });
}

interface Words {
  /** The verbs so far, `""` at the top. */
  path: string;
  words: string[];
}

function wordsOf(command: Command, path: readonly string[] = []): Words[] {
  const options = command.options.flatMap((option) =>
    option.hidden ? [] : [option.long ?? option.short ?? ""],
  );
  const words = [
    ...command.commands.map((child) => child.name()),
    ...options,
    ...(path.length === 0 ? [] : GLOBAL),
  ];
  const below = command.commands.flatMap((child) => wordsOf(child, [...path, child.name()]));
  return [{ path: path.join(" "), words }, ...below];
}

const GLOBAL = ["--state", "--json", "--help"];

const SCRIPTS = {
  bash: (all: Words[]) => `# bash completion for holdfast
_holdfast() {
  local current="\${COMP_WORDS[COMP_CWORD]}" path="" next word
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    next="\${path:+$path }$word"
    case "$word" in -*) ;; *) [ "$(_holdfast_words "$next")" ] && path=$next ;; esac
  done
  COMPREPLY=($(compgen -W "$(_holdfast_words "$path")" -- "$current"))
}
${wordFunction(all)}
complete -o default -F _holdfast holdfast
`,
  zsh: (all: Words[]) => `#compdef holdfast
# zsh completion for holdfast
_holdfast() {
  local path_="" next word
  for word in "\${words[@]:1:$((CURRENT-2))}"; do
    next="\${path_:+$path_ }$word"
    case "$word" in -*) ;; *) [ "$(_holdfast_words "$next")" ] && path_=$next ;; esac
  done
  compadd -- \${=$(_holdfast_words "$path_")}
  _files
}
${wordFunction(all)}
compdef _holdfast holdfast
`,
  fish: (all: Words[]) =>
    `# fish completion for holdfast\n${all
      .map(({ path, words }) => {
        const condition =
          path === ""
            ? "__fish_use_subcommand"
            : path
                .split(" ")
                .map((verb) => `__fish_seen_subcommand_from ${verb}`)
                .join("; and ");
        return `complete -c holdfast -n '${condition}' -a '${words.join(" ")}'`;
      })
      .join("\n")}\n`,
};

/** Prints the words that may follow a path of verbs; nothing when there is no such path. */
function wordFunction(all: Words[]): string {
  const cases = all.map(({ path, words }) => `    "${path}") echo "${words.join(" ")}" ;;`);
  return `_holdfast_words() {\n  case "$1" in\n${cases.join("\n")}\n  esac\n}`;
}
