import type { IoSession } from "./session.js";

/** The arguments of one command, split into options and the rest. */
export interface IoArguments {
  /** Option letters given, with their values ("" for flags). */
  readonly options: ReadonlyMap<string, string>;
  readonly operands: readonly string[];
}

/** One command of the exerciser. */
export interface IoCommand {
  readonly name: string;
  readonly alias?: string;
  /** Shown after the name in the list of commands. */
  readonly synopsis?: string;
  readonly summary: string;
  /** Least number of arguments, options included. */
  readonly minimum: number;
  /** Most arguments, options included; no limit when left out. */
  readonly maximum?: number;
  /** Option letters as `getopt` takes them: a colon follows letters that need a value. */
  readonly letters?: string;
  /** By letter, judges the value of an option when it is read: throws {@link BadArguments}. */
  readonly judges?: Readonly<Record<string, (value: string) => unknown>>;
  /** By letter, what the command answers to an option that ends it at once, well. */
  readonly answers?: Readonly<Record<string, string>>;
  /** Works without an open image. */
  readonly withoutImage?: boolean;
  readonly writes?: boolean;
  /** Does not wait for, nor report, requests started earlier. */
  readonly asynchronous?: boolean;
  /** Lines that `help NAME` adds to the one-line form. */
  readonly explanation?: readonly string[];
  /** Resolves to false when the command failed and has said so. */
  readonly run: (session: IoSession, args: IoArguments) => Promise<boolean>;
}

/** Thrown by a command whose arguments make no sense; `text` is printed on standard output, or the usage without it. */
export class BadArguments extends Error {
  readonly text: string | undefined;

  constructor(text?: string) {
    super(text ?? "wrong arguments");
    this.text = text;
  }
}

/** The one line that describes `command`. */
export function usageLine(command: IoCommand): string {
  return `${command.name} ${command.synopsis === undefined ? "" : `${command.synopsis} `}-- ${command.summary}\n`;
}

/** `answer`: what ends the command without more. */
export type LetterResult =
  | { readonly args: IoArguments }
  | { readonly complaint: string }
  | { readonly answer: string };

/** Splits `words` by the option letters of `command`; options may follow operands. Throws {@link BadArguments}. */
export function splitLetters(command: IoCommand, words: readonly string[]): LetterResult {
  const options = new Map<string, string>();
  const operands: string[] = [];
  const rest = [...words];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === "--") {
      operands.push(...rest.splice(0));
    } else if (!word.startsWith("-") || word === "-" || command.letters === undefined) {
      operands.push(word);
    } else {
      const end = takeLetters(command, word, rest, options);
      if (end !== undefined) return end;
    }
  }
  return { args: { options, operands } };
}

function takeLetters(
  command: IoCommand,
  word: string,
  rest: string[],
  options: Map<string, string>,
): Exclude<LetterResult, { readonly args: IoArguments }> | undefined {
  const letters = command.letters ?? "";
  for (let at = 1; at < word.length; at++) {
    const letter = word[at] ?? "";
    const place = letter === ":" ? -1 : letters.indexOf(letter);
    if (place < 0) return { complaint: `${command.name}: invalid option -- '${letter}'\n` };
    const isFlag = letters[place + 1] !== ":";
    const value = isFlag ? "" : at + 1 < word.length ? word.slice(at + 1) : rest.shift();
    if (value === undefined) return { complaint: `${command.name}: option requires an argument -- '${letter}'\n` };
    options.set(letter, value);
    command.judges?.[letter]?.(value);
    const answer = command.answers?.[letter];
    if (answer !== undefined) return { answer };
    if (!isFlag) return undefined;
  }
  return undefined;
}
