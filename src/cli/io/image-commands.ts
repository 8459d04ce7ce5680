import type { BlockExtent } from "../../block/block-device.js";
import { describeImage } from "../../jobs/info.js";
import { cacheMode } from "../cache-mode.js";
import { describedPassphrase } from "../common-options.js";
import { explain, printError } from "../failure.js";
import { parseImageDescription } from "../image-options.js";
import { formatSpecificText } from "../info-text.js";
import { formatChoice, type ImageChoice } from "../open.js";
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
  const { choice, device } = session;
  const facts = await describeImage(choice.path, { format: formatChoice(device.format), forceShare: true });
  session.print(`format name: ${facts.format}\n`);
  session.print(`cluster size: ${sizeFigure(facts.clusterSize ?? 0)}\n`);
  session.print(`vm state offset: ${sizeFigure(facts.vmStateOffset ?? 0)}\n`);
  session.print(formatSpecificText(facts));
  return true;
}

async function open(session: IoSession, { options, operands }: IoArguments): Promise<boolean> {
  if (operands.length > 1) throw new BadArguments();
  const cache = options.has("n") ? cacheMode("none") : cacheMode(options.get("t") ?? "writeback");
  if (cache === undefined) {
    printError(session.context, `Invalid cache option: ${options.get("t")}`);
    return false;
  }
  if (session.isOpen) {
    printError(session.context, "file open already, try 'help close'");
    return false;
  }
  const described = parseImageDescription(options.get("o"));
  const path = operands[0] ?? described.path;
  if (path === undefined) throw new BadArguments();
  return openOrComplain(session, {
    path,
    format: described.format,
    readOnly: options.has("r") || described.readOnly,
    forceShare: options.has("U") || described.forceShare,
    cache,
    passphrase: describedPassphrase(described, session.secretOf),
  });
}

async function openOrComplain(session: IoSession, choice: ImageChoice): Promise<boolean> {
  try {
    await session.open(choice);
    return true;
  } catch (error) {
    printError(session.context, explain(error, session.context));
    return false;
  }
}

async function reopen(session: IoSession, { options, operands }: IoArguments): Promise<boolean> {
  if (operands.length > 0 || (options.has("r") && options.has("w"))) throw new BadArguments();
  const { choice, device } = session;
  const cache = options.has("c") ? cacheMode(options.get("c") ?? "") : choice.cache;
  if (cache === undefined) {
    printError(session.context, `Invalid cache option: ${options.get("c")}`);
    return false;
  }
  const readOnly = options.has("r") || (choice.readOnly && !options.has("w"));
  await session.close();
  return openOrComplain(session, { ...choice, format: device.format, readOnly, cache });
}

async function close(session: IoSession): Promise<boolean> {
  await session.close();
  return true;
}

async function truncate(session: IoSession, { operands }: IoArguments): Promise<boolean> {
  byteNumber(operands[0]);
  printError(session.context, `${session.device.name} cannot be resized by this version`);
  return false;
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
    synopsis: "[-rnU] [-t cache] [-o options] [path]",
    summary: "open the file specified by path",
    letters: "rnUt:o:",
    minimum: 1,
    withoutImage: true,
    run: open,
    explanation: [
      "'open -n -o driver=raw /tmp/data' opens a raw disk for reading and writing, past the page cache.",
      "-n  short for -t none",
      "-o  options of the image: driver, read-only, force-share, file.filename",
      "-r  for reading only",
      "-t  cache mode: none, writeback, unsafe, directsync, writethrough",
      "-U  ignore the locks of other programs",
    ],
  },
  {
    name: "reopen",
    synopsis: "[(-r|-w)] [-c cache]",
    summary: "reopens an image with new options",
    letters: "rwc:",
    minimum: 0,
    run: reopen,
    explanation: ["-c  cache mode", "-r  for reading only", "-w  for reading and writing"],
  },
  { name: "close", alias: "c", summary: "close the current open file", minimum: 0, maximum: 0, run: close },
];
