import type { BlockExtent } from "../../block/block-device.js";
import { PREALLOCATIONS } from "../../formats/qcow2/create-layout.js";
import { explain, printError } from "../failure.js";
import { formatSpecificText } from "../info-text.js";
import { UsageError } from "../usage-error.js";
import { openChoice, reopenChoice } from "./choices.js";
import { BadArguments, type IoArguments, type IoCommand } from "./command.js";
import { sizeFigure } from "./figures.js";
import { byteNumber } from "./numbers.js";
import type { IoSession } from "./session.js";

const DEFAULT_ALLOC_COUNT = 512;

async function alloc(session: IoSession, { operands }: IoArguments): Promise<boolean> {
  const offset = byteNumber(operands[0]);
  const asked = operands[1] === undefined ? DEFAULT_ALLOC_COUNT : byteNumber(operands[1]);
  const { device } = session;
  const count = Math.max(0, Math.min(asked, device.size - offset));
  let allocated = 0;
  if (count > 0) {
    for await (const extent of device.extents(offset, count)) if (isAllocated(extent)) allocated += extent.length;
  }
  session.print(`${allocated}/${count} bytes allocated at offset ${sizeFigure(offset)}\n`);
  return true;
}

function isAllocated(extent: BlockExtent): boolean {
  return extent.kind !== "unallocated" && extent.depth === 0;
}

async function map(session: IoSession): Promise<boolean> {
  let run: { offset: number; length: number; allocated: boolean } | undefined;
  for await (const extent of session.device.extents(0, session.device.size)) {
    const allocated = isAllocated(extent);
    if (run?.allocated === allocated) {
      run.length += extent.length;
    } else {
      if (run !== undefined) session.print(mapLine(run.offset, run.length, run.allocated));
      run = { offset: extent.offset, length: extent.length, allocated };
    }
  }
  if (run !== undefined) session.print(mapLine(run.offset, run.length, run.allocated));
  return true;
}

function mapLine(offset: number, length: number, allocated: boolean): string {
  const words = allocated ? "    allocated" : "not allocated";
  return `${figures(length)} bytes ${words} at offset ${figures(offset)}\n`;
}

function figures(bytes: number): string {
  return `${sizeFigure(bytes)} (0x${bytes.toString(16)})`;
}

async function length(session: IoSession): Promise<boolean> {
  session.print(`${sizeFigure(session.device.size)}\n`);
  return true;
}

async function info(session: IoSession): Promise<boolean> {
  const { image } = session;
  const facts = await image.describe();
  if (image.protocol === undefined) session.print(`format name: ${facts.format}\n`);
  else session.print(`format name: ${image.protocol}\n`.repeat(2));
  // As in the stock tool: of what holds nothing there is nothing to tell.
  if (!image.holdsData) return false;
  session.print(`cluster size: ${sizeFigure(facts.clusterSize ?? 0)}\n`);
  session.print(`vm state offset: ${sizeFigure(facts.vmStateOffset ?? 0)}\n`);
  session.print(formatSpecificText(facts));
  return true;
}

async function open(session: IoSession, { options, operands }: IoArguments): Promise<boolean> {
  const aio = options.has("k") ? "native" : options.get("i");
  const list = options.get("o");
  return orComplain(session, async () => {
    const choice = openChoice({
      path: operands[0],
      format: undefined,
      lists: list === undefined ? [] : [list],
      readOnly: options.has("r"),
      forceShare: options.has("U"),
      temporary: options.has("s"),
      copyOnRead: options.has("C"),
      cache: options.has("n") ? "none" : options.get("t"),
      discard: options.get("d"),
      aio,
    });
    if (operands.length > 1 || (operands.length === 0 && list === undefined)) throw new BadArguments();
    if (session.isOpen) throw new UsageError("file open already, try 'help close'", false);
    await session.open(choice, aio);
  });
}

