import { isPowerOfTwo } from "../../base/integers.js";
import { KiB, MiB, SECTOR_SIZE } from "../../base/units.js";
import type { Storage } from "../../storage/storage.js";
import { HeaderView } from "../header-view.js";

/** Bytes of the header, as versions 1.1 and later write it. */
export const VDI_HEADER_BYTES = 512;
const VDI_SIGNATURE_AT = 0x40;
const VDI_SIGNATURE = 0xbeda_107f;
const VERSION_1_1 = 0x0001_0001;
const TYPE_DYNAMIC = 1;
const TYPE_STATIC = 2;
/** Stock tools take 1 MiB only; VirtualBox makes other sizes on request. */
const MIN_BLOCK = 4 * KiB;
const MAX_BLOCK = 256 * MiB;
/** The limit of the stock tools: a map of just under 2 GiB, for nearly 512 TiB in blocks of 1 MiB. */
const MAX_BLOCKS = 0x1fff_ff80;

/** What a VDI header (VirtualBox disk image, version 1.1) says that reading needs. Bytes. */
export interface VdiHeader {
  readonly size: number;
  readonly blockSize: number;
  readonly blockCount: number;
  /** File offset of the block map: a 32-bit number per block. */
  readonly mapOffset: number;
  /** File offset of block 0 of the data area. */
  readonly dataOffset: number;
  /** Every block was given its place when the image was made. */
  readonly isStatic: boolean;
}

/** Reads and checks the header. Fails with `FORMAT_FIELD` and `FORMAT_VARIANT`. */
export async function readVdiHeader(storage: Storage): Promise<VdiHeader> {
  const bytes = new Uint8Array(VDI_HEADER_BYTES);
  await storage.read(0, bytes);
  const header = new HeaderView(storage.name, "VDI header", bytes, true);
  checkKind(header);
  const mapOffset = sectorAligned(header, 0x154, "block map offset", "unaligned block map offset");
  const dataOffset = sectorAligned(header, 0x158, "data offset", "unaligned data offset");
  const sectorSize = header.u32(0x168);
  if (sectorSize !== SECTOR_SIZE) {
    throw header.unsupported(
      "sector size",
      sectorSize,
      `${sectorSize} bytes, where only ${SECTOR_SIZE} are known`,
      `unsupported VDI image (sector size ${sectorSize} is not ${SECTOR_SIZE})`,
    );
  }
  const blockSize = header.u32(0x178);
  if (!isPowerOfTwo(blockSize) || blockSize < MIN_BLOCK || blockSize > MAX_BLOCK) {
    throw header.invalid(
      "block size",
      blockSize,
      MAX_BLOCK,
      `${blockSize} is not a power of two from ${MIN_BLOCK} to ${MAX_BLOCK}`,
      `unsupported VDI image (block size ${blockSize} is not ${MiB})`,
    );
  }
  return { ...extent(header, blockSize), mapOffset, dataOffset, blockSize, isStatic: header.u32(0x4c) === TYPE_STATIC };
}

function checkKind(header: HeaderView): void {
  const signature = header.u32(VDI_SIGNATURE_AT);
  if (signature !== VDI_SIGNATURE) {
    const shown = signature.toString(16).padStart(8, "0");
    throw header.invalid(
      "signature",
      signature,
      VDI_SIGNATURE,
      `0x${shown} where 0xbeda107f belongs`,
      `Image not in VDI format (bad signature ${shown})`,
    );
  }
  const version = header.u32(0x44);
  if (version !== VERSION_1_1) {
    const shown = `${version >>> 16}.${version & 0xffff}`;
    throw header.unsupported(
      "version",
      version,
      `${shown}, where only 1.1 is known`,
      `unsupported VDI image (version ${shown})`,
    );
  }
  const type = header.u32(0x4c);
  if (type !== TYPE_DYNAMIC && type !== TYPE_STATIC) {
    throw header.unsupported("image type", type, `${type}; only dynamic (1) and static (2) images stand alone`);
  }
  for (const [at, field, words] of [
    [0x1a8, "link UUID", "non-NULL link UUID"],
    [0x1b8, "parent UUID", "non-NULL parent UUID"],
  ] as const) {
    if (header.isZero(at, 16)) continue;
    throw header.unsupported(
      field,
      header.hex(at),
      "set: the image is a difference to another one",
      `unsupported VDI image (${words})`,
    );
  }
}

function sectorAligned(header: HeaderView, at: number, field: string, words: string): number {
  const value = header.u32(at);
  if (value % SECTOR_SIZE === 0 && value !== 0) return value;
  throw header.invalid(
    field,
    value,
    SECTOR_SIZE,
    `${value} is not a positive multiple of ${SECTOR_SIZE}`,
    `unsupported VDI image (${words} 0x${value.toString(16)})`,
  );
}

function extent(header: HeaderView, blockSize: number): { size: number; blockCount: number } {
  // Images with half a sector at the end have been seen; the disk then ends with the whole one.
  const size = Math.ceil(header.u64(0x170, "disk size") / SECTOR_SIZE) * SECTOR_SIZE;
  const blockCount = header.u32(0x180);
  if (blockCount > MAX_BLOCKS || size > MAX_BLOCKS * blockSize) {
    throw header.invalid(
      "block count",
      blockCount,
      MAX_BLOCKS,
      `${blockCount} blocks for ${size} bytes; at most ${MAX_BLOCKS} blocks are taken`,
      size > MAX_BLOCKS * blockSize
        ? `Unsupported VDI image size (size is 0x${size.toString(16)}, max supported is 0x${(MAX_BLOCKS * blockSize).toString(16)})`
        : `unsupported VDI image (too many blocks ${blockCount}, max is ${MAX_BLOCKS})`,
    );
  }
  if (size > blockCount * blockSize) {
    throw header.invalid(
      "disk size",
      size,
      blockCount * blockSize,
      `${size} bytes do not fit the ${blockCount} blocks of ${blockSize} bytes of the block map`,
      `unsupported VDI image (disk size ${size}, image bitmap has room for ${blockCount * blockSize})`,
    );
  }
  return { size, blockCount };
}
