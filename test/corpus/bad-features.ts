import type { ErrorCode } from "../../src/base/error-codes.js";

/** Images of the good corpus with one fault each, named by the error that it must give. */
export interface BadFeature {
  readonly code: ErrorCode;
  /** Name of the good image. */
  readonly image: string;
  readonly what: string;
  /** What somebody does who meets the fault; default: opens the disk for reading. */
  readonly when?: "read" | "snapshot" | "bitmap";
  /** Changes the main file; a file that is returned takes its place. */
  readonly spoil: (file: BadFile) => Uint8Array | void;
}

/** A file to be spoiled. Numbers are big-endian, unless `little`. */
export class BadFile {
  readonly bytes: Uint8Array;
  readonly view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  u64(at: number): number {
    return Number(this.view.getBigUint64(at));
  }

  put64(at: number, value: number | bigint): void {
    this.view.setBigUint64(at, BigInt(value));
  }

  putText(at: number, text: string): void {
    this.bytes.set(new TextEncoder().encode(text), at);
  }

  /** Where the data of a qcow2 header extension begins. */
  extension(type: number): number {
    for (let at = this.view.getUint32(100); ; at += 8 + Math.ceil(this.view.getUint32(at + 4) / 8) * 8) {
      if (this.view.getUint32(at) === type) return at + 8;
      if (this.view.getUint32(at) === 0) throw new Error(`the image has no extension 0x${type.toString(16)}`);
    }
  }

  /** File offset of the first L2 table, and of the first entry in it that is not empty. */
  firstEntry(entryBytes = 8): number {
    for (let at = this.u64(40); ; at += 8) {
      const table = Number(this.view.getBigUint64(at) & 0x00ff_ffff_ffff_fe00n);
      if (table === 0) continue;
      for (let entry = table; ; entry += entryBytes) if (this.view.getBigUint64(entry) !== 0n) return entry;
    }
  }

  get firstBitmap(): number {
    return this.u64(this.extension(BITMAPS) + 16);
  }

  get luks(): number {
    return this.u64(this.extension(CRYPTO));
  }
}

const BACKING_FORMAT = 0xe279_2aca;
const BITMAPS = 0x2385_2875;
const CRYPTO = 0x0537_be77;
const DATA_FILE = 0x4441_5441;
const KIB = 1024;

const backingName =
  (name: string): BadFeature["spoil"] =>
  (file) => {
    file.putText(file.u64(8), name);
    file.view.setUint32(16, name.length);
  };

/** Replaces text in a VMDK descriptor. */
const descriptor =
  (from: string | RegExp, to: string): BadFeature["spoil"] =>
  (file) =>
    new Uint8Array(Buffer.from(Buffer.from(file.bytes).toString("latin1").replace(from, to), "latin1"));

/** File offset of the block allocation table of a VHDX, which one of the two entries of the region table names. */
const vhdxTable = (file: BadFile): number => {
  const first = 192 * KIB + 16;
  const isFirst = file.view.getUint32(first, true) === 0x2dc2_7766;
  return Number(file.view.getBigUint64((isFirst ? first : first + 32) + 16, true));
};

const compressedDataAt = (file: BadFile): number => {
  const entry = file.view.getBigUint64(file.firstEntry());
  const offsetBits = 62n - BigInt(file.view.getUint32(20) - 8);
  return Number(entry & ((1n << offsetBits) - 1n));
};

