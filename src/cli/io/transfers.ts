import { hexDump, transferReport } from "./figures.js";
import type { IoSession, Outcome } from "./session.js";

/** What fills written buffers when nothing else is asked for. */
export const DEFAULT_PATTERN = 0xcd;

interface Printing {
  /** The name that a failure is reported under. */
  readonly operation: string;
  /** No statistics. */
  readonly quiet: boolean;
  /** Statistics in one line for programs. */
  readonly machine: boolean;
}

export interface ReadRequest extends Printing {
  /** From the state of a virtual machine, not from the disk. */
  readonly vmState?: boolean;
  /** Bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  readonly dump: boolean;
  /** Byte that must fill the verified part. */
  readonly pattern: number | undefined;
  /** Verified part: its start within the request and its length, in bytes. */
  readonly verifyFrom: number;
  readonly verifyLength: number;
}

/** Reads, verifies and describes. Never rejects. */
export async function readRequest(session: IoSession, request: ReadRequest): Promise<Outcome> {
  const { offset, length, pattern, verifyFrom, verifyLength } = request;
  const start = performance.now();
  let bytes: Uint8Array;
  try {
    if (request.vmState !== true) session.assertInside(offset, length);
    bytes = new Uint8Array(length);
    if (request.vmState === true) await session.image.readVmState(offset, bytes);
    else await session.device.read(offset, bytes);
  } catch (error) {
    return session.failure(request.operation, error);
  }
  const seconds = (performance.now() - start) / 1000;
  const verified = bytes.subarray(verifyFrom, verifyFrom + verifyLength);
  const ok = pattern === undefined || verified.every((byte) => byte === pattern);
  let text = ok ? "" : `Pattern verification failed at offset ${offset + verifyFrom}, ${verifyLength} bytes\n`;
  if (request.dump && !request.quiet) text += hexDump(bytes, offset);
  if (!request.quiet) text += transferReport({ verb: "read", offset, length, seconds, machine: request.machine });
  return { ok, text };
}

export interface WriteRequest extends Printing {
  /** To the state of a virtual machine, not to the disk. */
  readonly vmState?: boolean;
  /** Bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  readonly zeroes: boolean;
  /** Without `zeroes`: compress the data. */
  readonly compressed: boolean;
  /** With `zeroes`: space may be given back. */
  readonly unmap: boolean;
  readonly fua: boolean;
  /** Fills the buffer: one byte, or a sequence over and over. */
  readonly pattern: number | Uint8Array;
}

/** Writes and describes. Never rejects. */
export async function writeRequest(session: IoSession, request: WriteRequest): Promise<Outcome> {
  const { offset, length } = request;
  const start = performance.now();
  try {
    await makeWrite(session, request);
  } catch (error) {
    return session.failure(request.operation, error);
  }
  const seconds = (performance.now() - start) / 1000;
  if (request.quiet) return { ok: true, text: "" };
  return { ok: true, text: transferReport({ verb: "wrote", offset, length, seconds, machine: request.machine }) };
}

async function makeWrite(session: IoSession, request: WriteRequest): Promise<void> {
  const { offset, length, pattern, fua, unmap } = request;
  if (request.vmState === true) return session.image.writeVmState(offset, patternBuffer(length, pattern));
  session.assertInside(offset, length);
  if (request.zeroes) await session.device.writeZeroes(offset, length, { fua, unmap });
  else await writeData(session, request);
}

async function writeData(
  session: IoSession,
  { offset, length, pattern, compressed, fua }: WriteRequest,
): Promise<void> {
  const bytes = patternBuffer(length, pattern);
  const { zeroDetection } = session.image.choice;
  if (compressed) await session.device.writeCompressed(offset, bytes);
  else if (zeroDetection !== "off" && bytes.every((byte) => byte === 0))
    await session.device.writeZeroes(offset, length, { fua, unmap: zeroDetection === "unmap" });
  else await session.device.write(offset, bytes, { fua });
  // The stock tool's write-through covers compressed writes, although they cannot be asked to be durable by themselves.
  if (compressed && fua) await session.device.flush();
}

/** `length` bytes of `pattern`, repeated. */
export function patternBuffer(length: number, pattern: number | Uint8Array): Uint8Array {
  const bytes = new Uint8Array(length);
  if (typeof pattern === "number") return bytes.fill(pattern);
  for (let at = 0; at < length; at += pattern.length) {
    bytes.set(pattern.subarray(0, Math.min(pattern.length, length - at)), at);
  }
  return bytes;
}
