import type { Candidates, CompletedCommand } from "./completed-commands.js";

/** A script for bash. It needs nothing but bash itself. */
export function bashScript(commands: readonly CompletedCommand[]): string {
  const groups = commands.filter(({ isGroup }) => isGroup).map(({ words }) => words.join(" "));
  const top = commands.filter(({ words }) => words.length === 1).map(({ words }) => words[0]);
  return `# Completion of zcow for bash, made by: zcow completion bash
_zcow() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD - 1]}"
  local index command="" options="" operands=""
  COMPREPLY=()
  # "--name=value" is three words to bash.
  if [[ $current == "=" ]]; then current=""; elif [[ $previous == "=" ]]; then previous="\${COMP_WORDS[COMP_CWORD - 2]}"; fi
  for ((index = 1; index < COMP_CWORD; index++)); do
    case "\${COMP_WORDS[index]}" in
      -*) ;;
      *)
        command="\${command:+$command }\${COMP_WORDS[index]}"
        case "$command" in ${groups.length === 0 ? '""' : groups.map(quoted).join(" | ")}) ;; *) break ;; esac
        ;;
    esac
  done
  case "$command $previous" in
${commands.flatMap(valueCases).join("\n")}
  esac
  case "$command" in
    "") options="--help --version --json" operands="${top.join(" ")}" ;;
${commands.map(commandCase).join("\n")}
    *) return ;;
  esac
  if [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$current"))
  elif [[ -n $operands ]]; then
    COMPREPLY=($(compgen -W "$operands" -- "$current"))
  fi
  if [[ -n $command && $current != -* ]]; then
    case "$command" in ${groups.length === 0 ? '""' : groups.map(quoted).join(" | ")}) ;; *) COMPREPLY+=($(compgen -f -- "$current")) ;; esac
  fi
}
complete -o filenames -F _zcow zcow
`;
}

const quoted = (text: string): string => `"${text}"`;

function valueCases({ words, options }: CompletedCommand): string[] {
  const command = words.join(" ");
  return options.flatMap(({ names, value }) => {
    if (value === undefined) return [];
    const patterns = names.map((name) => quoted(`${command} ${name}`)).join(" | ");
    return [`    ${patterns}) ${replies(value.candidates)}return ;;`];
  });
}

function replies(candidates: Candidates): string {
  if (candidates === "anything") return "";
  const what = candidates === "files" ? "-f" : `-W "${candidates.join(" ")}"`;
  return `COMPREPLY=($(compgen ${what} -- "$current")); `;
}

function commandCase({ words, options, operands }: CompletedCommand): string {
  const names = options.flatMap((option) => option.names).join(" ");
  return `    "${words.join(" ")}") options="${names}" operands="${operands.join(" ")}" ;;`;
}
