/** A namespace: a run of whole blocks of a device, numbered from 0 for the host. */
import { ZcowError } from "../../base/errors.js";
import { isAligned } from "../../base/integers.js";
import type { BlockDevice, ZonedLimits } from "../../block/block-device.js";
import { isZonedDevice, type ZonedDevice } from "../../block/zoned-device.js";
import type { FaultInjector } from "./namespace-faults.js";

/** The sizes of a logical block that hosts are sure to take. */
export type BlockSize = 512 | 4096;

/** Names that must stay the same for the life of an image: hosts find their disks by them. */
export interface NamespaceIdentity {
  /** 16 bytes. */
  readonly uuid: Uint8Array;
  /** 16 bytes. */
  readonly nguid: Uint8Array;
}

export interface NamespaceOptions {
  /** From 1. */
  readonly nsid: number;
  readonly device: BlockDevice;
  readonly identity: NamespaceIdentity;
  /** Default: 4096 where all positions of the device allow it, else 512. */
  readonly blockSize?: BlockSize;
  /** Refuses all changes, whatever the device allows. */
  readonly readOnly?: boolean;
}

/** The zones of a zoned namespace, in blocks and counted from the first zone of the namespace. */
export interface NamespaceZones {
  readonly device: ZonedDevice;
  readonly zoneBlocks: number;
  readonly capacityBlocks: number;
  readonly zoneCount: number;
  /** 0 = no limit. */
  readonly maxOpen: number;
  /** 0 = no limit. */
  readonly maxActive: number;
}

/** What a namespace did since it was made. */
export interface NamespaceCounters {
  reads: number;
  writes: number;
  appends: number;
  zoneOperations: number;
  flushes: number;
  otherCommands: number;
  bytesRead: number;
  bytesWritten: number;
  /** Commands that ended with a status other than success. */
  errors: number;
}

/** The part of the device that a namespace shows. Bytes. */
interface Extent {
  readonly start: number;
  readonly length: number;
}

export class Namespace {
  readonly nsid: number;
  readonly device: BlockDevice;
  readonly identity: NamespaceIdentity;
  readonly readOnly: boolean;
  readonly blockSize: BlockSize;
  readonly blockShift: number;
  /** Blocks. */
  readonly size: number;
  /** Byte of the device that block 0 starts at. */
  readonly deviceOffset: number;
  /** Present exactly on namespaces of the Zoned Namespace command set. */
  readonly zones: NamespaceZones | undefined;
  readonly counters: NamespaceCounters = {
    reads: 0,
    writes: 0,
    appends: 0,
    zoneOperations: 0,
    flushes: 0,
    otherCommands: 0,
    bytesRead: 0,
    bytesWritten: 0,
    errors: 0,
  };
  /** Consulted before every I/O command when set. */
  faults: FaultInjector | undefined = undefined;

  /** `extent`: whole blocks of the device. `zoned`: the extent consists of whole sequential zones. */
  constructor(options: NamespaceOptions, extent: Extent, zoned: boolean) {
    const { device } = options;
    this.nsid = options.nsid;
    this.device = device;
    this.identity = options.identity;
    this.readOnly = device.readOnly || options.readOnly === true;
    this.blockSize = options.blockSize ?? naturalBlockSize(device);
    this.blockShift = this.blockSize === 4096 ? 12 : 9;
    this.deviceOffset = extent.start;
    this.size = Math.floor(extent.length / this.blockSize);
    this.zones = zoned && isZonedDevice(device) ? this.#zones(device, extent) : undefined;
    if (this.size === 0) throw unsuitable(device, `has fewer than one block of ${this.blockSize} bytes`);
  }

  /** Byte of the device at block `lba`. */
  byteOf(lba: number): number {
    return this.deviceOffset + lba * this.blockSize;
  }

  #zones(device: ZonedDevice, extent: Extent): NamespaceZones {
    const limits = device.limits.zoned as ZonedLimits;
    return {
      device,
      zoneBlocks: limits.zoneSize / this.blockSize,
      capacityBlocks: limits.zoneCapacity / this.blockSize,
      zoneCount: extent.length / limits.zoneSize,
      maxOpen: limits.maxOpenZones,
      maxActive: limits.maxActiveZones,
    };
  }
}

