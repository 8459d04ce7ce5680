/**
 * The write-pointer table of an open image: its bytes as they are in the file, and the only writer of it.
 *
 * Invariants:
 *  - `#bytes` is what the file holds, except in sectors listed in `#suspect`: a write or flush of those is under way, or failed, so
 *    the file holds their old or their new bytes, and nobody knows which.
 *  - Every commit writes all suspect sectors again, whether they change or not.
 *  - Entries are changed in whole sectors of the storage; neighbours keep the values they have in the file, never
 *    newer ones whose data might not be durable.
 *  - Calls are made one after the other (the owner holds a mutex), so an older value never overwrites a newer one.
 */
import { viewOf } from "../../../base/bytes.js";
import { alignUp } from "../../../base/integers.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { hostOffset, SECTOR_SIZE, type ZoneIndex, zoneIndex } from "../../../base/units.js";
import type { Qcow2Engine } from "../engine-contract.js";
import { encodeWritePointer, writePointerTableBytes } from "../write-pointer-table.js";
import type { ZonedExtension } from "../zoned-extension.js";
import { WRITE_POINTER_BYTES } from "../zoned-layouts.js";

/** How the overlap check calls the table. */
export const POINTER_TABLE_NAME = "write-pointer table";

/** A zone and the pointer that its entry is to hold: bytes on the disk. */
export type PointerEntry = readonly [zone: ZoneIndex, pointer: number];

export class PointerTable {
  /** Told of zones whose entries may have any of two values in the file, after a commit failed. */
  onDoubt: ((first: ZoneIndex, past: number) => void) | undefined = undefined;
  readonly #engine: Qcow2Engine;
  readonly #zoned: ZonedExtension;
  /** File offset. */
  readonly #offset: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  /** Bytes written at once, at least: a divisor of the cluster size. */
  readonly #unit: number;
  /** Units, by index, whose content in the file is in doubt. */
  #suspect: ReadonlySet<number> = new Set();

  private constructor(engine: Qcow2Engine, zoned: ZonedExtension, offset: number, bytes: Uint8Array, unit: number) {
    this.#engine = engine;
    this.#zoned = zoned;
    this.#offset = offset;
    this.#bytes = bytes;
    this.#view = viewOf(bytes);
    this.#unit = unit;
    engine.protectMetadata(POINTER_TABLE_NAME, hostOffset(offset), alignUp(bytes.length, engine.geometry.clusterSize));
  }

  /** Reads the table of an image whose layout has one; its place is already checked. At most 8 MiB. */
  static async load(engine: Qcow2Engine, zoned: ZonedExtension, offset: number): Promise<PointerTable> {
    const unit = Math.min(Math.max(SECTOR_SIZE, engine.storage.capabilities.alignment), engine.geometry.clusterSize);
    const bytes = new Uint8Array(alignUp(writePointerTableBytes(zoned.zoneCount), unit));
    const wait = engine.storage.read(offset, bytes);
    if (isPromise(wait)) await wait;
    return new PointerTable(engine, zoned, offset, bytes, unit);
  }

  /** The table as it was read, or as it was last committed. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** File offset of the entry of `zone`. */
  entryOffset(zone: ZoneIndex): number {
    return this.#offset + zone * WRITE_POINTER_BYTES;
  }

  /**
   * Puts the entry of `zone`, as it is with `pointer`, into the 8 bytes of `into`. True when the file surely has it already.
   * Called for every zone that was written in a turn, so it makes no garbage.
   */
  encodeEntry(zone: ZoneIndex, pointer: number, into: Uint8Array): boolean {
    const view = this.#view;
    const at = zone * WRITE_POINTER_BYTES;
    const first = view.getUint32(at);
    const second = view.getUint32(at + 4);
    encodeWritePointer(view, zone, pointer, this.#zoned, this.#engine.geometry.size);
    const isStored = !this.inDoubt && view.getUint32(at) === first && view.getUint32(at + 4) === second;
    for (let byte = 0; byte < WRITE_POINTER_BYTES; byte++) into[byte] = this.#bytes[at + byte] as number;
    view.setUint32(at, first);
    view.setUint32(at + 4, second);
    return isStored;
  }

  /** The file may hold other values than were last reported as written. */
  get inDoubt(): boolean {
    return this.#suspect.size > 0;
  }

  /**
   * Makes the entries durable. What they refer to must be durable already. When it fails the table counts as
   * unchanged, and the sectors concerned are in doubt until a later commit succeeds.
   */
  async commit(entries: readonly PointerEntry[]): Promise<void> {
    const changed = new Set(this.#suspect);
    const undo = this.#encode(entries, changed);
    if (changed.size === 0) return;
    this.#suspect = changed;
    try {
      await this.#engine.prepareForWriting();
      await this.#write([...changed].sort((a, b) => a - b));
      await this.#engine.barrier();
      this.#suspect = new Set();
    } catch (error) {
      for (const [unit, bytes] of undo) this.#bytes.set(bytes, unit * this.#unit);
      this.#tellDoubts();
      throw error;
    }
  }

  #tellDoubts(): void {
    const entries = this.#unit / WRITE_POINTER_BYTES;
    for (const unit of this.#suspect) {
      const past = Math.min((unit + 1) * entries, this.#zoned.zoneCount);
      this.onDoubt?.(zoneIndex(unit * entries), past);
    }
  }

  /** Encodes what differs; adds the units it touches to `changed`. Returns those units as they were. */
  #encode(entries: readonly PointerEntry[], changed: Set<number>): Map<number, Uint8Array> {
    const undo = new Map<number, Uint8Array>();
    for (const [zone, pointer] of entries) {
      const at = zone * WRITE_POINTER_BYTES;
      const first = this.#view.getUint32(at);
      const second = this.#view.getUint32(at + 4);
      encodeWritePointer(this.#view, zone, pointer, this.#zoned, this.#engine.geometry.size);
      if (this.#view.getUint32(at) === first && this.#view.getUint32(at + 4) === second) continue;
      const unit = Math.floor(at / this.#unit);
      if (!undo.has(unit)) undo.set(unit, this.#unitBefore(unit, at, first, second));
      changed.add(unit);
    }
    return undo;
  }

  /** A unit in which only the entry at `at` has changed yet, with the words that this entry had. */
  #unitBefore(unit: number, at: number, first: number, second: number): Uint8Array {
    const start = unit * this.#unit;
    const bytes = this.#bytes.slice(start, start + this.#unit);
    const view = viewOf(bytes);
    view.setUint32(at - start, first);
    view.setUint32(at - start + 4, second);
    return bytes;
  }

  /** Writes units, ascending, neighbours at once. */
  async #write(units: readonly number[]): Promise<void> {
    for (let i = 0; i < units.length; ) {
      const first = units[i] ?? 0;
      let count = 1;
      while (units[i + count] === first + count) count += 1;
      const at = first * this.#unit;
      const wait = this.#engine.storage.write(this.#offset + at, this.#bytes.subarray(at, at + count * this.#unit));
      if (isPromise(wait)) await wait;
      i += count;
    }
  }
}
