import { ZcowError } from "../../base/errors.js";
import { isPowerOfTwo } from "../../base/integers.js";
import { MiB, SECTOR_SIZE } from "../../base/units.js";
import type { Storage } from "../../storage/storage.js";
import { HeaderView } from "../header-view.js";

export const VPC_COOKIE = "conectix";
const FOOTER_BYTES = 512;
const DYNAMIC_HEADER_BYTES = 1024;
const CHECKSUM_AT = 64;
const TYPE_FIXED = 2;
const TYPE_DYNAMIC = 3;
const TYPE_DIFFERENCING = 4;
/** 65535 cylinders, 16 heads, 255 sectors: the largest disk the geometry can tell. */
const LARGEST_GEOMETRY = 65_535 * 16 * 255;
/** Stock tools stop at 2040 GiB. */
const MAX_SECTORS = 0xff00_0000;
const MAX_BLOCK = 256 * MiB;
/** Makers whose geometry says nothing about the size of the disk: Hyper-V, QEMU on request, Disk2vhd, Xen, Azure. */
const SIZE_BY_FIELD: readonly string[] = ["win ", "qem2", "d2v ", "tap\0", "CTXS", "wa\0\0"];

/** What the footer and header of a VHD (Virtual PC disk image, version 1) say that reading needs. Bytes. */
export interface VpcHeader {
  readonly size: number;
  /** The block allocation table; undefined for a fixed disk, whose data starts at file offset 0. */
  readonly blocks: VpcBlocks | undefined;
}

export interface VpcBlocks {
  readonly blockSize: number;
  /** Bytes before the data of each block: which of its sectors were written. */
  readonly bitmapBytes: number;
  /** File offset of the table: a big-endian 32-bit sector number per block. */
  readonly tableOffset: number;
}

/** Reads and checks footer and header. Fails with `FORMAT_FIELD`, `FORMAT_VARIANT`, `FORMAT_CHECKSUM` and `FORMAT_TRUNCATED`. */
export async function readVpcHeader(storage: Storage): Promise<VpcHeader> {
  const footer = await readFooter(storage);
  const type = footer.u32(60);
  const size = diskSize(footer);
  if (type === TYPE_FIXED) return { size: Math.min(size, fixedRoom(storage)), blocks: undefined };
  if (type === TYPE_DIFFERENCING) {
    throw footer.unsupported("disk type", type, "4: the disk is a difference to another one");
  }
  if (type !== TYPE_DYNAMIC) {
    throw footer.invalid("disk type", type, TYPE_DYNAMIC, `${type} is neither fixed (2) nor dynamic (3)`);
  }
  return { size, blocks: await readBlocks(storage, footer, size) };
}

/** A fixed disk cannot be longer than the file before its footer. */
function fixedRoom(storage: Storage): number {
  return Math.floor((storage.size() - FOOTER_BYTES) / SECTOR_SIZE) * SECTOR_SIZE;
}

/** A dynamic disk has a copy of the footer at the start, a fixed disk has it at the end only. */
async function readFooter(storage: Storage): Promise<HeaderView> {
  const copy = await readStructure(storage, "VPC footer copy", 0, FOOTER_BYTES);
  const footer =
    copy.text(0, 8) === VPC_COOKIE
      ? copy
      : await readStructure(storage, "VPC footer", storage.size() - FOOTER_BYTES, FOOTER_BYTES);
  if (footer.text(0, 8) !== VPC_COOKIE) {
    throw footer.invalid("cookie", footer.text(0, 8), VPC_COOKIE, "the file has no VHD footer", "invalid VPC image");
  }
  if (footer !== copy && footer.u32(60) !== TYPE_FIXED) {
    throw footer.invalid(
      "disk type",
      footer.u32(60),
      TYPE_FIXED,
      "only a fixed disk (2) has its footer at the end alone",
      "invalid VPC image",
    );
  }
  requireChecksum(storage, footer, "footer", CHECKSUM_AT, FOOTER_BYTES, "Incorrect header checksum");
  return footer;
}

