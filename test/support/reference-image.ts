import { createDecipheriv } from "node:crypto";
import { constants, inflateRawSync } from "node:zlib";
import { CRASH_PASSPHRASE } from "./crash-geometries.js";
import { referenceLuksRead } from "./reference-luks.js";
import { type ReferenceZoned, readReferenceEntry, readReferenceZoned } from "./reference-zones.js";

/**
 * A second, deliberately naive reading of the qcow2 format, for judging what the product wrote. It shares no
 * code with `src/`: everything is BigInt, nothing is cached, the whole file is one array. It knows standard clusters
 * and deflated ones, of extended entries too (no zstd, no backing file), encrypted data, and every layout of the zoned extension that has
 * a table. Snapshots are read by reference-snapshots.ts.
 */
const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
const OFFSET_MASK = 0x00ff_ffff_ffff_fe00n;
const REFCOUNT_TABLE_MASK = 0xffff_ffff_ffff_fe00n;
const ZONED_MAGIC = 0x007a6264;
const CRYPT_MAGIC = 0x0537be77;
const BITMAPS_MAGIC = 0x23852875;

export const INCOMPATIBLE_DIRTY = 1n << 0n;
export const INCOMPATIBLE_CORRUPT = 1n << 1n;
export const INCOMPATIBLE_EXTERNAL_DATA = 1n << 2n;
export const INCOMPATIBLE_EXTENDED_L2 = 1n << 4n;
export const INCOMPATIBLE_ZONED = 1n << 5n;

export interface ReferenceZone {
  readonly start: number;
  /** End of the writable part. */
  readonly end: number;
  readonly conventional: boolean;
  readonly writePointer: number;
  /** Only in layout v3. */
  readonly storedState: number | undefined;
}

export interface ReferenceMapping {
  readonly kind: "data" | "zero" | "unallocated" | "compressed";
  readonly hostOffset: number;
  readonly copied: boolean;
  readonly raw: bigint;
  /** Of a compressed cluster: bytes up to the end of its last sector. */
  readonly length?: number;
}

export class ReferenceImage {
  readonly bytes: Uint8Array;
  readonly version: number;
  readonly clusterSize: number;
  readonly size: number;
  readonly cryptMethod: number;
  readonly l1Size: number;
  readonly l1Offset: number;
  readonly refcountTableOffset: number;
  readonly refcountTableClusters: number;
  readonly refcountBits: number;
  /** Bytes of an L2 entry. */
  readonly l2EntryBytes: number;
  /** Bytes with a mapping of their own: a cluster, or a 32nd of it with extended L2 entries. */
  readonly unit: number;
  readonly incompatible: bigint;
  readonly compatible: bigint;
  readonly autoclear: bigint;
  readonly zoned: ReferenceZoned | undefined;
  /** Data lie in another file, each byte where the guest has it. */
  readonly external: boolean;
  /** That file. */
  readonly data: Uint8Array | undefined;
  /** Where the LUKS header lies. */
  readonly crypt: { readonly offset: number; readonly length: number } | undefined;
  /** The bitmap directory, when it counts. */
  readonly bitmaps: { readonly count: number; readonly offset: number; readonly length: number } | undefined;
  readonly #view: DataView;

  constructor(bytes: Uint8Array, data?: Uint8Array) {
    this.bytes = bytes;
    this.data = data;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#view = view;
    if (bytes.length < 104 || view.getUint32(0) !== 0x514649fb) throw new Error("no qcow2 header");
    this.version = view.getUint32(4);
    this.clusterSize = 1 << view.getUint32(20);
    this.size = this.u64(24);
    this.cryptMethod = view.getUint32(32);
    this.l1Size = view.getUint32(36);
    this.l1Offset = this.u64(40);
    this.refcountTableOffset = this.u64(48);
    this.refcountTableClusters = view.getUint32(56);
    const v3 = this.version === 3;
    this.incompatible = v3 ? view.getBigUint64(72) : 0n;
    this.compatible = v3 ? view.getBigUint64(80) : 0n;
    this.autoclear = v3 ? view.getBigUint64(88) : 0n;
    this.refcountBits = v3 ? 1 << view.getUint32(96) : 16;
    this.l2EntryBytes = (this.incompatible & INCOMPATIBLE_EXTENDED_L2) !== 0n ? 16 : 8;
    this.unit = this.l2EntryBytes === 16 ? this.clusterSize / 32 : this.clusterSize;
    this.external = (this.incompatible & INCOMPATIBLE_EXTERNAL_DATA) !== 0n;
    const extensions = this.#extensions(v3 ? view.getUint32(100) : 72);
    const crypt = extensions.get(CRYPT_MAGIC);
    this.crypt = crypt && { offset: this.u64(crypt.at), length: this.u64(crypt.at + 8) };
    const bitmaps = (this.autoclear & 1n) === 0n ? undefined : extensions.get(BITMAPS_MAGIC);
    this.bitmaps = bitmaps && {
      count: view.getUint32(bitmaps.at),
      length: this.u64(bitmaps.at + 8),
      offset: this.u64(bitmaps.at + 16),
    };
    const zoned = extensions.get(ZONED_MAGIC);
    const hasBit = (this.incompatible & INCOMPATIBLE_ZONED) !== 0n;
    this.zoned = zoned && readReferenceZoned(view, zoned.at, zoned.length, this.size, hasBit);
  }

