import type { Output } from "./output.js";

/** Takes what is to be said on standard error. */
export interface Reporter {
  /** What made the command fail. */
  failure(error: unknown): void;
  /** A line about a failure, or a warning. */
  line(text: string): void;
}

/** What every command gets. */
export interface CommandContext {
  /** The name the program was called by; starts every line on standard error. */
  readonly program: string;
  /** Called under the name of a stock tool: texts are that tool's, to the letter. */
  readonly standIn: boolean;
  readonly output: Output;
  /** Says what goes wrong, where that is asked for in another form than text. */
  readonly reporter?: Reporter;
}

/** Runs a command with the arguments after its name; resolves to the exit status. */
export type Command = (args: readonly string[], context: CommandContext) => Promise<number>;
