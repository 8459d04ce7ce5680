import type { OptionSpec } from "./options.js";

/** Options that belong together. */
export interface OptionGroup {
  readonly heading: string;
  readonly options: readonly OptionSpec[];
  /** What is to be said of them all; a paragraph. */
  readonly note?: string;
}

/** Terms and what they mean. */
export interface TermList {
  readonly heading: string;
  readonly terms: readonly (readonly [term: string, meaning: string])[];
}

/**
 * What a command takes, and what there is to say about it: parsing, `--help`, completion in shells and the manual page all follow
 * from this. Text is plain; lines are broken where it is shown.
 */
export interface CommandManual {
  /** The words that call the command: `info`, `zone report`. */
  readonly name: string;
  /** What follows the name; a line for each form. */
  readonly synopsis: readonly string[];
  /** What the command does, in paragraphs. */
  readonly about: readonly string[];
  readonly options: readonly OptionSpec[] | readonly OptionGroup[];
  /** Lists of what options or operands may be. */
  readonly lists?: readonly TermList[];
  /** What else there is to know, in paragraphs. */
  readonly notes?: readonly string[];
  /** What each exit status means, where there is more than success and failure. */
  readonly exitStatus?: string;
  /** Command lines, without the name of the program. */
  readonly examples?: readonly string[];
  /** Fixed words among the operands, for completion. */
  readonly words?: readonly string[];
}

/** The options of a command by group; one group without a heading when it has no groups. */
export function optionGroups({ options }: CommandManual): readonly OptionGroup[] {
  const isGroup = (entry: OptionSpec | OptionGroup): entry is OptionGroup => "options" in entry;
  const groups = options.filter(isGroup);
  const single = options.filter((entry): entry is OptionSpec => !isGroup(entry));
  return single.length === 0 ? groups : [{ heading: "", options: single }, ...groups];
}

/** All options of a command, for {@link parseArguments}. */
export function optionsOf(manual: CommandManual): OptionSpec[] {
  return optionGroups(manual).flatMap(({ options }) => options);
}

/** What stands for the value of an option in texts; undefined when it takes none. */
export function valueName({ name, value }: OptionSpec): string | undefined {
  if (value === undefined || value === false) return undefined;
  return value === true ? name.toUpperCase() : value;
}
