import type { CommandTable } from "../command-table.js";
import { bashScript } from "./bash.js";
import { completedCommands } from "./completed-commands.js";
import { fishScript } from "./fish.js";
import { zshScript } from "./zsh.js";

export const SHELLS = ["bash", "zsh", "fish"] as const;

export type Shell = (typeof SHELLS)[number];

const SCRIPTS = { bash: bashScript, zsh: zshScript, fish: fishScript };

/** A script for `shell` that completes the command lines of `commands`. */
export async function shellScript(shell: Shell, commands: CommandTable): Promise<string> {
  return SCRIPTS[shell](await completedCommands(commands));
}
