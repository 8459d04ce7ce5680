/** Dataset Management (NVM command set, "Dataset Management command"): only Deallocate means anything here. */
import type { Command } from "../command.js";
import type { Namespace } from "../namespace.js";
import { STATUS } from "../status.js";
import type { IoQueue } from "./io-queue.js";

/** Bytes of a range: attributes, blocks, first block. */
const RANGE_LENGTH = 16;
/** Bytes of the most ranges that a command can name (NR is a zero-based byte). */
const LONGEST_LIST = 256 * RANGE_LENGTH;

/** AD: deallocate. */
const DEALLOCATE = 1 << 2;

interface BlockRange {
  readonly start: number;
  readonly count: number;
}

/**
 * Bytes of data to take. A host may send the list at its full length however many ranges it names, as Linux does for
 * the sake of disks that always read all of it.
 */
export function datasetLength(command: Command): number {
  const named = rangeCount(command) * RANGE_LENGTH;
  return command.sglLength > named && command.sglLength <= LONGEST_LIST ? command.sglLength : named;
}

/** A hint: zones lose data by a reset only, so there it does nothing. */
export function datasetManagement(queue: IoQueue, command: Command, namespace: Namespace): void {
  namespace.counters.otherCommands += 1;
  const ranges = parseRanges(command.data as Uint8Array, rangeCount(command));
  if (ranges.some((range) => range.start + range.count > namespace.size)) {
    queue.refuse(command, STATUS.lbaOutOfRange);
    return;
  }
  const deallocates = (command.dword11 & DEALLOCATE) !== 0;
  if (deallocates && namespace.readOnly) {
    queue.refuse(command, STATUS.namespaceWriteProtected);
    return;
  }
  if (!deallocates || namespace.zones !== undefined) {
    queue.succeed(command);
    return;
  }
  deallocate(namespace, ranges).then(
    () => queue.succeed(command),
    (error: unknown) => queue.fail(command, error, "write"),
  );
}

async function deallocate(namespace: Namespace, ranges: readonly BlockRange[]): Promise<void> {
  for (const range of ranges) {
    if (range.count === 0) continue;
    await namespace.device.discard(namespace.byteOf(range.start), range.count * namespace.blockSize);
  }
}

function rangeCount(command: Command): number {
  return (command.dword10 & 0xff) + 1;
}

function parseRanges(data: Uint8Array, count: number): BlockRange[] {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const ranges: BlockRange[] = [];
  for (let at = 0; at < count * RANGE_LENGTH; at += RANGE_LENGTH) {
    const start = view.getUint32(at + 12, true) * 0x1_0000_0000 + view.getUint32(at + 8, true);
    ranges.push({ start, count: view.getUint32(at + 4, true) });
  }
  return ranges;
}
