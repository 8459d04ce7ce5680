import { UsageError } from "./usage-error.js";

/** One option that a command takes. */
export interface OptionSpec {
  /** Name that the command uses for it. */
  readonly name: string;
  /** One letter, without the dash. */
  readonly short?: string;
  /** Word, without the dashes. */
  readonly long?: string;
  /** Given when a value must follow: what stands for it in help texts, as in `FORMAT`. */
  readonly value?: string | boolean;
  /** What it does, for help and the manual page. An option without is taken, and not spoken of. */
  readonly about?: string;
  /** The values that there are, when they are few, for completion. */
  readonly choices?: readonly string[];
}

/** An option whose long word is its name, and which takes a value. */
export function valueOption(name: string, short?: string, value: string | true = true, about?: string): OptionSpec {
  return { ...flagOption(name, short, about), value };
}

/** An option whose long word is its name, and which stands alone. */
export function flagOption(name: string, short?: string, about?: string): OptionSpec {
  return { name, long: name, ...(short === undefined ? {} : { short }), ...(about === undefined ? {} : { about }) };
}

/** `option` with what it does in one command. */
export function saying(option: OptionSpec, about: string): OptionSpec {
  return { ...option, about };
}

function takesValue({ value }: OptionSpec): boolean {
  return value !== undefined && value !== false;
}

/** One option as found on the command line, in order. */
export interface FoundOption {
  readonly name: string;
  readonly value: string;
}

export interface ParsedArguments {
  readonly options: readonly FoundOption[];
  readonly positionals: readonly string[];
}

/**
 * Splits arguments the way `getopt_long` does, on which the stock tools stand: options may follow positionals, letters
 * may be joined ("-qU"), values may be attached ("-fqcow2", "--output=json"), long names may be cut as long as they
 * stay unique, and "--" ends the options. Throws {@link UsageError} in the words of the stock tools.
 */
export function parseArguments(args: readonly string[], specs: readonly OptionSpec[]): ParsedArguments {
  const options: FoundOption[] = [];
  const positionals: string[] = [];
  const rest = [...args];
  for (let arg = rest.shift(); arg !== undefined; arg = rest.shift()) {
    if (arg === "--") {
      positionals.push(...rest.splice(0));
    } else if (arg.startsWith("--")) {
      options.push(parseLong(arg, specs, rest));
    } else if (arg.startsWith("-") && arg !== "-") {
      options.push(...parseShort(arg, specs, rest));
    } else {
      positionals.push(arg);
    }
  }
  return { options, positionals };
}

function parseLong(arg: string, specs: readonly OptionSpec[], rest: string[]): FoundOption {
  const equals = arg.indexOf("=");
  const word = equals < 0 ? arg.slice(2) : arg.slice(2, equals);
  const exact = specs.find((spec) => spec.long === word);
  const matches = exact === undefined ? specs.filter((spec) => spec.long?.startsWith(word)) : [exact];
  const [spec] = matches;
  if (spec === undefined || matches.length > 1) throw unrecognized(arg, `unrecognized option '${arg}'`);
  if (!takesValue(spec)) {
    if (equals >= 0) throw unrecognized(arg, `option '--${spec.long}' doesn't allow an argument`);
    return { name: spec.name, value: "" };
  }
  const value = equals < 0 ? rest.shift() : arg.slice(equals + 1);
  if (value === undefined) throw missingValue(arg, `option '--${spec.long}' requires an argument`);
  return { name: spec.name, value };
}

function parseShort(arg: string, specs: readonly OptionSpec[], rest: string[]): FoundOption[] {
  const found: FoundOption[] = [];
  for (let at = 1; at < arg.length; at++) {
    const spec = specs.find((candidate) => candidate.short === arg[at]);
    if (spec === undefined) throw unrecognized(arg, `invalid option -- '${arg[at]}'`);
    if (takesValue(spec)) {
      const value = at + 1 < arg.length ? arg.slice(at + 1) : rest.shift();
      if (value === undefined) throw missingValue(arg, `option requires an argument -- '${arg[at]}'`);
      found.push({ name: spec.name, value });
      break;
    }
    found.push({ name: spec.name, value: "" });
  }
  return found;
}

/** An option that is not there, or lacks its value. The message is qemu-img's, `getoptText` that of the other stock tools. */
export class OptionError extends UsageError {
  readonly getoptText: string;

  constructor(message: string, getoptText: string) {
    super(message);
    this.getoptText = getoptText;
  }
}

function unrecognized(arg: string, getoptText: string): OptionError {
  return new OptionError(`unrecognized option '${arg}'`, getoptText);
}

function missingValue(arg: string, getoptText: string): OptionError {
  return new OptionError(`missing argument for option '${arg}'`, getoptText);
}

/** The last value given for `name`; earlier ones are overridden, as in the stock tools. */
export function lastValue(parsed: ParsedArguments, name: string): string | undefined {
  return parsed.options.findLast((option) => option.name === name)?.value;
}

/** Has `judge` look at each option alone, as it comes: of several wrong ones, stock tools complain of the first. */
export function judgeInOrder(parsed: ParsedArguments, judge: (one: ParsedArguments) => unknown): void {
  for (const option of parsed.options) judge({ options: [option], positionals: [] });
}

export function isGiven(parsed: ParsedArguments, name: string): boolean {
  return parsed.options.some((option) => option.name === name);
}

/** All values given for `name`, in order. */
export function allValues(parsed: ParsedArguments, name: string): string[] {
  return parsed.options.filter((option) => option.name === name).map((option) => option.value);
}
