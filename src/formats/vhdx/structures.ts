import { ZcowError } from "../../base/errors.js";
import { KiB, MiB } from "../../base/units.js";
import { crc32c } from "../../codec/crc32c.js";
import type { Storage } from "../../storage/storage.js";
import { HeaderView } from "../header-view.js";
import {
  ITEM_FILE_PARAMETERS,
  ITEM_LOGICAL_SECTOR_SIZE,
  ITEM_PAGE_83,
  ITEM_PHYSICAL_SECTOR_SIZE,
  ITEM_VIRTUAL_DISK_SIZE,
  REGION_BAT,
  REGION_METADATA,
} from "./guid.js";

export const VHDX_SIGNATURE = "vhdxfile";
const HEADER_PLACES = [64 * KiB, 128 * KiB] as const;
const HEADER_BYTES = 4 * KiB;
const REGION_TABLE_PLACES = [192 * KiB, 256 * KiB] as const;
const REGION_TABLE_BYTES = 64 * KiB;
const METADATA_TABLE_BYTES = 64 * KiB;
const ENTRY_BYTES = 32;
const MAX_ENTRIES = 2047;
/** Stored checksums count as zero in their own sum. */
const CHECKSUM_AT = 4;
const NO_GUID = "0".repeat(32);
const REQUIRED_REGION = 1;
const REQUIRED_ITEM = 4;

/** The current header (MS-VHDX 2.2.2). */
export interface VhdxHeader {
  /** Set when the log has to be replayed. */
  readonly logGuid: string | undefined;
  readonly logOffset: number;
  readonly logLength: number;
}

/** A part of the file, in bytes. */
export interface Region {
  readonly offset: number;
  readonly length: number;
}

/** What the metadata says of the disk (MS-VHDX 2.6). Bytes. */
export interface VhdxMetadata {
  readonly size: number;
  readonly blockSize: number;
  readonly logicalSectorSize: number;
}

/** The header with the larger sequence number, of those that are whole. Fails with `FORMAT_FIELD`, `FORMAT_CHECKSUM`. */
export async function readVhdxHeader(storage: Storage): Promise<VhdxHeader> {
  const identifier = await readPart(storage, "VHDX file identifier", 0, 8);
  if (identifier.text(0, 8) !== VHDX_SIGNATURE) {
    throw identifier.invalid("signature", identifier.text(0, 8), VHDX_SIGNATURE, "the file is no VHDX");
  }
  let current: HeaderView | undefined;
  for (const place of HEADER_PLACES) {
    const header = await readPart(storage, "VHDX header", place, HEADER_BYTES);
    if (header.text(0, 4) !== "head" || !hasChecksum(header, HEADER_BYTES)) continue;
    if (current === undefined || header.view.getBigUint64(8, true) > current.view.getBigUint64(8, true))
      current = header;
  }
  if (current === undefined) throw badChecksum(storage, "VHDX headers", "No valid VHDX header found");
  const version = current.u16(66);
  if (version !== 1) throw current.unsupported("version", version, `${version}, where only 1 is known`);
  const guid = current.hex(48);
  return {
    logGuid: guid === NO_GUID ? undefined : guid,
    logLength: current.u32(68),
    logOffset: current.u64(72, "log offset"),
  };
}

/** Where the block allocation table and the metadata lie. Fails with `FORMAT_FIELD`, `FORMAT_VARIANT`, `FORMAT_CHECKSUM`. */
export async function readRegions(storage: Storage): Promise<{ readonly bat: Region; readonly metadata: Region }> {
  const table = await readRegionTable(storage);
  const found = new Map<string, Region>();
  for (const entry of entries(table, 8, 16)) {
    const guid = table.hex(entry);
    const region = { offset: table.u64(entry + 16, "file offset"), length: table.u32(entry + 24) };
    const known = guid === REGION_BAT || guid === REGION_METADATA;
    if (!known && (table.u32(entry + 28) & REQUIRED_REGION) !== 0) {
      throw table.unsupported("region", guid, `region ${guid} must be understood and is not known`);
    }
    if (!known) continue;
    if (region.offset < MiB || region.offset % MiB !== 0 || region.length === 0 || region.length % MiB !== 0) {
      throw table.invalid(
        "file offset",
        region.offset,
        MiB,
        `a region of ${region.length} bytes at ${region.offset} is not in whole MiB behind the first`,
      );
    }
    if (found.has(guid)) throw table.invalid("region", guid, 1, `region ${guid} is there twice`);
    found.set(guid, region);
  }
  const bat = found.get(REGION_BAT);
  const metadata = found.get(REGION_METADATA);
  if (bat !== undefined && metadata !== undefined) return { bat, metadata };
  throw table.invalid(
    "region",
    bat === undefined ? REGION_BAT : REGION_METADATA,
    1,
    "the block allocation table or the metadata is missing",
  );
}

async function readRegionTable(storage: Storage): Promise<HeaderView> {
  for (const place of REGION_TABLE_PLACES) {
    const table = await readPart(storage, "VHDX region table", place, REGION_TABLE_BYTES);
    if (table.text(0, 4) === "regi" && hasChecksum(table, REGION_TABLE_BYTES)) return table;
  }
  throw badChecksum(storage, "VHDX region tables", "Region table is invalid");
}

