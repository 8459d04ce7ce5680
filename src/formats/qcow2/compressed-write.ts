import { ZcowError } from "../../base/errors.js";
import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { MiB } from "../../base/units.js";
import { acquireForEdit } from "./allocating-write.js";
import { compressGroup } from "./compressing.js";
import type { CompressedGroup } from "./compressing-threads.js";
import { compressedHigh, compressedOffsetLimit } from "./entries.js";
import { freeRun } from "./freed-runs.js";
import type { ImageState } from "./image-state.js";
import type { Reservation } from "./in-flight.js";
import type { MappingRun } from "./mapping.js";

/** Bytes of one request that are compressed together, unless a cluster is larger: much for a thread to do, little memory. */
const GROUP_BYTES = MiB;

/** Where the clusters of a compressed write go. */
export interface CompressedSinks {
  /** Takes clusters that do not shrink; `data` is their part of the request. */
  readonly plain: (offset: number, data: Uint8Array) => MaybePromise<void>;
  readonly compressed: (cluster: number, bytes: Uint8Array) => Promise<void>;
}

/**
 * Refuses compressed writes where the format has none, and of anything but whole clusters: `NOT_SUPPORTED`, `MISALIGNED`. The
 * disk may end inside its last cluster.
 */
export function assertCompressible(
  { geometry, storage, data, header, size }: ImageState,
  offset: number,
  length: number,
): void {
  const { clusterSize } = geometry;
  const obstacle = !data.inImage
    ? "keeps its data in an external file"
    : header.current.cryptMethod !== 0
      ? "is encrypted"
      : undefined;
  if (obstacle !== undefined) {
    throw new ZcowError("NOT_SUPPORTED", `${storage.name} ${obstacle}: compressed clusters have no place there`, {
      data: { path: storage.name },
    });
  }
  if (offset % clusterSize === 0 && (length % clusterSize === 0 || offset + length === size)) return;
  throw new ZcowError(
    "MISALIGNED",
    `compressed write on ${storage.name}: offset ${offset} and length ${length} are not whole clusters of ${clusterSize} bytes`,
    { data: { path: storage.name, offset, length, limit: clusterSize } },
  );
}

/**
 * Compresses a group of clusters while the one before is stored, one cluster after the other, in the order of the disk: so neighbours on
 * the disk are neighbours in the file, whatever takes how long.
 */
export async function writeCompressed(
  state: ImageState,
  offset: number,
  from: Uint8Array,
  sinks: CompressedSinks,
): Promise<void> {
  const { clusterSize } = state.geometry;
  const codec = await state.codec();
  const groupBytes = Math.max(clusterSize, GROUP_BYTES);
  const groupAt = (at: number): Promise<CompressedGroup> | undefined => {
    if (at >= from.length) return undefined;
    const group = compressGroup(codec, clustersOf(from.subarray(at, at + groupBytes), clusterSize), clusterSize);
    // A failure is told when its turn to be stored comes, which may be never.
    group.catch(() => undefined);
    return group;
  };
  let next = groupAt(0);
  try {
    for (let at = 0; next !== undefined; at += groupBytes) {
      const group = await next;
      next = groupAt(at + groupBytes);
      try {
        await storeGroup(offset + at, from.subarray(at, at + groupBytes), clusterSize, group, sinks);
      } finally {
        group.release();
      }
    }
  } finally {
    // The caller's bytes are not looked at any more once this has ended.
    await next?.then(
      (group) => group.release(),
      () => undefined,
    );
  }
}

/** Whole clusters; zeros follow the end of the disk. */
function clustersOf(bytes: Uint8Array, clusterSize: number): Uint8Array[] {
  return Array.from({ length: Math.ceil(bytes.length / clusterSize) }, (_, index) => {
    const part = bytes.subarray(index * clusterSize, (index + 1) * clusterSize);
    if (part.length === clusterSize) return part;
    const whole = new Uint8Array(clusterSize);
    whole.set(part);
    return whole;
  });
}

/**
 * Neighbours that do not shrink are one write. All begin in the order of the disk, and none waits for the one before: what goes side by
 * side into the file can be written together. Ends when all have, with the first failure.
 */