async function readStructure(storage: Storage, name: string, at: number, length: number): Promise<HeaderView> {
  if (at < 0 || at + length > storage.size()) {
    throw new ZcowError(
      "FORMAT_TRUNCATED",
      `${storage.name}: the ${name} has ${length} bytes at file offset ${at}, the file has ${storage.size()}`,
      {
        data: { path: storage.name, structure: name, offset: at, length, limit: storage.size() },
        stockText: "invalid VPC image",
      },
    );
  }
  const bytes = new Uint8Array(length);
  await storage.read(at, bytes);
  return new HeaderView(storage.name, name, bytes, false);
}

/** The ones' complement of the sum of all bytes but the checksum's own. */
function requireChecksum(
  storage: Storage,
  header: HeaderView,
  name: string,
  at: number,
  length: number,
  stockText: string,
): void {
  let sum = 0;
  for (let i = 0; i < length; i++) {
    if (i < at || i >= at + 4) sum += header.view.getUint8(i);
  }
  const expected = ~sum >>> 0;
  const stored = header.u32(at);
  if (stored === expected) return;
  throw new ZcowError(
    "FORMAT_CHECKSUM",
    `${storage.name}: the VPC ${name} has checksum 0x${stored.toString(16)}, its bytes give 0x${expected.toString(16)}`,
    { data: { path: storage.name, structure: `VPC ${name}`, value: stored, limit: expected }, stockText },
  );
}

/** Some makers mean the geometry, some the size field; the maker's name tells which. */
function diskSize(footer: HeaderView): number {
  const geometry = footer.u16(56) * footer.view.getUint8(58) * footer.view.getUint8(59);
  const byField = SIZE_BY_FIELD.includes(footer.text(28, 4)) || geometry === LARGEST_GEOMETRY;
  const sectors = byField ? Math.floor(footer.u64(48, "current size") / SECTOR_SIZE) : geometry;
  if (sectors > MAX_SECTORS) {
    throw footer.invalid(
      "current size",
      sectors * SECTOR_SIZE,
      MAX_SECTORS * SECTOR_SIZE,
      `${sectors} sectors, at most ${MAX_SECTORS} are taken`,
    );
  }
  return sectors * SECTOR_SIZE;
}

async function readBlocks(storage: Storage, footer: HeaderView, size: number): Promise<VpcBlocks> {
  const headerOffset = footer.u64(16, "data offset");
  const header = await readStructure(storage, "VPC dynamic disk header", headerOffset, DYNAMIC_HEADER_BYTES);
  if (header.text(0, 8) !== "cxsparse") {
    throw header.invalid(
      "cookie",
      header.text(0, 8),
      "cxsparse",
      "the dynamic disk header is not there",
      "Invalid header magic",
    );
  }
  const blockSize = header.u32(32);
  if (!isPowerOfTwo(blockSize) || blockSize < SECTOR_SIZE || blockSize > MAX_BLOCK) {
    throw header.invalid(
      "block size",
      blockSize,
      MAX_BLOCK,
      `${blockSize} is not a power of two from ${SECTOR_SIZE} to ${MAX_BLOCK}`,
      `Invalid block size ${blockSize}`,
    );
  }
  const entries = header.u32(28);
  const needed = Math.ceil(size / blockSize);
  if (entries < needed) {
    throw header.invalid(
      "table entries",
      entries,
      needed,
      `${entries}, where a disk of ${size} bytes needs ${needed}`,
      "Page Table too small",
    );
  }
  const tableOffset = header.u64(16, "table offset");
  if (tableOffset % SECTOR_SIZE !== 0 || tableOffset + needed * 4 > storage.size()) {
    throw header.invalid(
      "table offset",
      tableOffset,
      storage.size(),
      `${needed} entries at file offset ${tableOffset} do not lie in the file on a sector boundary`,
    );
  }
  const sectorsOfBitmap = Math.ceil(blockSize / SECTOR_SIZE / 8 / SECTOR_SIZE);
  return { blockSize, tableOffset, bitmapBytes: sectorsOfBitmap * SECTOR_SIZE };
}
