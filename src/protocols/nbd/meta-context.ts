/**
 * Metadata contexts: what `BLOCK_STATUS` can tell about the ranges of an export. Contexts in other name spaces than `base`
 * are described in docs/protocols.md, or are those that qemu-nbd has.
 */
import type { BlockDevice, BlockExtent } from "../../block/block-device.js";
import { isZonedDevice, type ZonedDevice } from "../../block/zoned-device.js";
import { ALLOCATION } from "../../codec/nbd/wire.js";
import { ZONE_CONDITION, ZONE_TYPE, type ZoneDescriptor } from "../../zoned/zone-state.js";

/** A range with its status; the meaning of the number is the context's. */
export interface StatusExtent {
  /** Bytes, never 0. */
  readonly length: number;
  /** 32 bits. */
  readonly status: number;
}

export interface MetaContext {
  /** As in `base:allocation`: name space, colon, leaf. */
  readonly name: string;
  /** Covers the device's bytes [offset, offset + length) in order. Neighbours may have the same status. */
  extents(offset: number, length: number): AsyncIterable<StatusExtent> | Iterable<StatusExtent>;
}

/** `base:allocation`: what reads as zeros, and what takes no space. */
export function allocationContext(device: BlockDevice): MetaContext {
  return contextOf("base:allocation", device, ({ kind, zero }) => {
    return (kind === "data" ? 0 : ALLOCATION.hole) | (zero ? ALLOCATION.zero : 0);
  });
}

/** `qemu:allocation-depth`: 0 where no image of the chain has anything, 1 where the image itself has, 2 its backing image... */
export function depthContext(device: BlockDevice): MetaContext {
  return contextOf("qemu:allocation-depth", device, ({ kind, depth }) => (kind === "unallocated" ? 0 : depth + 1));
}

/** The status of what is marked in a bitmap. */
const DIRTY = 1;

/** `qemu:dirty-bitmap:NAME`: what is marked in a bitmap of the image. `ranges`: what is marked now, in order. */
export function bitmapContext(
  name: string,
  ranges: () => Iterable<{ readonly offset: number; readonly length: number }>,
): MetaContext {
  return {
    name: `qemu:dirty-bitmap:${name}`,
    *extents(offset, length) {
      const end = offset + length;
      let at = offset;
      for (const range of ranges()) {
        const until = Math.min(range.offset + range.length, end);
        if (range.offset >= end) break;
        if (until <= at) continue;
        if (range.offset > at) yield { length: range.offset - at, status: 0 };
        const from = Math.max(at, range.offset);
        yield { length: until - from, status: DIRTY };
        at = until;
      }
      if (at < end) yield { length: end - at, status: 0 };
    },
  };
}

function contextOf(name: string, device: BlockDevice, statusOf: (extent: BlockExtent) => number): MetaContext {
  return {
    name,
    async *extents(offset, length) {
      for await (const extent of device.extents(offset, length)) {
        yield { length: extent.length, status: statusOf(extent) };
      }
    },
  };
}

/** The status of `zcow:zones`: bits 0-3 the type, bits 4-7 the state, bit 8: written, before the write pointer. */
const ZONE_WRITTEN = 1 << 8;
/** Bit 9: past the writable end of the zone. */
const ZONE_BEYOND_CAPACITY = 1 << 9;

/** `zcow:zones`: type and state of each zone; extents end at its write pointer, its writable end and its end. */
export function zonesContext(device: ZonedDevice): MetaContext {
  return { name: "zcow:zones", extents: (offset, length) => zoneExtents(device, offset, length) };
}

function* zoneExtents(device: ZonedDevice, offset: number, length: number): Iterable<StatusExtent> {
  const end = offset + length;
  for (let at = offset; at < end; ) {
    const [zone] = device.report(at, 1);
    if (zone === undefined) return;
    const next = Math.min(end, zone.start + zone.length);
    for (const boundary of [zone.writePointer, zone.start + zone.capacity, next]) {
      const until = Math.min(boundary, next);
      if (until <= at) continue;
      yield { length: until - at, status: zoneStatus(zone, at) };
      at = until;
    }
  }
}

function zoneStatus(zone: ZoneDescriptor, at: number): number {
  const base = ZONE_TYPE[zone.type] | (ZONE_CONDITION[zone.state] << 4);
  if (at >= zone.start + zone.capacity) return base | ZONE_BEYOND_CAPACITY;
  return at < zone.writePointer ? base | ZONE_WRITTEN : base;
}

/** The contexts that every export of the device has. */
export function standardContexts(device: BlockDevice): MetaContext[] {
  const contexts = [allocationContext(device)];
  if (isZonedDevice(device)) contexts.push(zonesContext(device));
  return contexts;
}
