import type { CommandTable } from "../command-table.js";
import { type CommandManual, optionsOf, valueName } from "../manual.js";
import type { OptionSpec } from "../options.js";

/** What can stand where a value is expected: one of a few words, the name of a file, or anything. */
export type Candidates = readonly string[] | "files" | "anything";

export interface CompletedOption {
  /** `-f`, `--format`. */
  readonly names: readonly string[];
  readonly about: string;
  /** What may follow; undefined when nothing does. */
  readonly value: { readonly name: string; readonly candidates: Candidates } | undefined;
}

/** A command as shells complete it. */
export interface CompletedCommand {
  /** The words that call it: `info`, `zone report`. */
  readonly words: readonly string[];
  readonly summary: string;
  readonly options: readonly CompletedOption[];
  /** Fixed words among the operands; all others are files. */
  readonly operands: readonly string[];
  /** It only leads to others. */
  readonly isGroup: boolean;
}

const FORMATS = ["qcow2", "raw", "vmdk", "vhdx", "vpc", "vdi"];
const CACHE_MODES = ["none", "writeback", "unsafe", "directsync", "writethrough"];
const FILE_VALUES = /^(FILE|PATH|SOCKET|DIR|BASE|BACKING|CONFIG)$/;

/** All commands, each before those behind it. */
export async function completedCommands(
  table: CommandTable,
  before: readonly string[] = [],
): Promise<CompletedCommand[]> {
  const commands: CompletedCommand[] = [];
  for (const [word, entry] of Object.entries(table)) {
    const words = [...before, word];
    const manual = await entry.manual();
    const behind = entry.commands === undefined ? undefined : await entry.commands();
    commands.push({
      words,
      summary: entry.summary,
      options: completedOptions(manual),
      operands: behind === undefined ? (manual.words ?? []) : Object.keys(behind),
      isGroup: behind !== undefined,
    });
    if (behind !== undefined) commands.push(...(await completedCommands(behind, words)));
  }
  return commands;
}

function completedOptions(manual: CommandManual): CompletedOption[] {
  return optionsOf(manual)
    .filter(({ name, about }) => about !== undefined || name === "help")
    .map(completedOption);
}

function completedOption(option: OptionSpec): CompletedOption {
  const { short, long, about = "show help" } = option;
  const names = [...(short === undefined ? [] : [`-${short}`]), ...(long === undefined ? [] : [`--${long}`])];
  const name = valueName(option);
  return { names, about, value: name === undefined ? undefined : { name, candidates: candidates(option, name) } };
}

function candidates({ name, choices }: OptionSpec, value: string): Candidates {
  if (choices !== undefined) return choices;
  if (value === "FORMAT") return FORMATS;
  if (name.endsWith("cache")) return CACHE_MODES;
  return FILE_VALUES.test(value) ? "files" : "anything";
}
