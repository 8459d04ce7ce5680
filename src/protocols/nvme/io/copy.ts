/**
 * Copy (NVM command set, "Copy command"): source ranges are read into one buffer, which is then written in one piece, so
 * that a zone takes it as any other write. The destination keeps its turn in the zone's line while the sources are read.
 */
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

/** What was gathered for a command: bytes to write, or why there are none. */
type Gathered =
  | { readonly bytes: Uint8Array }
  | { readonly status: number; readonly range: number }
  | { readonly error: unknown; readonly range: number };

export class Copies {
  readonly #queue: IoQueue;
  readonly #gathered: (command: Command) => void;
  readonly #outcomes = new Map<Command, Gathered>();

  /** `gathered`: the sources of a command have been read, or could not be: `write` is to follow in its turn. */
  constructor(queue: IoQueue, gathered: (command: Command) => void) {
    this.#queue = queue;
    this.#gathered = gathered;
  }

  /** Reads the sources of a command whose descriptors have come. */
  gather(command: Command): void {
    const namespace = command.namespace as Namespace;
    namespace.counters.otherCommands += 1;
    const ranges = parseRanges(command.data as Uint8Array);
    const status = this.#statusOf(command, namespace, ranges);
    if (status !== STATUS.success) {
      this.#end(command, { status, range: 0 });
      return;
    }
    void this.#read(namespace, ranges).then((outcome) => this.#end(command, outcome));
  }

  /** Writes what was gathered. */
  write(command: Command, namespace: Namespace): void {
    const outcome = this.#outcomes.get(command);
    this.#outcomes.delete(command);
    if (outcome === undefined) return;
    if ("status" in outcome) {
      this.#queue.refuse(command, outcome.status, outcome.range);
    } else if ("error" in outcome) {
      this.#queue.fail(command, outcome.error, "read", outcome.range);
    } else {
      const options = command.forceUnitAccess ? FORCE_UNIT_ACCESS : undefined;
      try {
        const wait = namespace.device.write(namespace.byteOf(command.startingBlock), outcome.bytes, options);
        endWith(this.#queue, command, wait);
      } catch (error) {
        this.#queue.fail(command, error, "write");
      }
    }
  }

  #end(command: Command, outcome: Gathered): void {
    this.#outcomes.set(command, outcome);
    this.#gathered(command);
  }

  /** MSSRL and MCL are both the largest transfer. */
  #statusOf(command: Command, namespace: Namespace, ranges: readonly SourceRange[]): number {
    let total = 0;
    for (const range of ranges) {
      total += range.count;
      if (range.start + range.count > namespace.size) return STATUS.lbaOutOfRange;
    }
    const limit = Math.min(this.#queue.controller.context.limits.transferBytes / namespace.blockSize, 0xffff);
    if (total > limit) return STATUS.commandSizeLimitExceeded;
    return command.startingBlock + total > namespace.size ? STATUS.lbaOutOfRange : STATUS.success;
  }

  async #read(namespace: Namespace, ranges: readonly SourceRange[]): Promise<Gathered> {
    const total = ranges.reduce((sum, range) => sum + range.count, 0);
    const bytes = new Uint8Array(total * namespace.blockSize);
    let at = 0;
    for (const [index, range] of ranges.entries()) {
      const length = range.count * namespace.blockSize;
      try {
        await namespace.device.read(namespace.byteOf(range.start), bytes.subarray(at, at + length));
      } catch (error) {
        return { error, range: index };
      }
      at += length;
    }
    return { bytes };
  }
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
