import type { IoCommand } from "./command.js";
import { IMAGE_COMMANDS } from "./image-commands.js";
import { READ_COMMANDS } from "./read-commands.js";
import { SESSION_COMMANDS } from "./session-commands.js";
import { WRITE_COMMANDS } from "./write-commands.js";
import { ZONE_COMMANDS } from "./zone-commands.js";

/** All commands of the exerciser, by name and by alias. */
export function ioCommands(): ReadonlyMap<string, IoCommand> {
  const commands = new Map<string, IoCommand>();
  for (const list of [READ_COMMANDS, WRITE_COMMANDS, ZONE_COMMANDS, IMAGE_COMMANDS, SESSION_COMMANDS]) {
    for (const command of list) {
      commands.set(command.name, command);
      if (command.alias !== undefined) commands.set(command.alias, command);
    }
  }
  return commands;
}
