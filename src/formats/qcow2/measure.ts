import { ZcowError } from "../../base/errors.js";
import { alignDown, alignUp, ceilDiv } from "../../base/integers.js";
import type { BlockExtent } from "../../block/block-device.js";
import { volumeKeyBytes } from "../../codec/luks/luks-cipher.js";
import { luksAreaBytes } from "../../codec/luks/luks-volume.js";
import { blocksToCount } from "./create-allocation.js";
import type { CreateQcow2Options } from "./create-options.js";
import { planOptions } from "./create-validation.js";
import { planZones } from "./create-zones.js";
import { planEncryption } from "./encryption/create-encryption.js";
import type { Qcow2Geometry } from "./geometry.js";
import { MAX_L1_BYTES, TABLE_ENTRY_BYTES } from "./limits.js";
import { writePointerTableBytes } from "./write-pointer-table.js";
import { LAYOUT_FORMATS } from "./zoned-layouts.js";

/** A persistent bitmap that a copy could take along. */
export interface MeasuredBitmap {
  readonly name: string;
  /** Bytes that one bit stands for. */
  readonly granularity: number;
}

/** What is to be stored in the new image. */
export interface MeasuredSource {
  /** Bytes. */
  readonly size: number;
  /** The runs of the disk; undefined: nothing is to be stored yet. */
  readonly extents?: AsyncIterable<BlockExtent>;
  /** Undefined where there can be none. */
  readonly bitmaps?: readonly MeasuredBitmap[] | undefined;
}

/** Sizes of files in bytes. */
export interface Measurement {
  readonly required: number;
  readonly fullyAllocated: number;
  /** To be added when bitmaps are copied along; undefined where there can be none. */
  readonly bitmaps?: number | undefined;
}

/**
 * How large a qcow2 image with `options` gets when it holds what `source` holds, and when it holds data everywhere. The option
 * `size` is not looked at. Fails as creating such an image does.
 */
export async function measureQcow2(options: CreateQcow2Options, source: MeasuredSource): Promise<Measurement> {
  const shape = planOptions({ ...options, size: 0 });
  const { geometry, preallocation } = shape;
  const { clusterSize, version } = geometry;
  const size = alignUp(source.size, clusterSize);
  requireMappable(size, geometry);
  const luks = luksBytes(options, clusterSize);
  const pointers = pointerTableBytes(options, source.size, clusterSize);
  const fullyAllocated = fullBytes(size, geometry, pointers) + luks;
  // How much of the source a backing file of the copy spares is not known.
  const mayHoldAll = options.backingFile !== undefined && source.extents !== undefined;
  const isAll = preallocation === "full" || preallocation === "falloc" || mayHoldAll;
  const data = isAll ? size : await dataBytes(source.extents, clusterSize);
  const bitmaps = version === 3 && source.bitmaps !== undefined ? bitmapBytes(source, clusterSize) : undefined;
  return { required: fullyAllocated - size + data, fullyAllocated, ...(bitmaps === undefined ? {} : { bitmaps }) };
}

function requireMappable(size: number, { clusterSize, l2Entries }: Qcow2Geometry): void {
  const tables = ceilDiv(size / clusterSize, l2Entries);
  if (tables * TABLE_ENTRY_BYTES <= MAX_L1_BYTES && size <= Number.MAX_SAFE_INTEGER) return;
  throw new ZcowError(
    "INVALID_ARGUMENT",
    `A disk of ${size} bytes needs ${tables} L2 tables of ${clusterSize} bytes, and at most ${MAX_L1_BYTES / TABLE_ENTRY_BYTES} can be had`,
    {
      data: { option: "size", value: size, limit: (MAX_L1_BYTES / TABLE_ENTRY_BYTES) * clusterSize * l2Entries },
      stockText: "The image size is too large (try using a larger cluster size)",
    },
  );
}

/** Header, tables and data of an image whose clusters are all allocated. */
function fullBytes(size: number, geometry: Qcow2Geometry, pointers: number): number {
  const { clusterSize, l2EntrySize, l2Entries } = geometry;
  const l2Bytes = alignUp(size / clusterSize, l2Entries) * l2EntrySize;
  const l1Bytes = alignUp((l2Bytes / clusterSize) * TABLE_ENTRY_BYTES, clusterSize);
  const counted = clusterSize + l2Bytes + l1Bytes + pointers + size;
  const blocks = blocksToCount(counted / clusterSize, geometry, false);
  const table = ceilDiv(blocks * TABLE_ENTRY_BYTES, clusterSize);
  return counted + (blocks + table) * clusterSize;
}

function luksBytes(options: CreateQcow2Options, clusterSize: number): number {
  const plan = planEncryption(options);
  return plan?.format === "luks" ? alignUp(luksAreaBytes(volumeKeyBytes(plan.spec)), clusterSize) : 0;
}

function pointerTableBytes(options: CreateQcow2Options, size: number, clusterSize: number): number {
  const zones = planZones(options, planOptions({ ...options, size }), () => undefined);
  if (zones === undefined || LAYOUT_FORMATS[zones.layout].table === undefined) return 0;
  return alignUp(writePointerTableBytes(zones.zoneCount), clusterSize);
}

/** Clusters that the source may have data in. */
async function dataBytes(extents: AsyncIterable<BlockExtent> | undefined, clusterSize: number): Promise<number> {
  let bytes = 0;
  let counted = 0;
  for await (const { offset, length, zero } of extents ?? []) {
    if (zero) continue;
    const first = Math.max(counted, alignDown(offset, clusterSize));
    counted = Math.max(counted, alignUp(offset + length, clusterSize));
    bytes += counted - first;
  }
  return bytes;
}

const DIRECTORY_ENTRY_BYTES = 24;
const DIRECTORY_ALIGNMENT = 8;

/** As if every bit were stored. */
function bitmapBytes({ size, bitmaps = [] }: MeasuredSource, clusterSize: number): number {
  let bytes = 0;
  let directory = 0;
  for (const { name, granularity } of bitmaps) {
    const clusters = ceilDiv(ceilDiv(ceilDiv(size, granularity), 8), clusterSize);
    bytes += clusters * clusterSize + alignUp(clusters * TABLE_ENTRY_BYTES, clusterSize);
    directory += alignUp(DIRECTORY_ENTRY_BYTES + new TextEncoder().encode(name).length, DIRECTORY_ALIGNMENT);
  }
  return bytes + alignUp(directory, clusterSize);
}
