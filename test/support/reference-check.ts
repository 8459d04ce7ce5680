import {
  INCOMPATIBLE_CORRUPT,
  INCOMPATIBLE_DIRTY,
  INCOMPATIBLE_ZONED,
  ReferenceImage,
  type ReferenceMapping,
} from "./reference-image.js";

/** What an independent walk over an image found. Leaks waste space; corruptions lose data sooner or later. */
export interface ReferenceVerdict {
  readonly corruptions: string[];
  readonly leaks: string[];
  /** The refcounts may be wrong by declaration: they are rebuilt at the next writable open. */
  readonly dirty: boolean;
}

const L1_RESERVED = 0x7f00_0000_0000_01ffn;
const L2_RESERVED = 0x3f00_0000_0000_01fen;
const REFCOUNT_TABLE_RESERVED = 0x1ffn;
const COPIED = 1n << 63n;
const MAX_FINDINGS = 20;
const COMPRESSED = " (compressed)";

class Walk {
  readonly image: ReferenceImage;
  readonly corruptions: string[] = [];
  readonly leaks: string[] = [];
  /** Who refers to each cluster of the file. */
  readonly users: (string[] | undefined)[];

  constructor(image: ReferenceImage) {
    this.image = image;
    this.users = new Array<string[] | undefined>(image.clusterCount);
  }

  bad(text: string): void {
    if (this.corruptions.length < MAX_FINDINGS) this.corruptions.push(text);
  }

  use(what: string, offset: number, bytes: number): boolean {
    const size = this.image.clusterSize;
    if (offset % size !== 0) {
      this.bad(`${what} at ${offset} is not aligned to the cluster size ${size}`);
      return false;
    }
    let inside = true;
    for (let cluster = offset / size; cluster * size < offset + bytes; cluster++) {
      if (cluster >= this.users.length) {
        this.bad(`${what} uses cluster ${cluster}, past the end of the file (${this.users.length} clusters)`);
        inside = false;
        break;
      }
      const users = (this.users[cluster] ??= []);
      users.push(what);
      const mayShare = users.every((user) => user.endsWith(COMPRESSED));
      if (users.length > 1 && !mayShare) this.bad(`cluster ${cluster} is used twice: ${users.join(" and ")}`);
    }
    return inside;
  }

  /** Flags of a reference must agree with the stored count, unless the image says its counts are stale. */
  copied(what: string, offset: number, copied: boolean, dirty: boolean): void {
    const count = this.image.refcount(offset / this.image.clusterSize);
    if (!dirty && copied !== (count === 1)) this.bad(`${what}: COPIED is ${copied} but the refcount is ${count}`);
  }

  guest(dirty: boolean): void {
    const image = this.image;
    const needed = Math.ceil(image.size / (image.l2Entries * image.clusterSize));
    if (image.l1Size < needed) this.bad(`L1 has ${image.l1Size} entries, ${needed} are needed`);
    if (image.l1Size > 0) this.use("L1 table", image.l1Offset, image.l1Size * 8);
    for (let index = 0; index < image.l1Size; index++) {
      const raw = image.l1Entry(index);
      if ((raw & L1_RESERVED) !== 0n) this.bad(`L1 entry ${index} has reserved bits: 0x${raw.toString(16)}`);
      const offset = Number(raw & 0x00ff_ffff_ffff_fe00n);
      if (offset === 0) continue;
      if (!this.use(`L2 table ${index}`, offset, image.clusterSize)) continue;
      this.copied(`L2 table ${index}`, offset, (raw & COPIED) !== 0n, dirty);
      for (let entry = 0; entry < image.l2Entries; entry++) this.l2(index, entry, offset, dirty);
    }
  }

  l2(table: number, entry: number, tableOffset: number, dirty: boolean): void {
    const image = this.image;
    const at = tableOffset + entry * image.l2EntryBytes;
    const raw = image.rawU64(at);
    const what = `guest cluster ${table * image.l2Entries + entry}`;
    const mapping = image.decodeL2(raw);
    if (image.l2EntryBytes === 16) this.subclusters(what, mapping, image.rawU64(at + 8));
    if (raw === 0n) return;
    if (mapping.kind === "compressed") return this.compressed(what, mapping);
    if ((raw & L2_RESERVED) !== 0n) this.bad(`${what} has reserved bits: 0x${raw.toString(16)}`);
    if (image.external) return this.external(what, mapping, table * image.l2Entries + entry);
    if (mapping.hostOffset === 0) {
      if (mapping.copied) this.bad(`${what} has COPIED without an offset`);
      return;
    }
    if (this.use(what, mapping.hostOffset, image.clusterSize)) {
      this.copied(what, mapping.hostOffset, mapping.copied, dirty);
    }
  }

  /** Data in another file lie where the guest has them, and are nobody else's. */
  external(what: string, { hostOffset, copied }: ReferenceMapping, cluster: number): void {
    if (hostOffset === 0 && !copied) return;
    if (!copied) this.bad(`${what} is in the data file without COPIED`);
    if (hostOffset !== cluster * this.image.clusterSize) this.bad(`${what} lies at ${hostOffset} of the data file`);
  }

