import { commandArguments } from "../command-arguments.js";
import type { CommandTable } from "../command-table.js";
import { HELP_OPTION } from "../common-options.js";
import { SHELLS, type Shell, shellScript } from "../completion/shell-script.js";
import type { Command } from "../context.js";
import type { CommandManual } from "../manual.js";
import { UsageError } from "../usage-error.js";

export const COMPLETION_MANUAL: CommandManual = {
  name: "completion",
  synopsis: ["bash | zsh | fish"],
  about: ["Prints a script that makes the shell complete the commands, options and values of zcow."],
  options: [HELP_OPTION],
  lists: [
    {
      heading: "Where the script goes",
      terms: [
        [
          "bash",
          'a file in ~/.local/share/bash-completion/completions called zcow; or: eval "$(zcow completion bash)"',
        ],
        ["zsh", "a file called _zcow in a folder of $fpath"],
        ["fish", "~/.config/fish/completions/zcow.fish"],
      ],
    },
  ],
  words: SHELLS,
};

/** The command, which completes those of `commands`. */
export function completionCommand(commands: CommandTable): Command {
  return async (args, context) => {
    const parsed = commandArguments(args, COMPLETION_MANUAL, context);
    if (parsed === undefined) return 0;
    const [name, ...more] = parsed.positionals;
    const shell = SHELLS.find((known): known is Shell => known === name);
    if (shell === undefined || more.length > 0) throw new UsageError(`Expecting one of ${SHELLS.join(", ")}`);
    context.output.out(await shellScript(shell, commands));
    return 0;
  };
}
