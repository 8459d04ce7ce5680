/**
 * Copy (NVM command set, "Copy command"): source ranges are read into one buffer, which is then written in one piece, so
 * that a zone takes it as any other write.
 */
import type { MaybePromise } from "../../../base/maybe-promise.js";
import type { Command } from "../command.js";
import type { Namespace } from "../namespace.js";
import { STATUS } from "../status.js";
import type { IoQueue } from "./io-queue.js";
import { endWith, FORCE_UNIT_ACCESS } from "./read-write.js";

/** Bytes of a source range descriptor of format 0. */
export const COPY_RANGE_LENGTH = 32;

interface SourceRange {
  readonly start: number;
  readonly count: number;
}

/** The sources could not be read. */
interface SourceFailure {
  readonly error: unknown;
  /** Number of the range, from 0: dword 0 of the completion. */
  readonly range: number;
}

/** `submitted`: the write has been given to the device, or will not be: what waits for the destination may go on. */
export function copy(queue: IoQueue, command: Command, namespace: Namespace, submitted: () => void): void {
  namespace.counters.otherCommands += 1;
  const ranges = parseRanges(command.data as Uint8Array);
  const total = ranges.reduce((sum, range) => sum + range.count, 0);
  const status = statusOf(queue, command, namespace, ranges, total);
  if (status !== STATUS.success) {
    queue.refuse(command, status);
    submitted();
    return;
  }
  command.queue.hold(command, total * namespace.blockSize);
  void readSources(namespace, ranges, total).then((outcome) => {
    if (!queue.gone) finish(queue, command, namespace, outcome);
    submitted();
  });
}

function finish(queue: IoQueue, command: Command, namespace: Namespace, outcome: Uint8Array | SourceFailure): void {
  if (!(outcome instanceof Uint8Array)) {
    queue.fail(command, outcome.error, "read", outcome.range);
    return;
  }
  const options = command.forceUnitAccess ? FORCE_UNIT_ACCESS : undefined;
  let wait: MaybePromise<void>;
  try {
    wait = namespace.device.write(namespace.byteOf(command.startingBlock), outcome, options);
  } catch (error) {
    queue.fail(command, error, "write");
    return;
  }
  endWith(queue, command, wait);
}

/** MSSRL and MCL are both the largest transfer. */
function statusOf(
  queue: IoQueue,
  command: Command,
  namespace: Namespace,
  ranges: readonly SourceRange[],
  total: number,
): number {
  if (ranges.some((range) => range.start + range.count > namespace.size)) return STATUS.lbaOutOfRange;
  const limit = Math.min(queue.controller.context.limits.transferBytes / namespace.blockSize, 0xffff);
  if (total > limit) return STATUS.commandSizeLimitExceeded;
  return command.startingBlock + total > namespace.size ? STATUS.lbaOutOfRange : STATUS.success;
}

async function readSources(
  namespace: Namespace,
  ranges: readonly SourceRange[],
  total: number,
): Promise<Uint8Array | SourceFailure> {
  const bytes = new Uint8Array(total * namespace.blockSize);
  let at = 0;
  for (const [range, { start, count }] of ranges.entries()) {
    const length = count * namespace.blockSize;
    try {
      await namespace.device.read(namespace.byteOf(start), bytes.subarray(at, at + length));
    } catch (error) {
      return { error, range };
    }
    at += length;
  }
  return bytes;
}

function parseRanges(data: Uint8Array): SourceRange[] {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const ranges: SourceRange[] = [];
  for (let at = 0; at < data.length; at += COPY_RANGE_LENGTH) {
    const start = view.getUint32(at + 12, true) * 0x1_0000_0000 + view.getUint32(at + 8, true);
    ranges.push({ start, count: view.getUint16(at + 16, true) + 1 });
  }
  return ranges;
}
