import type { Candidates, CompletedCommand, CompletedOption } from "./completed-commands.js";

/** A fish function that is true while no command was given. */
const NO_COMMAND = "__zcow_needs_command";

/** A script for fish: a line for each command, option and word. */
export function fishScript(commands: readonly CompletedCommand[]): string {
  const top = commands.filter(({ words }) => words.length === 1).map(({ words }) => words[0] ?? "");
  const lines = [
    "# Completion of zcow for fish, made by: zcow completion fish",
    `function ${NO_COMMAND}`,
    `    not __fish_seen_subcommand_from ${top.join(" ")}`,
    "end",
    `complete -c zcow -f -n ${NO_COMMAND}`,
    `complete -c zcow -n ${NO_COMMAND} -s h -l help -d 'show help'`,
    `complete -c zcow -n ${NO_COMMAND} -s V -l version -d 'show the version'`,
    `complete -c zcow -n ${NO_COMMAND} -l json -d 'what goes wrong as JSON'`,
    ...commands.flatMap((command) => commandLines(command, commands)),
  ];
  return `${lines.join("\n")}\n`;
}

function commandLines(command: CompletedCommand, all: readonly CompletedCommand[]): string[] {
  const { words, summary, options, operands, isGroup } = command;
  const word = words.at(-1) ?? "";
  const before = words.length === 1 ? NO_COMMAND : single(withoutSibling(words, all));
  const seen = words.map((one) => `__fish_seen_subcommand_from ${one}`).join("; and ");
  return [
    `complete -c zcow -n ${before} -a ${word} -d ${single(summary)}`,
    ...options.map((option) => `complete -c zcow -n ${single(seen)} ${optionWords(option)}`),
    ...(isGroup ? [] : operands.map((operand) => `complete -c zcow -n ${single(seen)} -a ${operand}`)),
  ];
}

function withoutSibling(words: readonly string[], all: readonly CompletedCommand[]): string {
  const [group = ""] = words;
  const siblings = all.filter((command) => command.words.length === 2 && command.words[0] === group);
  const names = siblings.map((command) => command.words[1]).join(" ");
  return `__fish_seen_subcommand_from ${group}; and not __fish_seen_subcommand_from ${names}`;
}

function optionWords({ names, about, value }: CompletedOption): string {
  const named = names.map((name) => (name.startsWith("--") ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`));
  return [...named, ...(value === undefined ? [] : valueWords(value.candidates)), `-d ${single(about)}`].join(" ");
}

function valueWords(candidates: Candidates): string[] {
  if (candidates === "files") return ["-r", "-F"];
  return candidates === "anything" ? ["-x"] : ["-x", `-a ${single(candidates.join(" "))}`];
}

function single(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}
