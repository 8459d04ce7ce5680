import { isPowerOfTwo } from "../../base/integers.js";
import { KiB, MiB, SECTOR_SIZE } from "../../base/units.js";
import type { Storage } from "../../storage/storage.js";
import { HeaderView } from "../header-view.js";

/** "KDMV" as a little-endian number. */
export const SPARSE_MAGIC = 0x564d_444b;
/** "COWD": the sparse extents of ESX 2. */
export const COWD_MAGIC = 0x4457_4f43;
const HEADER_BYTES = 512;
const FLAG_ZERO_GRAIN = 1 << 2;
const FLAG_COMPRESSED = 1 << 16;
const FLAG_MARKERS = 1 << 17;
const DEFLATE = 1;
/** The grain directory is at the end, with a second header: the file was written as a stream. */
const DIRECTORY_AT_END = 0xffff_ffff;
const MAX_GRAIN = 2 * MiB;
const MAX_TABLE_ENTRIES = 512;
/** Entries of the grain directory; a disk of 64 TiB with grains of 64 KiB has 2 million. */
const MAX_DIRECTORY = 32 * 1024 * 1024;
const MAX_DESCRIPTOR = MiB;

/** The header of a hosted sparse extent (VMware virtual disk format 5.0, version 1 to 3). Sizes and offsets in bytes. */
export interface SparseHeader {
  readonly capacity: number;
  readonly grainSize: number;
  readonly tableEntries: number;
  readonly directoryOffset: number;
  readonly compressed: boolean;
  /** Each compressed grain is preceded by its place and length. */
  readonly markers: boolean;
  /** Table entry 1 stands for a grain of zeros. */
  readonly zeroGrains: boolean;
  /** Where the descriptor lies in the file; length 0 when there is none. */
  readonly descriptor: { readonly offset: number; readonly length: number };
}

/** Reads and checks the header. Fails with `FORMAT_FIELD` and `FORMAT_VARIANT`. */
export async function readSparseHeader(storage: Storage): Promise<SparseHeader> {
  const first = await readHeaderAt(storage, 0);
  const directoryAtEnd = first.u32(56) === DIRECTORY_AT_END && first.u32(60) === DIRECTORY_AT_END;
  // The last three sectors: footer marker, header, end-of-stream marker.
  const header = directoryAtEnd ? await readHeaderAt(storage, storage.size() - 2 * SECTOR_SIZE) : first;
  return { ...layout(header), descriptor: descriptorPlace(first) };
}

async function readHeaderAt(storage: Storage, at: number): Promise<HeaderView> {
  const bytes = new Uint8Array(HEADER_BYTES);
  if (at >= 0) await storage.read(at, bytes);
  const header = new HeaderView(storage.name, at === 0 ? "VMDK sparse header" : "VMDK sparse footer", bytes, true);
  if (header.u32(0) !== SPARSE_MAGIC) {
    throw header.invalid(
      "magic",
      header.u32(0),
      SPARSE_MAGIC,
      "the extent does not start with KDMV",
      "Image not in VMDK format",
    );
  }
  const version = header.u32(4);
  if (version < 1 || version > 3) {
    throw header.unsupported(
      "version",
      version,
      `${version}, where 1 to 3 are known`,
      `Unsupported VMDK version ${version}`,
    );
  }
  return header;
}

function layout(header: HeaderView): Omit<SparseHeader, "descriptor"> {
  const flags = header.u32(8);
  const compressed = (flags & FLAG_COMPRESSED) !== 0;
  const algorithm = header.u16(77);
  if (compressed && algorithm !== DEFLATE) {
    throw header.unsupported("compression algorithm", algorithm, `${algorithm}, where only deflate (1) is known`);
  }
  const grainSectors = header.u64(20, "grain size");
  const grainSize = grainSectors * SECTOR_SIZE;
  if (!isPowerOfTwo(grainSectors) || grainSize < 4 * KiB || grainSize > MAX_GRAIN) {
    throw header.invalid(
      "grain size",
      grainSectors,
      MAX_GRAIN / SECTOR_SIZE,
      `${grainSectors} sectors are not a power of two from 8 to ${MAX_GRAIN / SECTOR_SIZE}`,
      "Invalid granularity, image may be corrupt",
    );
  }
  const tableEntries = header.u32(44);
  if (tableEntries === 0 || tableEntries > MAX_TABLE_ENTRIES) {
    throw header.invalid(
      "entries of a grain table",
      tableEntries,
      MAX_TABLE_ENTRIES,
      `${tableEntries} is not from 1 to ${MAX_TABLE_ENTRIES}`,
      tableEntries === 0 ? "L1 entry size is invalid" : "L2 table size too big",
    );
  }
  const capacity = header.u64(12, "capacity") * SECTOR_SIZE;
  if (!Number.isSafeInteger(capacity) || capacity / (grainSize * tableEntries) > MAX_DIRECTORY) {
    throw header.invalid(
      "capacity",
      capacity,
      MAX_DIRECTORY,
      `${capacity} bytes need a grain directory of more than ${MAX_DIRECTORY} entries`,
      "L1 size too big",
    );
  }
  const directoryOffset = header.u64(56, "grain directory offset") * SECTOR_SIZE;
  if (!Number.isSafeInteger(directoryOffset)) {
    throw header.invalid("grain directory offset", directoryOffset, Number.MAX_SAFE_INTEGER, "no file is that long");
  }
  return {
    capacity,
    grainSize,
    tableEntries,
    directoryOffset,
    compressed,
    markers: (flags & FLAG_MARKERS) !== 0,
    zeroGrains: (flags & FLAG_ZERO_GRAIN) !== 0,
  };
}

function descriptorPlace(header: HeaderView): SparseHeader["descriptor"] {
  const offset = header.u64(28, "descriptor offset") * SECTOR_SIZE;
  const length = header.u64(36, "descriptor size") * SECTOR_SIZE;
  if (offset === 0) return { offset: 0, length: 0 };
  if (length > MAX_DESCRIPTOR || !Number.isSafeInteger(offset)) {
    throw header.invalid(
      "descriptor size",
      length,
      MAX_DESCRIPTOR,
      `${length} bytes, at most ${MAX_DESCRIPTOR} are taken`,
    );
  }
  return { offset, length };
}
