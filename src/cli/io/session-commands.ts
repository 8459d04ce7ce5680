import { setTimeout as wait } from "node:timers/promises";
import { debugEvent } from "../../storage/debug/events.js";
import { BadArguments, type IoArguments, type IoCommand, usageLine } from "./command.js";
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

/** Longest time that a timer of Node.js can wait, in milliseconds. */
const LONGEST_SLEEP = 2 ** 31 - 1;

async function sleep(_session: IoSession, { operands }: IoArguments): Promise<boolean> {
  const [text = ""] = operands;
  // Decimal, or hexadecimal behind 0x, or octal behind 0, as the C library reads numbers.
  const isOctal = /^0[0-7]+$/.test(text);
  const milliseconds = isOctal ? Number.parseInt(text, 8) : /^(\d+|0x[0-9a-f]+)$/i.test(text) ? Number(text) : -1;
  if (milliseconds < 0 || milliseconds > LONGEST_SLEEP) throw new BadArguments(`${text} is not a valid number\n`);
  await wait(milliseconds);
  return true;
}

/** Ends the program as a crash would: nothing is flushed or closed. */
async function abort(): Promise<boolean> {
  process.kill(process.pid, "SIGABRT");
  // The signal may reach another thread of the process first.
  await new Promise(() => undefined);
  return false;
}

const LARGEST_SIGNAL = 65;

async function sigraise(_session: IoSession, { operands }: IoArguments): Promise<boolean> {
  const signal = byteNumber(operands[0]);
  if (signal > LARGEST_SIGNAL) {
    throw new BadArguments(`signal argument '${operands[0]}' is too large to be a valid signal\n`);
  }
  // The system has no such signal: nothing happens, as there.
  if (signal === LARGEST_SIGNAL) return true;
  process.kill(process.pid, signal);
  await wait(0);
  return true;
}

async function breakAt(session: IoSession, { operands }: IoArguments): Promise<boolean> {
  const [name = "", tag = ""] = operands;
  const event = debugEvent(name);
  const { debug } = session.image;
  if (debug === undefined || event === undefined) {
    const reason = debug === undefined ? "Operation not supported" : "No such file or directory";
    session.print(`Could not set breakpoint: ${reason}\n`);
    return false;
  }
  debug.breakAt(event, tag);
  return true;
}

async function removeBreak(session: IoSession, { operands }: IoArguments): Promise<boolean> {
  const [tag = ""] = operands;
  const { debug } = session.image;
  const isRemoved = debug?.removeBreak(tag) === true;
  await settled();
  if (isRemoved) return true;
  const reason = debug === undefined ? "Operation not supported" : "No such file or directory";
  session.print(`Could not remove breakpoint ${tag}: ${reason}\n`);
  return false;
}

async function resume(session: IoSession, { operands }: IoArguments): Promise<boolean> {
  const [tag = ""] = operands;
  const { debug } = session.image;
  if (debug?.resume(tag) === true) {
    await settled();
    return true;
  }
  const reason = debug === undefined ? "Operation not supported" : "No such file or directory";
  session.print(`Could not resume request: ${reason}\n`);
  return false;
}

async function waitBreak(session: IoSession, { operands }: IoArguments): Promise<boolean> {
  const { debug } = session.image;
  // The stock tool waits forever; a request that nothing can stop will never be there.
  if (debug === undefined) {
    session.print("Could not wait for a request: Operation not supported\n");
    return false;
  }
  await debug.waitFor(operands[0] ?? "");
  return true;
}

/** Lets what was set going print before the next command does. */
async function settled(): Promise<void> {
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
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
    summary: "waits for the given value in milliseconds",
    minimum: 1,
    maximum: 1,
    withoutImage: true,
    asynchronous: true,
    run: sleep,
  },
  {
    name: "abort",
    summary: "simulate a program crash using abort(3)",
    minimum: 0,
    withoutImage: true,
    run: abort,
  },
  {
    name: "sigraise",
    synopsis: "signal",
    summary: "raises a signal",
    minimum: 1,
    maximum: 1,
    withoutImage: true,
    run: sigraise,
    explanation: ["'sigraise 15' sends SIGTERM to the program itself."],
  },
  {
    name: "break",
    synopsis: "event tag",
    summary: "sets a breakpoint on event and tags the stopped request as tag",
    minimum: 2,
    maximum: 2,
    run: breakAt,
    explanation: ["On disks with blkdebug; the events are those of its rules. A breakpoint stops one request."],
  },
  {
    name: "remove_break",
    synopsis: "tag",
    summary: "remove a breakpoint by tag",
    minimum: 1,
    maximum: 1,
    run: removeBreak,
  },
  {
    name: "resume",
    synopsis: "tag",
    summary: "resumes the request tagged as tag",
    minimum: 1,
    maximum: 1,
    run: resume,
  },
  {
    name: "wait_break",
    synopsis: "tag",
    summary: "waits for the suspension of a request",
    minimum: 1,
    maximum: 1,
    run: waitBreak,
  },
];
