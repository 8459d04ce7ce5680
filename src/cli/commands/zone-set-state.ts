import { controlRequest } from "../../servers/control/control-client.js";
import { WRITE_BACK } from "../cache-mode.js";
import { commandArguments } from "../command-arguments.js";
import { FORMAT_OPTION, HELP_OPTION } from "../common-options.js";
import type { CommandContext } from "../context.js";
import { EXIT_FAILURE } from "../failure.js";
import { ioCommands } from "../io/all-commands.js";
import { PLAIN_CHOICE } from "../io/image.js";
import { IoSession } from "../io/session.js";
import type { CommandManual } from "../manual.js";
import { allValues, lastValue, saying } from "../options.js";
import { UsageError } from "../usage-error.js";
import { bytesArgument } from "../zone-image.js";
import { realPath } from "./control.js";

export const ZONE_SET_STATE_MANUAL: CommandManual = {
  name: "zone set-state",
  synopsis: ["[-f FORMAT] FILE OFFSET STATE -c COMMAND [-c COMMAND]...", "--control SOCKET FILE OFFSET STATE"],
  about: [
    "Forces the zone that starts at OFFSET into STATE (read-only, offline or online) and then runs the commands of 'zcow io' on the image, to see what a program meets on a drive with a failed zone. The state is not recorded in the image: it ends with the last command.",
    "With --control, the server that serves FILE forces the state while it runs, and tells the hosts that use the disk.",
  ],
  options: [
    {
      name: "command",
      short: "c",
      long: "cmd",
      value: "COMMAND",
      about: "a command of 'zcow io'; at least one",
    },
    { name: "control", long: "control", value: "SOCKET", about: "the socket that the server was started with" },
    saying(FORMAT_OPTION, "qcow2; recognised by content when left out"),
    HELP_OPTION,
  ],
  examples: ["zone set-state disk.qcow2 64M offline -c 'read 64M 4k' -c 'zone_report 64M 1'"],
  words: ["read-only", "offline", "online"],
};

export async function zoneSetStateCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, ZONE_SET_STATE_MANUAL, context);
  if (parsed === undefined) return 0;
  const [path, offset, state, ...more] = parsed.positionals;
  if (path === undefined || offset === undefined || state === undefined || more.length > 0) {
    throw new UsageError("Expecting an image file name, the offset of a zone and a state");
  }
  const commands = allValues(parsed, "command");
  const control = lastValue(parsed, "control");
  if (control !== undefined) {
    if (commands.length > 0) throw new UsageError("--control and -c exclude each other: the server runs no commands");
    const request = {
      command: "zone-set-state",
      image: realPath(path),
      offset: bytesArgument("offset", offset),
      state,
    };
    await controlRequest(control, request);
    return 0;
  }
  if (commands.length === 0) {
    throw new UsageError("zone set-state lasts as long as the command: give it something to do with -c");
  }
  const session = new IoSession(context, ioCommands());
  const format = lastValue(parsed, "format");
  const options = format === undefined ? [] : [["driver", format] as const];
  await session.open({ ...PLAIN_CHOICE, path, options, cache: WRITE_BACK });
  const ok = await session.executeAll([`zone_set_state ${offset} ${state}`, ...commands]);
  await session.close();
  return ok ? 0 : EXIT_FAILURE;
}
