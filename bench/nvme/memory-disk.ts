import { BaseBlockDevice } from "../../src/block/base-device.js";
import type { BlockExtent } from "../../src/block/block-device.js";
import type { ForcedZoneState, ZonedDevice } from "../../src/block/zoned-device.js";
import type { ZoneOperation } from "../../src/zoned/zone-operations.js";
import type { ZoneDescriptor } from "../../src/zoned/zone-state.js";

/** Shape of the disks that are compared. Bytes. */
export interface DiskShape {
  readonly size: number;
  readonly zoneSize: number;
  readonly conventionalZones: number;
}

/**
 * The least that a zoned disk can be: one array and a write pointer per zone, no states, no durability. What the server
 * does on it is the cost of the server.
 */
export class MemoryDisk extends BaseBlockDevice implements ZonedDevice {
  readonly #bytes: Uint8Array;
  readonly #pointers: Float64Array;
  readonly #zoneSize: number;
  readonly #conventional: number;

  constructor({ size, zoneSize, conventionalZones }: DiskShape) {
    const zoneCount = size / zoneSize;
    super({
      format: "memory",
      name: "memory",
      size,
      readOnly: false,
      limits: {
        requestAlignment: 512,
        optimalAlignment: 4096,
        zoned: {
          model: "host-managed",
          zoneSize,
          zoneCapacity: zoneSize,
          zoneCount,
          conventionalZones,
          maxOpenZones: 0,
          maxActiveZones: 0,
          maxAppendBytes: 128 * 1024,
        },
      },
    });
    // Not sparse: the first touch of a page is the operating system's cost.
    this.#bytes = new Uint8Array(size).fill(1);
    this.#zoneSize = zoneSize;
    this.#conventional = conventionalZones;
    this.#pointers = Float64Array.from({ length: zoneCount }, (_, zone) => zone * zoneSize);
  }

  report(offset = 0, count = this.#pointers.length): ZoneDescriptor[] {
    const first = Math.floor(offset / this.#zoneSize);
    return [...this.#pointers.subarray(first, first + count)].map((writePointer, at) =>
      this.#describe(first + at, writePointer),
    );
  }

  append(zoneStart: number, from: Uint8Array): number {
    const at = this.#pointers[zoneStart / this.#zoneSize] ?? 0;
    this.#put(at, from);
    return at;
  }

  async openZones(): Promise<void> {}
  async closeZones(): Promise<void> {}
  async finishZones(): Promise<void> {}
  async manageAllZones(operation: ZoneOperation): Promise<void> {
    if (operation === "reset") await this.resetZones(0, this.size);
  }
  async setZoneState(_offset: number, _state: ForcedZoneState): Promise<void> {}

  async resetZones(offset: number, length: number): Promise<void> {
    for (let at = offset; at < offset + length; at += this.#zoneSize) this.#pointers[at / this.#zoneSize] = at;
  }

  protected override doRead(offset: number, into: Uint8Array): void {
    into.set(this.#bytes.subarray(offset, offset + into.length));
  }

  protected override doWrite(offset: number, from: Uint8Array): void {
    if (offset < this.#conventional * this.#zoneSize) this.#bytes.set(from, offset);
    else this.#put(offset, from);
  }

  protected override doWriteZeroes(offset: number, length: number): void {
    this.#bytes.fill(0, offset, offset + length);
  }

  protected override doDiscard(): void {}
  protected override doFlush(): void {}

  protected override async *doExtents(offset: number, length: number): AsyncIterable<BlockExtent> {
    yield { offset, length, kind: "data", hostOffset: undefined, compressed: false, depth: 0, zero: false };
  }

  protected override async doClose(): Promise<void> {}

  #put(offset: number, from: Uint8Array): void {
    const zone = Math.floor(offset / this.#zoneSize);
    if (offset !== this.#pointers[zone]) throw new RangeError(`write at ${offset}, pointer at ${this.#pointers[zone]}`);
    if (offset + from.length > (zone + 1) * this.#zoneSize) throw new RangeError("past the end of the zone");
    this.#bytes.set(from, offset);
    this.#pointers[zone] = offset + from.length;
  }

  #describe(zone: number, writePointer: number): ZoneDescriptor {
    const start = zone * this.#zoneSize;
    const conventional = zone < this.#conventional;
    const used = writePointer - start;
    return {
      index: zone,
      start,
      length: this.#zoneSize,
      capacity: this.#zoneSize,
      writePointer,
      state: conventional ? "not-wp" : used === 0 ? "empty" : used === this.#zoneSize ? "full" : "closed",
      type: conventional ? "conventional" : "sequential-write-required",
    };
  }
}