export const BAD_FEATURES: readonly BadFeature[] = [
  { image: "backing-chain", code: "BACKING_LOOP", what: "an image that is its own backing file", spoil: backingName("overlay.qcow2") },
  { image: "backing-chain", code: "NOT_FOUND", what: "a backing file that is not there", spoil: backingName("missing.qcow2") },
  { image: "backing-chain", code: "PROTOCOL_UNKNOWN", what: "a backing file of an unknown protocol", spoil: backingName("gopher://a/b.qcow2") },
  { image: "backing-chain", code: "QCOW2_BACKING_NAME", what: "a name of 1024 bytes", spoil: (file) => file.view.setUint32(16, 1024) },
  { image: "backing-chain", code: "QCOW2_BACKING_OFFSET", what: "a name behind the first cluster", spoil: (file) => file.put64(8, 1 << 20) },
  { image: "backing-chain", code: "FORMAT_UNKNOWN", what: "a format that nobody knows", spoil: (file) => file.putText(file.extension(BACKING_FORMAT), "qcow9") },
  { image: "backing-chain", code: "NOT_A_DISK", what: "a folder as backing file", spoil: backingName(".") },
  { image: "backing-json", code: "FILE_REFERENCE", what: "a description that is no JSON", spoil: backingName('json:{"driver"') },
  { image: "backing-json", code: "FILE_REFERENCE", what: "a description with an unknown option", spoil: backingName('json:{"file":{"driver":"file","filename":"base.raw","offset":"1"}}') },
  {
    image: "data-file",
    code: "NOT_FOUND",
    what: "a data file that is not there",
    spoil: (file) => file.putText(file.extension(DATA_FILE), "nowhere.raw"),
  },
  { image: "data-file", code: "QCOW2_DATA_FILE_MISSING", what: "no name of the data file", spoil: (file) => file.view.setUint32(file.extension(DATA_FILE) - 8, 0x1234_5678) },
  { image: "compressed-zlib", code: "COMPRESSED_DATA", what: "data that is no deflate stream", when: "read", spoil: (file) => void file.bytes.fill(0xff, compressedDataAt(file), compressedDataAt(file) + 64) },
  { image: "compressed-zstd", code: "COMPRESSED_DATA", what: "data that is no zstd frame", when: "read", spoil: (file) => void file.bytes.fill(0, compressedDataAt(file), compressedDataAt(file) + 64) },
  { image: "compressed-zstd", code: "QCOW2_COMPRESSION_BIT", what: "the bit with type zlib", spoil: (file) => file.view.setUint8(104, 0) },
  { image: "compressed-zstd", code: "QCOW2_COMPRESSION_TYPE", what: "type 7", spoil: (file) => file.view.setUint8(104, 7) },
  { image: "extended-l2", code: "IMAGE_CORRUPT", what: "a subcluster that is stored and zero at once", when: "read", spoil: (file) => file.put64(file.firstEntry(16) + 8, 2n ** 64n - 1n) },
  { image: "extended-l2", code: "IMAGE_CORRUPT", what: "subclusters stored nowhere", when: "read", spoil: (file) => file.put64(file.firstEntry(16), 0) },
  { image: "snapshots", code: "QCOW2_SNAPSHOT_TABLE", what: "1025 bytes of extra data", when: "snapshot", spoil: (file) => file.view.setUint32(file.u64(64) + 36, 1025) },
  { image: "snapshots", code: "QCOW2_SNAPSHOT_L1", what: "an L1 table between clusters", when: "snapshot", spoil: (file) => file.put64(file.u64(64), 0x1200) },
  { image: "snapshots", code: "QCOW2_SNAPSHOT_L1", what: "an L1 table of 2^32-1 entries", when: "snapshot", spoil: (file) => file.view.setUint32(file.u64(64) + 8, 0xffff_ffff) },
  { image: "snapshots", code: "QCOW2_SNAPSHOT_L1", what: "a disk larger than its L1 table", when: "snapshot", spoil: (file) => file.put64(file.u64(64) + 48, 2 ** 50) },
  { image: "snapshots", code: "SNAPSHOT_NOT_FOUND", what: "another id", when: "snapshot", spoil: (file) => file.view.setUint8(file.u64(64) + 40 + file.view.getUint32(file.u64(64) + 36), 0x39) },
  { image: "snapshots", code: "QCOW2_SNAPSHOTS_TOO_LARGE", what: "65537 of them", spoil: (file) => file.view.setUint32(60, 65_537) },
  { image: "bitmaps", code: "QCOW2_BITMAPS", what: "type 2", when: "bitmap", spoil: (file) => file.view.setUint8(file.firstBitmap + 16, 2) },
  { image: "bitmaps", code: "QCOW2_BITMAPS", what: "granularity 2^8", when: "bitmap", spoil: (file) => file.view.setUint8(file.firstBitmap + 17, 8) },
  { image: "bitmaps", code: "QCOW2_BITMAPS", what: "a name that ends past the directory", when: "bitmap", spoil: (file) => file.view.setUint16(file.firstBitmap + 18, 1023) },
  { image: "bitmaps", code: "QCOW2_BITMAPS", what: "a table between clusters", when: "bitmap", spoil: (file) => file.put64(file.firstBitmap, 0x1001) },
  { image: "bitmaps", code: "QCOW2_BITMAPS", what: "reserved flags", when: "bitmap", spoil: (file) => file.view.setUint32(file.firstBitmap + 12, 0x80) },
  { image: "bitmaps", code: "QCOW2_BITMAPS", what: "a directory past the end of the file", when: "bitmap", spoil: (file) => file.put64(file.extension(BITMAPS) + 16, 2 ** 40) },
  { image: "bitmaps", code: "BITMAP_INCONSISTENT", what: "in use", when: "bitmap", spoil: (file) => file.view.setUint32(file.firstBitmap + 12, 1) },
  { image: "luks", code: "LUKS_HEADER", what: "no mark", spoil: (file) => file.view.setUint32(file.luks, 0) },
  { image: "luks", code: "LUKS_HEADER", what: "a key slot in the payload", spoil: (file) => file.view.setUint32(file.luks + 208 + 40, 0x0fff_ffff) },
  { image: "luks", code: "LUKS_LIMIT", what: "an hour of work", spoil: (file) => file.view.setUint32(file.luks + 208 + 4, 0xffff_ffff) },
  { image: "luks", code: "LUKS_CIPHER", what: "a cipher that nobody knows", spoil: (file) => file.putText(file.luks + 8, "rot13\0") },
  { image: "luks", code: "PASSPHRASE_WRONG", what: "a damaged stripe", spoil: (file) => void (file.bytes[file.luks + 4096 + 31] = 1 ^ (file.bytes[file.luks + 4096 + 31] ?? 0)) },
  { image: "luks", code: "QCOW2_TRUNCATED", what: "a header past the end of the file", spoil: (file) => file.put64(file.extension(CRYPTO), 2 ** 40) },
  { image: "aes", code: "QCOW2_CRYPT_METHOD", what: "method 3", spoil: (file) => file.view.setUint32(32, 3) },
  { image: "aes", code: "QCOW2_CRYPT_HEADER", what: "method LUKS without a header", spoil: (file) => file.view.setUint32(32, 2) },
  { image: "vmdk-sparse", code: "FORMAT_VARIANT", what: "version 9", spoil: (file) => file.view.setUint32(4, 9, true) },
  { image: "vmdk-sparse", code: "FORMAT_FIELD", what: "grains of three sectors", spoil: (file) => file.view.setUint32(20, 3, true) },
  { image: "vmdk-sparse", code: "FORMAT_FIELD", what: "a table of 2^32-1 entries", spoil: (file) => file.view.setUint32(44, 0xffff_ffff, true) },
  { image: "vmdk-sparse", code: "FORMAT_FIELD", what: "a disk of 2^60 bytes", spoil: (file) => file.view.setBigUint64(12, 2n ** 51n, true) },
  { image: "vmdk-stream", code: "FORMAT_BLOCK", what: "a grain that does not unpack", when: "read", spoil: (file) => void file.bytes.fill(0xff, 128 * 512 + 14, 128 * 512 + 40) },
  { image: "vmdk-flat", code: "FORMAT_FIELD", what: "an extent without a size", spoil: descriptor(/RW \d+ /, "RW 0 ") },
  { image: "vmdk-flat", code: "FORMAT_FIELD", what: "no createType", spoil: descriptor("createType", "creatorType") },
  { image: "vmdk-flat", code: "FORMAT_VARIANT", what: "a kind of disk that is not read", spoil: descriptor("monolithicFlat", "fullDevice") },
  { image: "vmdk-flat", code: "NOT_FOUND", what: "an extent that is not there", spoil: descriptor("flat-flat.vmdk", "gone-flat.vmdk") },
  { image: "vmdk-split", code: "FORMAT_FIELD", what: "an extent that is shorter than its line says", spoil: descriptor(/RW \d+ /, "RW 1000000 ") },
  { image: "vhdx-dynamic", code: "FORMAT_CHECKSUM", what: "a region table changed without its checksum", spoil: (file) => [192, 256].forEach((at) => file.view.setUint32(at * KIB + 8, 3, true)) },
  { image: "vhdx-dynamic", code: "FORMAT_CHECKSUM", what: "no header", spoil: (file) => [64, 128].forEach((at) => file.view.setUint32(at * KIB, 0, true)) },
  { image: "vhdx-dynamic", code: "FORMAT_BLOCK", what: "a block of a disk with a parent", when: "read", spoil: (file) => file.view.setUint8(vhdxTable(file), 7) },
  { image: "vpc-dynamic", code: "FORMAT_CHECKSUM", what: "a footer changed without its checksum", spoil: (file) => file.view.setUint32(60, 4) },
  { image: "vpc-dynamic", code: "FORMAT_TRUNCATED", what: "a file of a hundred bytes", spoil: (file) => file.bytes.slice(0, 100) },
  { image: "vdi-dynamic", code: "FORMAT_VARIANT", what: "version 2", spoil: (file) => file.view.setUint32(0x44, 0x0002_0000, true) },
  { image: "vdi-dynamic", code: "FORMAT_FIELD", what: "blocks of three bytes", spoil: (file) => file.view.setUint32(0x178, 3, true) },
  { image: "vdi-dynamic", code: "FORMAT_FIELD", what: "fewer blocks than the disk needs", spoil: (file) => file.view.setUint32(0x180, 1, true) },
];
