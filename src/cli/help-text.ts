import type { CommandContext } from "./context.js";
import { type CommandManual, type OptionGroup, optionGroups, type TermList, valueName } from "./manual.js";
import type { OptionSpec } from "./options.js";

/** Lines are broken for terminals of common width, whether there is one or not: help is also read in pipes. */
const WIDTH = 100;
/** Widest column of options; what is longer has its text on the next line. */
const MOST_COLUMN = 30;
const INDENT = "  ";

/** What `--help` prints. `call`: the words that call the command, when they are not program and name. */
export function helpText(manual: CommandManual, context: CommandContext, call?: string): string {
  const words = call ?? `${context.program} ${manual.name}`;
  const parts = [usage(manual, words), ...manual.about.map((text) => wrap(text, ""))];
  const groups = optionGroups(manual);
  const column = columnWidth(groups.flatMap(({ options }) => options.map(optionLabel)));
  for (const group of groups) parts.push(groupText(group, column));
  for (const list of manual.lists ?? []) parts.push(listText(list));
  for (const note of manual.notes ?? []) parts.push(wrap(note, ""));
  if (manual.exitStatus !== undefined) parts.push(wrap(`Exit status: ${manual.exitStatus}`, ""));
  const examples = (manual.examples ?? []).map((line) => `${INDENT}${context.program} ${line}\n`);
  if (examples.length > 0) parts.push(`Examples:\n${examples.join("")}`);
  return parts.filter((part) => part !== "").join("\n");
}

function usage({ synopsis }: CommandManual, words: string): string {
  const lead = ["usage:", "      "];
  return synopsis
    .map((form, index) => wrap(`${words} ${form}`, `${lead[index === 0 ? 0 : 1]} `, " ".repeat(11)))
    .join("");
}

function groupText({ heading, options, note }: OptionGroup, column: number): string {
  const shown = options.filter((option) => option.about !== undefined);
  const rows = shown.map((option) => row(optionLabel(option), option.about ?? "", column));
  const title = heading === "" ? "" : `${heading}:\n`;
  return `${title}${rows.join("")}${note === undefined ? "" : wrap(note, INDENT)}`;
}

function listText({ heading, terms }: TermList): string {
  const column = columnWidth(terms.map(([term]) => `${INDENT}${term}`));
  return `${heading}:\n${terms.map(([term, meaning]) => row(`${INDENT}${term}`, meaning, column)).join("")}`;
}

/** `  -f, --format FORMAT`, with the long words below each other. */
function optionLabel(option: OptionSpec): string {
  const { short, long } = option;
  const value = valueName(option);
  const letter = short === undefined ? "    " : `-${short}${long === undefined ? "" : ", "}`;
  const word = long === undefined ? "" : `--${long}`;
  return `${INDENT}${letter}${word}${value === undefined ? "" : ` ${value}`}`;
}

function columnWidth(labels: readonly string[]): number {
  const widths = labels.map((label) => label.length + INDENT.length).filter((width) => width <= MOST_COLUMN);
  return Math.max(0, ...widths);
}

function row(label: string, text: string, column: number): string {
  const fits = label.length + INDENT.length <= column;
  const lead = fits ? label.padEnd(column) : `${label}\n${" ".repeat(column)}`;
  return wrap(text, lead, " ".repeat(column));
}

/** Breaks `text` between words; the first line starts with `lead`, of which the last line counts, all others with `indent`. */
function wrap(text: string, lead: string, indent: string = lead): string {
  const lines: string[] = [];
  let line = lead;
  let used = lead.length - (lead.lastIndexOf("\n") + 1);
  let empty = true;
  for (const word of text.split(" ")) {
    if (!empty && used + 1 + word.length > WIDTH) {
      lines.push(line);
      [line, used, empty] = [indent, indent.length, true];
    }
    line += empty ? word : ` ${word}`;
    used += word.length + (empty ? 0 : 1);
    empty = false;
  }
  lines.push(line);
  return `${lines.map((one) => one.trimEnd()).join("\n")}\n`;
}
