import { viewOf } from "../../../base/bytes.js";
import type { CheckSession } from "./check-session.js";
import { hex64 } from "./l2-references.js";
import { countRegion } from "./regions.js";

const TWO_32 = 0x1_0000_0000;

/** What an entry of the refcount table says about its block. */
export const NO_BLOCK = 0;

/**
 * The refcount table of the image, and where it may be trusted (qcow2 specification, "Host cluster management").
 */
export class RefcountTable {
  readonly #view: DataView;
  readonly #clusterSize: number;
  readonly length: number;

  constructor(bytes: Uint8Array, clusterSize: number) {
    this.#view = viewOf(bytes);
    this.#clusterSize = clusterSize;
    this.length = bytes.length / 8;
  }

  /** Offset of the block, `NO_BLOCK`, or undefined for an offset that is not a multiple of the cluster size. */
  blockOffset(index: number): number | undefined {
    if (index >= this.length) return NO_BLOCK;
    const offset = this.#view.getUint32(index * 8) * TWO_32 + ((this.#view.getUint32(index * 8 + 4) & ~0x1ff) >>> 0);
    return offset % this.#clusterSize === 0 ? offset : undefined;
  }

  hasReservedBits(index: number): boolean {
    return (this.#view.getUint32(index * 8 + 4) & 0x1ff) !== 0;
  }

  offsetText(index: number): string {
    return hex64(this.#view.getUint32(index * 8), this.#view.getUint32(index * 8 + 4) & ~0x1ff);
  }
}

/** Reads the refcount table; at most 8 MiB, the header says how long and its check bounds it. */
export async function readRefcountTable(session: CheckSession): Promise<RefcountTable> {
  const { header, geometry } = session;
  const bytes = new Uint8Array(header.refcountTableClusters * geometry.clusterSize);
  if (header.refcountTableOffset < session.fileLength) {
    await session.read(header.refcountTableOffset, bytes, "the refcount table");
  }
  return new RefcountTable(bytes, geometry.clusterSize);
}

/** Counts the refcount table itself. */
export function countRefcountTable(session: CheckSession): void {
  const { header, geometry } = session;
  countRegion(session, header.refcountTableOffset, header.refcountTableClusters * geometry.clusterSize);
}

/** Counts the refcount blocks. Must run last: a block that something else refers to as well means a rebuild. */
export function countRefcountBlocks(session: CheckSession, table: RefcountTable): void {
  const { clusterSize } = session.geometry;
  for (let index = 0; index < table.length; index++) {
    const offset = table.blockOffset(index);
    if (offset === NO_BLOCK && !table.hasReservedBits(index)) continue;
    if (table.hasReservedBits(index)) {
      broken(session, index, `ERROR refcount table entry ${index} has reserved bits set`);
    } else if (offset === undefined) {
      broken(session, index, `ERROR refcount block ${index} is not cluster aligned; refcount table entry corrupted`);
    } else if (offset >= session.comparedClusters * clusterSize) {
      // Nothing in the file is miscounted because of it, so freeing leaks does not have to wait for a rebuild.
      const before = session.needsRebuild;
      broken(session, index, `ERROR refcount block ${index} is outside image`);
      session.needsRebuild = before || session.fix === "all";
    } else {
      countBlock(session, index, offset);
    }
  }
}

function countBlock(session: CheckSession, index: number, offset: number): void {
  const { clusterSize, maxRefcount } = session.geometry;
  // Counts of one bit cannot tell that the block is not alone.
  if (session.fix === "all" && session.counts.get(offset / clusterSize) === maxRefcount) session.needsRebuild = true;
  countRegion(session, offset, clusterSize);
  const count = session.counts.get(offset / clusterSize);
  if (count !== 1) broken(session, index, `ERROR refcount block ${index} refcount=${count}`);
}

function broken(session: CheckSession, index: number, message: string): void {
  session.needsRebuild = true;
  session.report(
    { kind: "refcount-table", severity: "corruption", structure: `refcount block ${index}` },
    () => message,
  );
}
