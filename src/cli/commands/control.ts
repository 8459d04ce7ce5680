import { realpathSync } from "node:fs";
import { controlRequest } from "../../servers/control/control-client.js";
import { FAULT_OPERATIONS, FAULT_STATUSES } from "../../servers/control/fault-rules.js";
import { commandArguments } from "../command-arguments.js";
import { HELP_OPTION } from "../common-options.js";
import type { CommandContext } from "../context.js";
import { jsonText } from "../json.js";
import type { CommandManual } from "../manual.js";
import { lastValue, type OptionSpec, type ParsedArguments } from "../options.js";
import { UsageError } from "../usage-error.js";
import { countArgument } from "../zone-image.js";

const NUMBERS = ["nsid", "delay", "lba", "blocks", "count", "first"] as const;
const TEXTS = ["subsystem", "operation", "status"] as const;
export const CONTROL_MANUAL: CommandManual = {
  name: "control",
  synopsis: ["SOCKET COMMAND [OPTION]..."],
  about: ["Asks a server that was started with --control SOCKET; the answer is JSON."],
  options: [
    option("nsid", "N", "the namespace"),
    option("operation", "WHICH", `${FAULT_OPERATIONS.join(", ")} (the default)`, FAULT_OPERATIONS),
    option(
      "status",
      "STATUS",
      "name (below) or number with the status code in bits 7:0 and its type in bits 10:8",
      Object.keys(FAULT_STATUSES),
    ),
    option("delay", "MILLISECONDS", "before the command is carried out or fails"),
    option("lba", "N", "only commands that touch blocks from this one on"),
    option("blocks", "N", "how many blocks that are"),
    option("count", "N", "only so many commands; with zone-report: zones"),
    option("first", "N", "with zone-report: the zone to begin with"),
    option("subsystem", "NQN", "which one, when there are several"),
    HELP_OPTION,
  ],
  lists: [
    {
      heading: "Commands",
      terms: [
        ["status", "what is served, to whom, and how much was done"],
        ["zone-report IMAGE", "zones as the server has them"],
        ["inject --nsid N", "make commands of a namespace fail or wait"],
        ["clear-faults --nsid N", "take that back"],
      ],
    },
  ],
  notes: [
    `Statuses: ${Object.keys(FAULT_STATUSES).join(", ")}`,
    "'zcow zone set-state --control SOCKET' forces states on zones.",
  ],
  words: ["status", "zone-report", "inject", "clear-faults"],
};

function option(name: string, value: string, about: string, choices: readonly string[] = []): OptionSpec {
  return { name, long: name, value, about, ...(choices.length === 0 ? {} : { choices }) };
}

const COMMANDS = ["status", "zone-report", "inject", "clear-faults"];

export async function controlCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, CONTROL_MANUAL, context);
  if (parsed === undefined) return 0;
  const [socket, command, image, ...more] = parsed.positionals;
  if (socket === undefined || command === undefined) throw new UsageError("control: Expecting a socket and a command");
  if (!COMMANDS.includes(command)) throw new UsageError(`Command not found: control ${command}`);
  if ((image !== undefined) !== (command === "zone-report") || more.length > 0) {
    throw new UsageError(`control ${command}: ${command === "zone-report" ? "Expecting one" : "Expecting no"} image`);
  }
  const request = { command, ...requestFields(parsed), ...(image === undefined ? {} : { image: realPath(image) }) };
  context.output.out(jsonText(await controlRequest(socket, request)));
  return 0;
}

function requestFields(parsed: ParsedArguments): Record<string, string | number> {
  const fields: Record<string, string | number> = {};
  for (const name of TEXTS) {
    const text = lastValue(parsed, name);
    if (text !== undefined) fields[name] = name === "status" && /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : text;
  }
  for (const name of NUMBERS) {
    const text = lastValue(parsed, name);
    if (text !== undefined) fields[name] = countArgument(name, text);
  }
  return fields;
}

/** The server knows images by their real paths. */
export function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    // The server will say that it does not serve it.
    return path;
  }
}