/** Does `work`; what it throws is printed as the program prints its own failures. */
async function orComplain(session: IoSession, work: () => Promise<void>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    if (error instanceof BadArguments) throw error;
    printError(session.context, error instanceof UsageError ? error.message : explain(error, session.context));
    return false;
  }
}

async function reopen(session: IoSession, { options, operands }: IoArguments): Promise<boolean> {
  if (operands.length > 0) throw new BadArguments();
  return orComplain(session, async () => {
    if (options.has("r") && options.has("w")) throw new UsageError("Only one -r/-w option may be given", false);
    const readOnly = options.has("r") ? true : options.has("w") ? false : undefined;
    const list = options.get("o");
    const lists = list === undefined ? [] : [list];
    const { device, choice } = session.image;
    const next = reopenChoice(choice, { readOnly, cache: options.get("c"), lists });
    const isNamed = next.options.some(([name]) => name === "driver" || name === "file.driver");
    // A format that was recognised stays: what was written since must not choose another.
    const allOptions =
      isNamed || next.path?.startsWith("json:") ? next.options : [...next.options, ["driver", device.format] as const];
    await session.close();
    await session.open({ ...next, options: allOptions });
  });
}

async function close(session: IoSession): Promise<boolean> {
  await session.close();
  return true;
}

async function truncate(session: IoSession, { options, operands }: IoArguments): Promise<boolean> {
  const text = options.get("m") ?? "off";
  const preallocation = PREALLOCATIONS.find((known) => known === text);
  if (preallocation === undefined) {
    printError(session.context, `Invalid preallocation mode '${text}'`);
    return false;
  }
  if (operands.length > 1) throw new BadArguments();
  const size = byteNumber(operands[0]);
  return orComplain(session, async () => {
    await session.drain();
    await session.image.resize(size, preallocation);
  });
}

export const IMAGE_COMMANDS: readonly IoCommand[] = [
  {
    name: "alloc",
    synopsis: "offset [count]",
    summary: "checks if offset is allocated in the file",
    minimum: 1,
    maximum: 2,
    run: alloc,
  },
  { name: "map", synopsis: "", summary: "prints the allocated areas of a file", minimum: 0, maximum: 0, run: map },
  { name: "length", alias: "l", summary: "gets the length of the current file", minimum: 0, maximum: 0, run: length },
  { name: "info", alias: "i", summary: "prints information about the current file", minimum: 0, maximum: 0, run: info },
  {
    name: "truncate",
    alias: "t",
    synopsis: "[-m prealloc_mode] off",
    summary: "truncates the current file at the given offset",
    letters: "m:",
    minimum: 1,
    maximum: 3,
    writes: true,
    run: truncate,
  },
  {
    name: "open",
    alias: "o",
    synopsis: "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
    summary: "open the file specified by path",
    letters: "snCro:ki:t:d:U",
    minimum: 1,
    withoutImage: true,
    run: open,
    explanation: [
      "'open -n -o driver=raw /tmp/data' opens a raw disk for reading and writing, past the page cache.",
      "-C  keep what is read from the backing image",
      "-d  what discards do: unmap (default) or ignore",
      "-i  accepted: threads, native (with -n), io_uring",
      "-k  short for -i native",
      "-n  short for -t none",
      "-o  driver options: driver, file.*, backing.*, read-only, force-share, cache.direct, detect-zeroes and more",
      "-r  for reading only",
      "-s  write into a temporary image that is thrown away",
      "-t  cache mode: none, writeback, unsafe, directsync, writethrough",
      "-U  ignore the locks of other programs",
    ],
  },
  {
    name: "reopen",
    synopsis: "[(-r|-w)] [-c cache] [-o options]",
    summary: "reopens an image with new options",
    letters: "c:o:rw",
    minimum: 0,
    run: reopen,
    explanation: ["-c  cache mode", "-o  driver options", "-r  for reading only", "-w  for reading and writing"],
  },
  { name: "close", alias: "c", summary: "close the current open file", minimum: 0, maximum: 0, run: close },
];
