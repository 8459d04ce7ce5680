import { ZcowError } from "../../base/errors.js";
import { isPromise } from "../../base/maybe-promise.js";
import { MiB } from "../../base/units.js";
import type { BlockDevice, BlockExtent } from "../../block/block-device.js";
import { isZonedDevice, type ZonedDevice } from "../../block/zoned-device.js";
import { alignedBuffer } from "../../host/direct-io.js";
import type { ZoneDescriptor } from "../../zoned/zone-state.js";
import { geometryDifference } from "../compare/compare-zones.js";
import { type CopyOptions, DEFAULT_SPARSE_BYTES } from "./copy-disk.js";
import { CopyPace } from "./copy-pace.js";
import type { JoinedDisk } from "./joined-disk.js";
import { dataSpans } from "./zero-scan.js";

/** Bytes that are read at once, unless a cluster is larger. */
const PIECE_BYTES = MiB;

/**
 * Copies `source`, which is made of `disks`, into the zones of `target`: every byte keeps its offset, and is written at the write
 * pointer of its zone. With `compressed`, whole clusters are stored compressed.
 *
 * From a single zoned disk that is divided in the same way the write pointers come along, and full zones are full. From any other disk
 * the pointer of a zone ends behind its last data; where that would leave more zones active than the target allows, the zone is
 * finished. Zones that hold something are reset first.
 *
 * Fails with `ZONE_BOUNDARY` when there is data past the capacity of a zone, with the `ZONE_*` codes of the target, and as `copyDisk` does.
 */
export async function copyToZones(
  source: JoinedDisk,
  disks: readonly BlockDevice[],
  target: ZonedDevice,
  options: CopyOptions & { readonly compressed?: boolean },
): Promise<void> {
  const copier = new ZoneCopier(source, target, options);
  const pointers = pointersToKeep(disks, target);
  const zones = target.report().filter(({ start }) => start < source.size);
  // A zone has to be active while it is filled: the full ones come first, when no other zone is.
  const isFull = ({ index }: ZoneDescriptor): boolean => pointers?.[index]?.state === "full";
  for (const zone of [...zones.filter(isFull), ...zones.filter((zone) => !isFull(zone))]) {
    await copier.copyZone(zone, pointers?.[zone.index]);
  }
  options.onProgress?.(source.size, source.size);
}

function pointersToKeep(disks: readonly BlockDevice[], target: ZonedDevice): readonly ZoneDescriptor[] | undefined {
  const [only, ...more] = disks;
  if (only === undefined || more.length > 0 || !isZonedDevice(only)) return undefined;
  const [from, to] = [only.limits.zoned, target.limits.zoned];
  if (from === undefined || to === undefined) return undefined;
  return geometryDifference(from, to) === undefined ? only.report() : undefined;
}

/** Fills zone after zone; within a zone every write waits for the one before. */
class ZoneCopier {
  readonly #source: JoinedDisk;
  readonly #target: ZonedDevice;
  readonly #options: CopyOptions & { readonly compressed?: boolean };
  readonly #pieceBytes: number;
  readonly #buffer: Uint8Array;
  readonly #pace: CopyPace;
  #active = 0;
  #done = 0;

  constructor(source: JoinedDisk, target: ZonedDevice, options: CopyOptions & { readonly compressed?: boolean }) {
    this.#source = source;
    this.#target = target;
    this.#options = options;
    this.#pace = new CopyPace(options.rate);
    this.#pieceBytes = Math.max(PIECE_BYTES, target.limits.optimalAlignment);
    this.#buffer = alignedBuffer(this.#pieceBytes);
  }