/** Positions of the entries of a table whose count stands at `countAt` and whose entries start at `first`. */
function entries(table: HeaderView, countAt: number, first: number): number[] {
  const count = table.u32(countAt);
  if (count > MAX_ENTRIES)
    throw table.invalid("entry count", count, MAX_ENTRIES, `${count} entries, at most ${MAX_ENTRIES} fit`);
  return Array.from({ length: count }, (_, index) => first + index * ENTRY_BYTES);
}

/** Reads the items that every image has. Fails with `FORMAT_FIELD`, `FORMAT_VARIANT`. */
export async function readMetadata(storage: Storage, region: Region): Promise<VhdxMetadata> {
  const table = await readPart(storage, "VHDX metadata table", region.offset, METADATA_TABLE_BYTES);
  if (table.text(0, 8) !== "metadata") {
    throw table.invalid("signature", table.text(0, 8), "metadata", "the metadata table is not there");
  }
  const items = await readItems(storage, table, region);
  const parameters = item(table, items, ITEM_FILE_PARAMETERS, "file parameters");
  if ((parameters.u32(4) & 2) !== 0) {
    throw parameters.unsupported("has parent", true, "the disk is a difference to another one");
  }
  const blockSize = parameters.u32(0);
  if (blockSize < MiB || blockSize > 256 * MiB || !Number.isInteger(Math.log2(blockSize))) {
    throw parameters.invalid(
      "block size",
      blockSize,
      256 * MiB,
      `${blockSize} is not a power of two from 1 MiB to 256 MiB`,
    );
  }
  const sector = item(table, items, ITEM_LOGICAL_SECTOR_SIZE, "logical sector size");
  const logicalSectorSize = sector.u32(0);
  if (logicalSectorSize !== 512 && logicalSectorSize !== 4096) {
    throw sector.invalid(
      "logical sector size",
      logicalSectorSize,
      4096,
      `${logicalSectorSize} is neither 512 nor 4096`,
    );
  }
  const disk = item(table, items, ITEM_VIRTUAL_DISK_SIZE, "virtual disk size");
  const size = disk.u64(0, "virtual disk size");
  if (size > MAX_DISK || size % logicalSectorSize !== 0) {
    throw disk.invalid(
      "virtual disk size",
      size,
      MAX_DISK,
      `${size} is not a multiple of ${logicalSectorSize} up to 64 TiB`,
    );
  }
  return { size, blockSize, logicalSectorSize };
}

const MAX_DISK = 64 * 1024 * 1024 * MiB;
/** Bytes of the items that are read; all known ones are shorter. */
const ITEM_BYTES = 16;
const KNOWN_ITEMS: ReadonlySet<string> = new Set([
  ITEM_FILE_PARAMETERS,
  ITEM_VIRTUAL_DISK_SIZE,
  ITEM_PAGE_83,
  ITEM_LOGICAL_SECTOR_SIZE,
  ITEM_PHYSICAL_SECTOR_SIZE,
]);

async function readItems(storage: Storage, table: HeaderView, region: Region): Promise<Map<string, HeaderView>> {
  const count = table.u16(10);
  if (count > MAX_ENTRIES)
    throw table.invalid("entry count", count, MAX_ENTRIES, `${count} entries, at most ${MAX_ENTRIES} fit`);
  const found = new Map<string, HeaderView>();
  for (let index = 0; index < count; index++) {
    const at = (index + 1) * ENTRY_BYTES;
    const guid = table.hex(at);
    const required = (table.u32(at + 24) & REQUIRED_ITEM) !== 0;
    if (!KNOWN_ITEMS.has(guid)) {
      if (required) throw table.unsupported("item", guid, `item ${guid} must be understood and is not known`);
      continue;
    }
    const offset = table.u32(at + 16);
    if (offset < METADATA_TABLE_BYTES || offset + ITEM_BYTES > region.length) {
      throw table.invalid(
        "item offset",
        offset,
        region.length,
        `item ${guid} at ${offset} is not inside the metadata region of ${region.length} bytes`,
      );
    }
    found.set(guid, await readPart(storage, "VHDX metadata", region.offset + offset, ITEM_BYTES));
  }
  return found;
}

function item(table: HeaderView, items: ReadonlyMap<string, HeaderView>, guid: string, name: string): HeaderView {
  const found = items.get(guid);
  if (found === undefined) throw table.invalid("item", guid, 1, `the item ${name} is missing`);
  return found;
}

/** Bytes past the end of the file read as zeros, and fail the checks of what they belong to. */
async function readPart(storage: Storage, name: string, at: number, length: number): Promise<HeaderView> {
  const bytes = new Uint8Array(length);
  await storage.read(at, bytes);
  return new HeaderView(storage.name, name, bytes, true);
}

function hasChecksum(header: HeaderView, length: number): boolean {
  const bytes = new Uint8Array(header.view.buffer, header.view.byteOffset, length).slice();
  bytes.fill(0, CHECKSUM_AT, CHECKSUM_AT + 4);
  return crc32c(bytes, 0, length) === header.u32(CHECKSUM_AT);
}

function badChecksum(storage: Storage, structure: string, stockText: string): ZcowError {
  return new ZcowError("FORMAT_CHECKSUM", `${storage.name}: both copies of the ${structure} are damaged`, {
    data: { path: storage.name, structure },
    stockText,
  });
}
