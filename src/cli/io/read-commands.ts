import { BadArguments, type IoArguments, type IoCommand } from "./command.js";
import { byteNumber, patternByte, piecesLength, transferLength } from "./numbers.js";
import { patternOption, printingOptions, requireSectors } from "./request-options.js";
import type { IoSession } from "./session.js";
import { type ReadRequest, readRequest } from "./transfers.js";

async function read(session: IoSession, { options, operands }: IoArguments): Promise<boolean> {
  const pattern = patternOption(options);
  const [skipped, checked] = [options.get("s"), options.get("l")];
  const verifyFrom = skipped === undefined ? 0 : byteNumber(skipped);
  const asked = checked === undefined ? undefined : byteNumber(checked);
  if (operands.length !== 2) throw new BadArguments();
  const offset = byteNumber(operands[0]);
  const length = transferLength(operands[1]);
  if (pattern === undefined && (skipped !== undefined || checked !== undefined)) throw new BadArguments();
  const verifyLength = asked ?? length - verifyFrom;
  if (verifyLength < 0 || verifyFrom + verifyLength > length) {
    throw new BadArguments("pattern verification range exceeds end of read data\n");
  }
  const vmState = options.has("b");
  if (vmState) requireSectors(offset, length);
  const dump = options.has("v");
  const request = { operation: "read", vmState, offset, length, dump, pattern, verifyFrom, verifyLength };
  return session.show(await readRequest(session, { ...request, ...printingOptions(options) }));
}

async function readv(session: IoSession, args: IoArguments): Promise<boolean> {
  return session.show(await readRequest(session, piecewiseRead(args)));
}

async function aioRead(session: IoSession, args: IoArguments): Promise<boolean> {
  session.addPending(readRequest(session, piecewiseRead(args)));
  return true;
}

/** The stock tool reports failures of the asynchronous read under the name "readv" too. */
function piecewiseRead({ options, operands }: IoArguments): ReadRequest {
  const pattern = patternOption(options);
  if (operands.length < 2) throw new BadArguments();
  const offset = byteNumber(operands[0]);
  const length = piecesLength(operands.slice(1));
  return {
    operation: "readv",
    offset,
    length,
    dump: options.has("v"),
    pattern,
    verifyFrom: 0,
    verifyLength: length,
    ...printingOptions(options),
  };
}

export const READ_COMMANDS: readonly IoCommand[] = [
  {
    name: "read",
    alias: "r",
    synopsis: "[-abCqv] [-P pattern [-s off] [-l len]] off len",
    summary: "reads a number of bytes at a specified offset",
    letters: "bCl:pP:qs:v",
    judges: { P: patternByte, l: byteNumber, s: byteNumber },
    minimum: 2,
    run: read,
    explanation: [
      "'read -v 512 1k' reads 1 KiB at byte 512 and shows it.",
      "-b  from the state of a virtual machine that is stored in the image",
      "-C  statistics in one line for programs",
      "-l  bytes to compare with the pattern (with -P)",
      "-p  accepted and ignored",
      "-P  compare what was read with this byte",
      "-q  no statistics",
      "-s  where to start comparing (with -P)",
      "-v  show the bytes",
    ],
  },
  {
    name: "readv",
    synopsis: "[-Cqv] [-P pattern] off len [len..]",
    summary: "reads a number of bytes at a specified offset",
    letters: "CP:qv",
    judges: { P: patternByte },
    minimum: 2,
    run: readv,
    explanation: [
      "'readv -v 512 1k 1k' reads 2 KiB at byte 512 and shows them.",
      "-C  statistics in one line for programs",
      "-P  compare what was read with this byte",
      "-q  no statistics",
      "-v  show the bytes",
    ],
  },
  {
    name: "aio_read",
    synopsis: "[-Ciqv] [-P pattern] off len [len..]",
    summary: "asynchronously reads a number of bytes",
    letters: "CiP:qv",
    judges: { P: patternByte },
    answers: { i: "injecting invalid read request\n" },
    minimum: 2,
    asynchronous: true,
    run: aioRead,
    explanation: [
      "Starts a read and does not wait for it; 'aio_flush' waits. The command counts as a success",
      "when the read has started, whatever becomes of it.",
      "-C  statistics in one line for programs",
      "-i  only count an invalid request",
      "-P  compare what was read with this byte",
      "-q  no statistics",
      "-v  show the bytes",
    ],
  },
];