  /** The maps of an extended entry. */
  subclusters(what: string, { kind, hostOffset, raw }: ReferenceMapping, maps: bigint): void {
    const stored = maps & 0xffff_ffffn;
    if ((raw & 1n) !== 0n && kind !== "compressed") this.bad(`${what} has the zero flag in an extended entry`);
    if ((stored & (maps >> 32n)) !== 0n) this.bad(`${what} has subclusters that are stored and zero`);
    if (kind === "compressed" && maps !== 0n) this.bad(`${what} is compressed and has subclusters`);
    const isNowhere = hostOffset === 0 && !this.image.external;
    if (isNowhere && stored !== 0n) this.bad(`${what} stores subclusters nowhere`);
  }

  /** Data up to the end of the last sector, which may lie past the end of the file; the data itself may not. */
  compressed(guest: string, { hostOffset, copied, length = 0 }: ReferenceMapping): void {
    const { image } = this;
    const what = guest + COMPRESSED;
    if (copied) this.bad(`${what} has COPIED`);
    const first = Math.floor(hostOffset / image.clusterSize) * image.clusterSize;
    this.use(what, first, hostOffset + length - first);
    try {
      image.decompress({ kind: "compressed", hostOffset, copied, raw: 0n, length });
    } catch (error) {
      this.bad(`${what}: ${String(error)}`);
    }
  }

  refcountStructures(): void {
    const image = this.image;
    const bytes = image.refcountTableClusters * image.clusterSize;
    if (!this.use("refcount table", image.refcountTableOffset, bytes)) return;
    for (let index = 0; index < bytes / 8; index++) {
      const raw = image.rawU64(image.refcountTableOffset + index * 8);
      if (raw === 0n) continue;
      if ((raw & REFCOUNT_TABLE_RESERVED) !== 0n) this.bad(`refcount table entry ${index} has reserved bits`);
      this.use(`refcount block ${index}`, Number(raw & ~REFCOUNT_TABLE_RESERVED), image.clusterSize);
    }
  }

  zones(): void {
    const image = this.image;
    const zoned = image.zoned;
    const bit = (image.incompatible & INCOMPATIBLE_ZONED) !== 0n;
    const needsBit = zoned !== undefined && zoned.layout !== "v3";
    if (bit !== needsBit) this.bad(`zoned feature bit is ${bit}, extension is ${zoned?.layout}`);
    if (zoned === undefined) return;
    if (zoned.zoneCount !== Math.ceil(image.size / zoned.zoneSize)) this.bad(`zone count ${zoned.zoneCount}`);
    this.use("write-pointer table", zoned.tableOffset, zoned.zoneCount * 8);
    for (let index = 0; index < zoned.zoneCount; index++) {
      const zone = image.zone(index);
      if (zone.conventional !== index < zoned.conventionalZones) this.bad(`zone ${index}: wrong conventional bit`);
      if (zone.conventional && zone.writePointer !== zone.start) this.bad(`conventional zone ${index} has a pointer`);
      const pointer = zone.writePointer;
      if (pointer < zone.start || pointer > zone.end || pointer % 512 !== 0) {
        this.bad(`zone ${index}: write pointer ${pointer} outside [${zone.start}, ${zone.end}]`);
      }
      const partly = pointer === zone.end ? 14 : 4;
      const state = zone.conventional ? 0 : pointer === zone.start ? 1 : partly;
      if ((zone.storedState ?? state) !== state) this.bad(`zone ${index}: state ${zone.storedState}, not ${state}`);
    }
  }

  counts(dirty: boolean): void {
    if (dirty) return;
    for (let cluster = 0; cluster < this.users.length; cluster++) {
      const users = this.users[cluster];
      const references = users?.length ?? 0;
      const count = this.image.refcount(cluster);
      if (count < references) this.bad(`cluster ${cluster} has refcount ${count} but is ${users?.join(" and ")}`);
      if (count > references && this.leaks.length < MAX_FINDINGS)
        this.leaks.push(`cluster ${cluster} refcount ${count}`);
    }
  }
}

/** Walks every structure of the image and compares references with counts. */
export function referenceCheck(bytes: Uint8Array): ReferenceVerdict {
  const image = new ReferenceImage(bytes);
  const dirty = (image.incompatible & INCOMPATIBLE_DIRTY) !== 0n;
  const walk = new Walk(image);
  if ((image.incompatible & INCOMPATIBLE_CORRUPT) !== 0n) walk.bad("the corrupt bit is set");
  walk.use("header", 0, image.clusterSize);
  walk.refcountStructures();
  if (image.crypt !== undefined) walk.use("LUKS header", image.crypt.offset, image.crypt.length);
  if (image.bitmaps !== undefined) walk.use("bitmap directory", image.bitmaps.offset, image.bitmaps.length);
  walk.guest(dirty);
  walk.zones();
  walk.counts(dirty);
  return { corruptions: walk.corruptions, leaks: walk.leaks, dirty };
}

/** What is wrong with an image that was recovered from a crash, used, and closed. */
export function recoveredProblems(bytes: Uint8Array): string[] {
  const { dirty, corruptions } = referenceCheck(bytes);
  const problems = corruptions.map((text) => `recovered image: ${text}`);
  return dirty ? ["the image is still dirty after a clean close", ...problems] : problems;
}
