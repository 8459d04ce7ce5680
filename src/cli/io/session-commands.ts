import { setTimeout as wait } from "node:timers/promises";
import { type IoArguments, type IoCommand, usageLine } from "./command.js";
import { byteNumber } from "./numbers.js";
import type { IoSession } from "./session.js";

async function help(session: IoSession, { operands }: IoArguments): Promise<boolean> {
  const [name] = operands;
  if (name === undefined) {
    for (const command of session.commandList()) session.print(usageLine(command));
    session.print("\nUse 'help commandname' for extended help.\n");
    return true;
  }
  const command = session.findCommand(name);
  if (command === undefined) {
    session.print(`command ${name} not found\n`);
    return false;
  }
  session.print(usageLine(command));
  if (command.explanation !== undefined)
    session.print(`\n${command.explanation.map((line) => ` ${line}\n`).join("")}\n`);
  return true;
}

async function quit(session: IoSession): Promise<boolean> {
  session.finished = true;
  return true;
}

async function sleep(_session: IoSession, { operands }: IoArguments): Promise<boolean> {
  await wait(byteNumber(operands[0]));
  return true;
}

export const SESSION_COMMANDS: readonly IoCommand[] = [
  {
    name: "help",
    alias: "?",
    synopsis: "[command]",
    summary: "help for one or all commands",
    minimum: 0,
    maximum: 1,
    withoutImage: true,
    run: help,
  },
  { name: "quit", alias: "q", summary: "exit the program", minimum: 0, withoutImage: true, run: quit },
  {
    name: "sleep",
    synopsis: "milliseconds",
    summary: "waits for the given value in milliseconds",
    minimum: 1,
    maximum: 1,
    withoutImage: true,
    asynchronous: true,
    run: sleep,
  },
];
