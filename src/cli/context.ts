import type { Output } from "./output.js";

/** What every command gets. */
export interface CommandContext {
  /** The name the program was called by; starts every line on standard error. */
  readonly program: string;
  /** Called under the name of a stock tool: texts are that tool's, to the letter. */
  readonly standIn: boolean;
  readonly output: Output;
}

/** Runs a command with the arguments after its name; resolves to the exit status. */
export type Command = (args: readonly string[], context: CommandContext) => Promise<number>;