  /** `like`: the zone of the source whose write pointer is to be kept. */
  async copyZone(zone: ZoneDescriptor, like: ZoneDescriptor | undefined): Promise<void> {
    const isConventional = zone.type === "conventional";
    // Past the write pointer there is nothing.
    const reach = like === undefined || isConventional ? zone.start + zone.length : like.writePointer;
    const end = Math.min(reach, this.#source.size);
    if (!isConventional && zone.state !== "empty") await this.#target.resetZones(zone.start, zone.length);
    let written = zone.start;
    const zeroesUpTo = async (to: number): Promise<void> => {
      if (to > written) await this.#target.writeZeroes(written, to - written);
      written = Math.max(written, to);
    };
    const skipsZeros = isConventional && this.#options.targetIsZero;
    for await (const { offset, bytes } of this.#dataIn(zone.start, end)) {
      if (offset + bytes.length > zone.start + zone.capacity) throw pastCapacity(zone, offset + bytes.length);
      if (!skipsZeros) await zeroesUpTo(offset);
      await this.#write(offset, bytes);
      written = offset + bytes.length;
    }
    if (isConventional) {
      if (!skipsZeros) await zeroesUpTo(end);
      return;
    }
    if (like !== undefined && like.state !== "full") await zeroesUpTo(like.writePointer);
    await this.#leave(zone, like);
  }

  /** Gives the zone the state that it is to have. */
  async #leave({ start, length }: ZoneDescriptor, like: ZoneDescriptor | undefined): Promise<void> {
    const state = this.#target.report(start, 1)[0]?.state;
    if (state === "full" || (state === "empty" && like?.state !== "full")) return;
    const most = this.#target.limits.zoned?.maxActiveZones ?? 0;
    // One must be left for the zone that is filled next.
    const tooMany = like === undefined && most > 0 && this.#active >= most - 1;
    if (like?.state === "full" || tooMany) return this.#target.finishZones(start, length);
    this.#active += 1;
    await this.#target.closeZones(start, length);
  }

  /** What is not zero in [from, to), in order, in whole sectors of the target. The bytes are good until the next step. */
  async *#dataIn(from: number, to: number): AsyncGenerator<{ readonly offset: number; readonly bytes: Uint8Array }> {
    const { sparseBytes = DEFAULT_SPARSE_BYTES, onProgress } = this.#options;
    const { requestAlignment, optimalAlignment } = this.#target.limits;
    const smallest = this.#options.compressed === true ? optimalAlignment : requestAlignment;
    let next = from;
    for await (const extent of this.#runs(from, to)) {
      const end = Math.min(to, Math.ceil((extent.offset + extent.length) / smallest) * smallest);
      const start = Math.max(next, Math.floor(extent.offset / smallest) * smallest);
      if (!extent.zero || sparseBytes === 0) {
        for (let at = start; at < end; ) {
          const count = Math.min(this.#pieceBytes - (at % this.#pieceBytes), end - at);
          const early = this.#pace.spend(count);
          if (early !== undefined) await early;
          const bytes = await this.#read(at, count, requestAlignment);
          const unit = Math.max(sparseBytes, smallest);
          const spans = sparseBytes === 0 ? [{ start: 0, end: bytes.length }] : dataSpans(bytes, at, unit);
          for (const span of spans) yield { offset: at + span.start, bytes: bytes.subarray(span.start, span.end) };
          at += count;
          next = at;
        }
      }
      this.#done += extent.length;
      onProgress?.(this.#done, this.#source.size);
    }
  }

  async *#runs(from: number, to: number): AsyncGenerator<BlockExtent> {
    for await (const extent of this.#source.extents(from)) {
      if (extent.offset >= to) return;
      yield { ...extent, length: Math.min(extent.length, to - extent.offset) };
    }
  }

  /** The disk may end inside a sector of the target: what is behind its end is zeros. */
  async #read(offset: number, count: number, alignment: number): Promise<Uint8Array> {
    const bytes = this.#buffer.subarray(0, Math.ceil(count / alignment) * alignment);
    bytes.fill(0, count);
    const wait = this.#source.readWithHoles(offset, bytes.subarray(0, count), this.#options.onUnreadable);
    if (isPromise(wait)) await wait;
    return bytes;
  }

  async #write(offset: number, bytes: Uint8Array): Promise<void> {
    const cluster = this.#target.limits.optimalAlignment;
    const whole = Math.floor(bytes.length / cluster) * cluster;
    const compressed = this.#options.compressed === true && offset % cluster === 0 ? whole : 0;
    if (compressed > 0) await this.#target.writeCompressed(offset, bytes.subarray(0, compressed));
    if (compressed < bytes.length) await this.#target.write(offset + compressed, bytes.subarray(compressed));
  }
}

function pastCapacity(zone: ZoneDescriptor, end: number): ZcowError {
  return new ZcowError(
    "ZONE_BOUNDARY",
    `The source has data up to offset ${end}, but zone ${zone.index} can be written up to ${zone.start + zone.capacity} only`,
    { data: { structure: `zone ${zone.index}`, offset: end, limit: zone.start + zone.capacity } },
  );
}