  u64(at: number): number {
    return Number(this.#view.getBigUint64(at));
  }

  rawU64(at: number): bigint {
    return at + 8 <= this.bytes.length ? this.#view.getBigUint64(at) : 0n;
  }

  get clusterCount(): number {
    return Math.ceil(this.bytes.length / this.clusterSize);
  }

  get l2Entries(): number {
    return this.clusterSize / this.l2EntryBytes;
  }

  l1Entry(index: number): bigint {
    return this.rawU64(this.l1Offset + index * 8);
  }

  /** How the cluster is mapped, or with extended entries the subcluster, that holds guest byte `offset`. */
  mappingAt(offset: number): ReferenceMapping {
    const cluster = Math.floor(offset / this.clusterSize);
    const l2Offset = Number(this.l1Entry(Math.floor(cluster / this.l2Entries)) & OFFSET_MASK);
    if (l2Offset === 0) return { kind: "unallocated", hostOffset: 0, copied: false, raw: 0n };
    const at = l2Offset + (cluster % this.l2Entries) * this.l2EntryBytes;
    const mapping = this.decodeL2(this.rawU64(at));
    if (this.l2EntryBytes === 8 || mapping.kind === "compressed") return mapping;
    const subcluster = Math.floor((offset % this.clusterSize) / this.unit);
    const isPlaced = mapping.hostOffset !== 0 || this.external;
    const hostOffset = isPlaced ? mapping.hostOffset + subcluster * this.unit : 0;
    return { ...mapping, kind: this.subclusterKind(this.rawU64(at + 8), subcluster), hostOffset };
  }

  /** How the first byte of a guest cluster is mapped. */
  mapping(guestCluster: number): ReferenceMapping {
    return this.mappingAt(guestCluster * this.clusterSize);
  }

  subclusterKind(maps: bigint, subcluster: number): "data" | "zero" | "unallocated" {
    if (((maps >> BigInt(subcluster)) & 1n) !== 0n) return "data";
    return ((maps >> BigInt(32 + subcluster)) & 1n) !== 0n ? "zero" : "unallocated";
  }

  decodeL2(raw: bigint): ReferenceMapping {
    const hostOffset = Number(raw & OFFSET_MASK);
    const copied = (raw & COPIED) !== 0n;
    if ((raw & COMPRESSED) !== 0n) {
      const offsetBits = 62n - (BigInt(Math.log2(this.clusterSize)) - 8n);
      const from = Number(raw & ((1n << offsetBits) - 1n));
      const sectors = Number((raw & (COMPRESSED - 1n)) >> offsetBits);
      return { kind: "compressed", hostOffset: from, copied, raw, length: (sectors + 1) * 512 - (from % 512) };
    }
    if ((raw & 1n) !== 0n && this.version >= 3 && this.l2EntryBytes === 8)
      return { kind: "zero", hostOffset, copied, raw };
    // In a data file the first cluster of the disk lies at 0.
    const isStored = hostOffset !== 0 || (this.external && copied);
    return { kind: isStored ? "data" : "unallocated", hostOffset, copied, raw };
  }

  /** Bytes of the mapped disk, whatever the write pointers say. */
  readGuest(offset: number, length: number): Uint8Array {
    const out = new Uint8Array(length);
    let done = 0;
    while (done < length) {
      const at = offset + done;
      const inUnit = at % this.unit;
      const piece = Math.min(length - done, this.unit - inUnit);
      const mapping = this.mappingAt(at);
      if (mapping.kind === "compressed") {
        const cluster = this.decompress(mapping);
        const inCluster = at % this.clusterSize;
        out.set(cluster.subarray(inCluster, inCluster + piece), done);
      }
      if (mapping.kind === "data") {
        const stored = this.storedBytes(mapping.hostOffset, at - inUnit, this.unit);
        out.set(stored.subarray(inUnit, inUnit + piece), done);
      }
      done += piece;
    }
    return out;
  }

  /** Bytes of a data cluster, decrypted where the image is encrypted. */
  storedBytes(host: number, guest: number, length: number): Uint8Array {
    const stored = (this.external ? (this.data ?? new Uint8Array(0)) : this.bytes).subarray(host, host + length);
    if (this.cryptMethod === 0) return stored;
    if (this.crypt !== undefined) {
      const header = this.bytes.subarray(this.crypt.offset, this.crypt.offset + this.crypt.length);
      return referenceLuksRead(header, CRASH_PASSPHRASE, host, stored);
    }
    const key = Buffer.alloc(16);
    key.write(CRASH_PASSPHRASE);
    const sectors: Uint8Array[] = [];
    for (let at = 0; at < stored.length; at += 512) {
      const iv = Buffer.alloc(16);
      iv.writeBigUInt64LE(BigInt((guest + at) / 512));
      const cipher = createDecipheriv("aes-128-cbc", key, iv).setAutoPadding(false);
      sectors.push(cipher.update(stored.subarray(at, at + 512)));
    }
    return Buffer.concat(sectors);
  }

  /** The whole cluster; throws when the data is damaged. */
  decompress({ hostOffset, length = 0 }: ReferenceMapping): Uint8Array {
    const bytes = this.bytes.subarray(hostOffset, hostOffset + length);
    const cluster = inflateRawSync(bytes, { finishFlush: constants.Z_SYNC_FLUSH });
    if (cluster.length !== this.clusterSize)
      throw new Error(`compressed data at ${hostOffset} has ${cluster.length} bytes`);
    return cluster;
  }

  refcountBlockOffset(cluster: number): number {
    const perBlock = (this.clusterSize * 8) / this.refcountBits;
    const index = Math.floor(cluster / perBlock);
    if (index >= (this.refcountTableClusters * this.clusterSize) / 8) return 0;
    return Number(this.rawU64(this.refcountTableOffset + index * 8) & REFCOUNT_TABLE_MASK);
  }

  refcount(cluster: number): number {
    const block = this.refcountBlockOffset(cluster);
    if (block === 0) return 0;
    const index = cluster % ((this.clusterSize * 8) / this.refcountBits);
    if (this.refcountBits < 8) {
      const bit = index * this.refcountBits;
      const byte = this.bytes[block + Math.floor(bit / 8)] ?? 0;
      return (byte >> (bit % 8)) & ((1 << this.refcountBits) - 1);
    }
    let value = 0n;
    const width = this.refcountBits / 8;
    for (let i = 0; i < width; i++) value = (value << 8n) | BigInt(this.bytes[block + index * width + i] ?? 0);
    return Number(value);
  }

  zone(index: number): ReferenceZone {
    const zoned = this.zoned;
    if (zoned === undefined) throw new Error("not a zoned image");
    const { conventional, pointer, storedState } = readReferenceEntry(this.#view, zoned, index);
    const start = index * zoned.zoneSize;
    return {
      start,
      end: Math.min(start + zoned.zoneCapacity, this.size),
      conventional,
      writePointer: pointer,
      storedState,
    };
  }

  /** Where the data of each extension begin, by magic. */
  #extensions(from: number): Map<number, { readonly at: number; readonly length: number }> {
    const view = this.#view;
    const found = new Map<number, { readonly at: number; readonly length: number }>();
    const nameAt = this.u64(8);
    const end = nameAt === 0 ? this.clusterSize : nameAt;
    for (let at = from; at + 8 <= end; ) {
      const type = view.getUint32(at);
      const length = view.getUint32(at + 4);
      if (type === 0) break;
      found.set(type, { at: at + 8, length });
      at += 8 + Math.ceil(length / 8) * 8;
    }
    return found;
  }
}
