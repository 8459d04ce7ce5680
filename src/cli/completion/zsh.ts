import type { Candidates, CompletedCommand, CompletedOption } from "./completed-commands.js";

/** A script for zsh: a function for each command, and one that finds them. */
export function zshScript(commands: readonly CompletedCommand[]): string {
  return `#compdef zcow
# Completion of zcow for zsh, made by: zcow completion zsh

${commands.map((command) => (command.isGroup ? dispatcher(command.words, commands) : commandFunction(command))).join("\n")}
${dispatcher([], commands)}
_zcow "$@"
`;
}

const functionName = (words: readonly string[]): string => ["_zcow", ...words].join("_").replaceAll("-", "_");

/** Completes the next word, and then goes on with the function of that command. */
function dispatcher(words: readonly string[], commands: readonly CompletedCommand[]): string {
  const next = commands.filter((command) => command.words.length === words.length + 1 && startsWith(command, words));
  const names = next.map((command) => ({ word: command.words.at(-1) ?? "", summary: command.summary }));
  const global = words.length === 0 ? [{ names: ["--json"], about: "what goes wrong as JSON", value: undefined }] : [];
  const help: CompletedOption = { names: ["-h", "--help"], about: "show help", value: undefined };
  return `${functionName(words)}() {
  local -a commands
  local context state state_descr line
  typeset -A opt_args
  commands=(
${names.map(({ word, summary }) => `    ${single(`${word}:${summary}`)}`).join("\n")}
  )
  _arguments -C ${[help, ...global].map(argument).join(" ")} '1: :->command' '*:: :->rest'
  case $state in
    command) _describe -t commands 'command' commands ;;
    rest)
      case $line[1] in
${next.map((command) => `        ${command.words.at(-1)}) ${functionName(command.words)} ;;`).join("\n")}
      esac
      ;;
  esac
}
`;
}

function startsWith(command: CompletedCommand, words: readonly string[]): boolean {
  return words.every((word, index) => command.words[index] === word);
}

function commandFunction({ words, options, operands }: CompletedCommand): string {
  const rest =
    operands.length === 0
      ? "'*:file:_files'"
      : `'*: :{ _alternative "words:word:(${operands.join(" ")})" "files:file:_files" }'`;
  const lines = [...options.map(argument), rest];
  return `${functionName(words)}() {
  _arguments -s \\
${lines.map((line) => `    ${line}`).join(" \\\n")}
}
`;
}

/** One specification of \`_arguments\`; options may be repeated, which is harmless where it means nothing. */
function argument({ names, about, value }: CompletedOption): string {
  const text = `[${about.replaceAll(/[[\]\\]/g, "\\$&")}]`;
  const behind =
    value === undefined ? "" : `:${value.name.replaceAll(/[:[\]\\]/g, "\\$&")}:${action(value.candidates)}`;
  if (names.length === 1) return single(`*${names[0]}${text}${behind}`);
  return `'*'{${names.join(",")}}${single(`${text}${behind}`)}`;
}

function action(candidates: Candidates): string {
  if (candidates === "anything") return "";
  return candidates === "files" ? "_files" : `(${candidates.join(" ")})`;
}

function single(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
