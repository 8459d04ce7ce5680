import { readFileSync } from "node:fs";
import { BadArguments, type IoArguments, type IoCommand } from "./command.js";
import { transferReport } from "./figures.js";
import { byteNumber, patternByte, piecesLength, transferLength } from "./numbers.js";
import { patternOption, printingOptions, requireSectors } from "./request-options.js";
import type { IoSession } from "./session.js";
import { DEFAULT_PATTERN, type WriteRequest, writeRequest } from "./transfers.js";

type Options = ReadonlyMap<string, string>;

const NOT_TOGETHER = "cannot be specified at the same time\n";

async function write(session: IoSession, { options, operands }: IoArguments): Promise<boolean> {
  const pattern = patternOption(options);
  if (operands.length !== 2) throw new BadArguments();
  checkWriteOptions(options);
  const offset = byteNumber(operands[0]);
  const length = options.has("n") ? byteNumber(operands[1]) : transferLength(operands[1], " without -n");
  if (options.has("b") || options.has("c")) requireSectors(offset, length);
  const source = options.get("s");
  const fill = source === undefined ? (pattern ?? DEFAULT_PATTERN) : patternFile(session, source);
  if (fill === undefined) return false;
  const vmState = options.has("b");
  const request = { operation: "write", vmState, offset, length, pattern: fill, ...writeOptions(session, options) };
  return session.show(await writeRequest(session, request));
}

function checkWriteOptions(options: Options): void {
  const given = (letter: string): boolean => options.has(letter);
  if (given("b") && given("z")) throw new BadArguments(`-b and -z ${NOT_TOGETHER}`);
  if (given("f") && (given("b") || given("c"))) throw new BadArguments(`-f and -b or -c ${NOT_TOGETHER}`);
  if (given("n") && !given("z")) throw new BadArguments("-n requires -z to be specified\n");
  if (given("u") && !given("z")) throw new BadArguments("-u requires -z to be specified\n");
  if (["z", "P", "s"].filter(given).length > 1) {
    throw new BadArguments(`Only one of -z, -P, and -s can be specified at the same time\n`);
  }
}

async function writev(session: IoSession, args: IoArguments): Promise<boolean> {
  return session.show(await writeRequest(session, piecewiseWrite("writev", session, args)));
}

async function aioWrite(session: IoSession, args: IoArguments): Promise<boolean> {
  const { options, operands } = args;
  if (operands.length < 2) throw new BadArguments();
  if (options.has("u") && !options.has("z")) throw new BadArguments("-u requires -z to be specified\n");
  if (options.has("z") && options.has("P")) throw new BadArguments(`-z and -P ${NOT_TOGETHER}`);
  if (options.has("z") && operands.length > 2) {
    throw new BadArguments("-z supports only a single length parameter\n");
  }
  session.addPending(writeRequest(session, piecewiseWrite("aio_write", session, args)));
  return true;
}

function piecewiseWrite(operation: string, session: IoSession, { options, operands }: IoArguments): WriteRequest {
  const pattern = patternOption(options) ?? DEFAULT_PATTERN;
  if (operands.length < 2) throw new BadArguments();
  const offset = byteNumber(operands[0]);
  const length = piecesLength(operands.slice(1));
  return { operation, offset, length, pattern, ...writeOptions(session, options) };
}

function writeOptions(
  session: IoSession,
  options: Options,
): Pick<WriteRequest, "zeroes" | "compressed" | "unmap" | "fua" | "quiet" | "machine"> {
  return {
    zeroes: options.has("z"),
    compressed: options.has("c"),
    unmap: options.has("u"),
    fua: options.has("f") || session.writeThrough,
    ...printingOptions(options),
  };
}

/** Bytes of the file that fills the buffer over and over; undefined when it cannot serve, which has been said. */
function patternFile(session: IoSession, path: string): Uint8Array | undefined {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    const missing = error instanceof Error && "code" in error && error.code === "ENOENT";
    session.complain(`${path}: ${missing ? "No such file or directory" : String(error)}\n`);
    return undefined;
  }
  if (bytes.length > 0) return bytes;
  session.complain(`${path}: file is empty\n`);
  return undefined;
}

