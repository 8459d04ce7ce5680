import type { Command } from "./context.js";
import type { CommandManual } from "./manual.js";

/** A command as the program knows it before it is loaded. */
export interface CommandEntry {
  /** What it does, in one line for lists. */
  readonly summary: string;
  /** True when the stock qemu-img has a command of this name. */
  readonly stock?: boolean;
  /** Loads the command: only the one that runs is loaded. */
  readonly load: () => Promise<Command>;
  /** What the command takes, for completion and the manual page. */
  readonly manual: () => Promise<CommandManual>;
  /** The commands behind this one, when it only leads to others. */
  readonly commands?: () => Promise<CommandTable>;
}

/** Commands by name, in the order of lists. */
export type CommandTable = Readonly<Record<string, CommandEntry>>;