async function storeGroup(
  offset: number,
  from: Uint8Array,
  clusterSize: number,
  { clusters }: CompressedGroup,
  sinks: CompressedSinks,
): Promise<void> {
  const stores: MaybePromise<void>[] = [];
  let plainFrom = 0;
  const storePlain = (end: number): void => {
    const [start, stop] = [plainFrom * clusterSize, end * clusterSize];
    if (start < stop) stores.push(started(() => sinks.plain(offset + start, from.subarray(start, stop))));
    plainFrom = end + 1;
  };
  for (const [index, bytes] of clusters.entries()) {
    if (bytes === undefined) continue;
    storePlain(index);
    stores.push(sinks.compressed(offset / clusterSize + index, bytes));
  }
  storePlain(clusters.length);
  for (const result of await Promise.allSettled(stores)) {
    if (result.status === "rejected") throw result.reason;
  }
}

/** Its failure at once is one like those that come later. */
function started(work: () => MaybePromise<void>): MaybePromise<void> {
  try {
    return work();
  } catch (error) {
    return Promise.reject(error);
  }
}

/**
 * Stores the compressed contents of guest cluster `cluster`: reserve it, allocate bytes, write them, change the L2 entry. The same
 * steps in the same order as an allocating write; when it fails nothing refers to the new bytes and they are given back.
 */
export async function storeCompressed(
  state: ImageState,
  cluster: number,
  bytes: Uint8Array,
  replace: boolean,
): Promise<void> {
  const { reservation, old } = await reserve(state, cluster, replace);
  try {
    const host = await state.allocator.allocateBytes(bytes.length);
    try {
      await writeBytes(state, host, bytes);
      await link(state, cluster, host, bytes.length);
    } catch (error) {
      // When even that fails the bytes leak, which check repairs.
      await state.allocator.releaseBytes(host, bytes.length).catch(() => undefined);
      throw error;
    }
    freeRun(state, old, 1);
  } finally {
    state.reservations.end(reservation);
  }
}

async function reserve(
  state: ImageState,
  cluster: number,
  replace: boolean,
): Promise<{ readonly reservation: Reservation; readonly old: MappingRun }> {
  const { map, reservations, tables, geometry } = state;
  const { subclusters } = geometry;
  const first = cluster * subclusters;
  for (;;) {
    const table = await tables.writable(map.l1Index(cluster));
    const acquired = map.acquire(table, cluster);
    const slice = isPromise(acquired) ? await acquired : acquired;
    const other = reservations.find(first, subclusters);
    try {
      if (other === undefined) {
        const old = map.runAt(slice, first, 1);
        if (!replace) refuseRewrite(state, cluster, old);
        return { reservation: reservations.add(first, subclusters), old };
      }
    } finally {
      map.cache.release(slice);
    }
    await other.finished;
  }
}

/** Stock tools refuse it too: a compressed write is for images that are being filled. */
function refuseRewrite({ geometry, storage }: ImageState, cluster: number, old: MappingRun): void {
  if (old.kind === "unallocated" || old.kind === "zero") return;
  const offset = cluster * geometry.clusterSize;
  throw new ZcowError(
    "COMPRESSED_REWRITE",
    `compressed write on ${storage.name}: the cluster at guest offset ${offset} is allocated already`,
    { data: { structure: "L2 table", offset, path: storage.name } },
  );
}

async function writeBytes(state: ImageState, host: number, bytes: Uint8Array): Promise<void> {
  const limit = compressedOffsetLimit(state.geometry.clusterBits);
  if (host >= limit) {
    throw new ZcowError(
      "FILE_TOO_LARGE",
      `Compressed data at file offset ${host} cannot be referred to, the limit is ${limit}`,
      {
        data: { path: state.storage.name, value: host, limit },
      },
    );
  }
  const violation = state.owners.violation("guest data", host, bytes.length);
  if (violation !== undefined) throw violation;
  state.storage.debug?.event("write_compressed");
  const wait = state.requests.follow(state.storage.write(host, bytes));
  if (isPromise(wait)) await wait;
  state.writeBack.unflushedData = true;
}

/** The last step, and it cannot fail half-way. The copied flag is never set: several clusters may share a host cluster. */
async function link(state: ImageState, cluster: number, host: number, length: number): Promise<void> {
  const { map, geometry } = state;
  state.storage.debug?.event("l2_update_compressed");
  const slice = await acquireForEdit(state, cluster);
  map.cache.edit(slice);
  state.latePadding.drop(cluster);
  const at = map.entryAt(cluster);
  slice.view.setUint32(at, compressedHigh(host, length, geometry.clusterBits));
  slice.view.setUint32(at + 4, host % 0x1_0000_0000);
  if (geometry.l2EntrySize === 16) slice.bytes.fill(0, at + 8, at + 16);
  map.cache.release(slice);
}