async function discard(session: IoSession, { options, operands }: IoArguments): Promise<boolean> {
  if (operands.length !== 2) throw new BadArguments();
  const offset = byteNumber(operands[0]);
  const length = transferLength(operands[1]);
  const start = performance.now();
  try {
    session.assertInside(offset, length);
    if (session.image.choice.discard) await session.device.discard(offset, length);
  } catch (error) {
    return session.show(session.failure("discard", error));
  }
  const seconds = (performance.now() - start) / 1000;
  const { quiet, machine } = printingOptions(options);
  if (!quiet) session.print(transferReport({ verb: "discard", offset, length, seconds, machine }));
  return true;
}

async function flush(session: IoSession): Promise<boolean> {
  try {
    await session.device.flush();
    return true;
  } catch (error) {
    // The stock tool says nothing, and only its exit status tells.
    return session.show({ ...session.failure("flush", error), text: "" });
  }
}

async function aioFlush(session: IoSession): Promise<boolean> {
  await session.drain();
  return true;
}

export const WRITE_COMMANDS: readonly IoCommand[] = [
  {
    name: "write",
    alias: "w",
    synopsis: "[-bcCfnquz] [-P pattern | -s source_file] off len",
    summary: "writes a number of bytes at a specified offset",
    letters: "bcCfnpP:qs:uz",
    judges: { P: patternByte },
    minimum: 2,
    writes: true,
    run: write,
    explanation: [
      "'write 512 1k' writes 1 KiB at byte 512, filled with 0xcd.",
      "-b  to the state of a virtual machine that is stored in the image",
      "-c  compress; whole clusters that hold nothing yet",
      "-C  statistics in one line for programs",
      "-f  durable before it is acknowledged",
      "-n  with -z: accepted; zeros never fall back to written data here",
      "-p  accepted and ignored",
      "-P  fill with this byte",
      "-q  no statistics",
      "-s  fill with the bytes of this file, over and over",
      "-u  with -z: give the space back",
      "-z  write zeros without a buffer",
    ],
  },
  {
    name: "writev",
    synopsis: "[-Cfq] [-P pattern] off len [len..]",
    summary: "writes a number of bytes at a specified offset",
    letters: "CfP:q",
    judges: { P: patternByte },
    minimum: 2,
    writes: true,
    run: writev,
    explanation: [
      "'writev 512 1k 1k' writes 2 KiB at byte 512, filled with 0xcd.",
      "-C  statistics in one line for programs",
      "-f  durable before it is acknowledged",
      "-P  fill with this byte",
      "-q  no statistics",
    ],
  },
  {
    name: "aio_write",
    synopsis: "[-Cfiquz] [-P pattern] off len [len..]",
    summary: "asynchronously writes a number of bytes",
    letters: "CfiP:quz",
    judges: { P: patternByte },
    answers: { i: "injecting invalid write request\n" },
    minimum: 2,
    writes: true,
    asynchronous: true,
    run: aioWrite,
    explanation: [
      "Starts a write and does not wait for it; 'aio_flush' waits. The command counts as a success",
      "when the write has started, whatever becomes of it.",
      "-C  statistics in one line for programs",
      "-f  durable before it is acknowledged",
      "-i  only count an invalid request",
      "-P  fill with this byte",
      "-q  no statistics",
      "-u  with -z: give the space back",
      "-z  write zeros without a buffer",
    ],
  },
  {
    name: "aio_flush",
    summary: "completes all outstanding aio requests",
    minimum: 0,
    maximum: 0,
    asynchronous: true,
    run: aioFlush,
  },
  { name: "flush", alias: "f", summary: "flush all in-core file state to disk", minimum: 0, maximum: 0, run: flush },
  {
    name: "discard",
    alias: "d",
    synopsis: "[-Cq] off len",
    summary: "discards a number of bytes at a specified offset",
    letters: "Cq",
    minimum: 2,
    writes: true,
    run: discard,
    explanation: [
      "'discard 512 1k' tells that 1 KiB at byte 512 is no longer needed.",
      "-C  statistics in one line for programs",
      "-q  no statistics",
    ],
  },
];