/** What {@link namespacesOf} needs beside the device. */
export interface NamespacesOptions {
  /** NSID of the first; a second one gets the next number. */
  readonly firstNsid: number;
  /** The identity of each part. Asked once per namespace; must give different, stable names. */
  readonly identity: (part: "whole" | "conventional" | "sequential") => NamespaceIdentity;
  readonly blockSize?: BlockSize;
  readonly readOnly?: boolean;
}

/**
 * The namespaces that show a device: one for a device without zones; for a zoned one its sequential zones, after a
 * namespace of the NVM command set for its conventional zones when it has any (ZNS knows no conventional zones).
 *
 * All zones of a zoned namespace have one size, so a shorter last zone is left out; `NOT_SUPPORTED` when something
 * was written to it, or when no whole sequential zone is left. `INVALID_ARGUMENT` when `blockSize` does not fit.
 */
export function namespacesOf(device: BlockDevice, options: NamespacesOptions): Namespace[] {
  const blockSize = options.blockSize ?? naturalBlockSize(device);
  requireBlockSize(device, blockSize);
  const common = { device, blockSize, readOnly: options.readOnly === true };
  const make = (part: "whole" | "conventional" | "sequential", nsid: number, extent: Extent): Namespace =>
    new Namespace({ ...common, nsid, identity: options.identity(part) }, extent, part === "sequential");
  const zoned = device.limits.zoned;
  if (zoned === undefined || !isZonedDevice(device)) {
    return [make("whole", options.firstNsid, { start: 0, length: device.size })];
  }
  const conventional = zoned.conventionalZones * zoned.zoneSize;
  const wholeZones = wholeSequentialZones(device, zoned);
  const sequential = { start: conventional, length: wholeZones * zoned.zoneSize };
  if (conventional === 0) return [make("sequential", options.firstNsid, sequential)];
  return [
    make("conventional", options.firstNsid, { start: 0, length: conventional }),
    make("sequential", options.firstNsid + 1, sequential),
  ];
}

function wholeSequentialZones(device: ZonedDevice, zoned: ZonedLimits): number {
  const lastIsShort = !isAligned(device.size, zoned.zoneSize);
  const count = zoned.zoneCount - zoned.conventionalZones - (lastIsShort ? 1 : 0);
  if (count < 1) throw unsuitable(device, "has no sequential zone of full size");
  if (lastIsShort) {
    const last = device.report((zoned.zoneCount - 1) * zoned.zoneSize, 1)[0];
    if (last !== undefined && last.writePointer > last.start) {
      throw unsuitable(
        device,
        `has a last zone of ${last.length} bytes with data in it, which a zoned namespace cannot show`,
      );
    }
  }
  return count;
}

/** 4096 when the size, the zones and every write pointer are multiples of it, else 512. */
export function naturalBlockSize(device: BlockDevice): BlockSize {
  return misfit(device, 4096) === undefined ? 4096 : 512;
}

function requireBlockSize(device: BlockDevice, blockSize: BlockSize): void {
  const what = misfit(device, blockSize);
  if (what === undefined) return;
  throw new ZcowError("INVALID_ARGUMENT", `${device.name} cannot be served in blocks of ${blockSize} bytes: ${what}`, {
    data: { path: device.name, field: "block size", value: blockSize },
  });
}

/** What of a device is not a multiple of `blockSize` bytes; `undefined` when all is. */
function misfit(device: BlockDevice, blockSize: BlockSize): string | undefined {
  if (!isAligned(blockSize, device.limits.requestAlignment)) {
    return `its requests must be multiples of ${device.limits.requestAlignment} bytes`;
  }
  // A tail of less than a block can be left out at 512 bytes, where no smaller block is to be had.
  if (blockSize > 512 && !isAligned(device.size, blockSize)) return `its size is ${device.size} bytes`;
  const zoned = device.limits.zoned;
  if (zoned === undefined || !isZonedDevice(device)) return undefined;
  for (const field of ["zoneSize", "zoneCapacity"] as const) {
    if (!isAligned(zoned[field], blockSize)) return `its ${field} is ${zoned[field]} bytes`;
  }
  const odd = device.report().find((zone) => !isAligned(zone.writePointer, blockSize));
  return odd === undefined ? undefined : `the write pointer of zone ${odd.index} is ${odd.writePointer}`;
}

function unsuitable(device: BlockDevice, why: string): ZcowError {
  return new ZcowError("NOT_SUPPORTED", `${device.name} cannot be a namespace: it ${why}`, {
    data: { path: device.name },
  });
}
