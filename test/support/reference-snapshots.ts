import { ReferenceImage } from "./reference-image.js";

/**
 * A naive reading of internal snapshots, for judging what the product wrote: shares no code with `src/`, and counts every
 * reference of every tree, bitmap and table anew.
 */
export interface ReferenceSnapshot {
  readonly id: string;
  readonly name: string;
  readonly l1Offset: number;
  readonly l1Size: number;
  readonly diskSize: number;
  /** Extra data behind the first 24 bytes. */
  readonly extra: Uint8Array;
}

const COPIED = 1n << 63n;
const OFFSET_MASK = 0x00ff_ffff_ffff_fe00n;

export function referenceSnapshots(bytes: Uint8Array): { snapshots: ReferenceSnapshot[]; tableBytes: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const start = Number(view.getBigUint64(64));
  const snapshots: ReferenceSnapshot[] = [];
  let at = start;
  for (let index = 0; index < view.getUint32(60); index++) {
    at = Math.ceil(at / 8) * 8;
    const idLength = view.getUint16(at + 12);
    const nameLength = view.getUint16(at + 14);
    const extraLength = view.getUint32(at + 36);
    const idAt = at + 40 + extraLength;
    const text = (from: number, length: number): string =>
      new TextDecoder().decode(bytes.subarray(from, from + length));
    snapshots.push({
      id: text(idAt, idLength),
      name: text(idAt + idLength, nameLength),
      l1Offset: Number(view.getBigUint64(at)),
      l1Size: view.getUint32(at + 8),
      diskSize: extraLength >= 16 ? Number(view.getBigUint64(at + 48)) : Number(view.getBigUint64(24)),
      extra: bytes.slice(at + 40 + Math.min(24, extraLength), idAt),
    });
    at = idAt + idLength + nameLength;
  }
  return { snapshots, tableBytes: at - start };
}

/** The disk and every snapshot as text-comparable facts: size and bytes of each. */
export function referenceContents(bytes: Uint8Array): { name: string; size: number; bytes: Uint8Array }[] {
  const disk = new ReferenceImage(bytes);
  const states = [{ name: "the disk", size: disk.size, bytes: disk.readGuest(0, disk.size) }];
  for (const { name, l1Offset, l1Size, diskSize } of referenceSnapshots(bytes).snapshots) {
    const copy = bytes.slice();
    const view = new DataView(copy.buffer);
    view.setBigUint64(24, BigInt(diskSize));
    view.setUint32(36, l1Size);
    view.setBigUint64(40, BigInt(l1Offset));
    states.push({ name, size: diskSize, bytes: new ReferenceImage(copy).readGuest(0, diskSize) });
  }
  return states;
}

/** Every count and copied flag that differs from what the trees say. `leaksAllowed`: counts that are too high are let pass. */
export function referenceCounts(bytes: Uint8Array, leaksAllowed: boolean): string[] {
  const image = new ReferenceImage(bytes);
  const { clusterSize } = image;
  const counts = new Map<number, number>();
  const use = (offset: number, length: number): void => {
    for (let cluster = offset / clusterSize; cluster * clusterSize < offset + length; cluster++) {
      counts.set(cluster, (counts.get(cluster) ?? 0) + 1);
    }
  };
  const { snapshots, tableBytes } = referenceSnapshots(bytes);
  use(0, clusterSize);
  use(image.refcountTableOffset, image.refcountTableClusters * clusterSize);
  for (let entry = 0; entry < (image.refcountTableClusters * clusterSize) / 8; entry++) {
    const block = image.u64(image.refcountTableOffset + entry * 8);
    if (block !== 0) use(block, clusterSize);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (snapshots.length > 0) use(Number(view.getBigUint64(64)), tableBytes);
  if (image.zoned !== undefined) use(image.zoned.tableOffset, image.zoned.zoneCount * 8);
  if (image.crypt !== undefined) use(image.crypt.offset, image.crypt.length);
  for (const { offset, length } of bitmapReferences(image)) use(offset, length);
  const flags: { what: string; cluster: number; copied: boolean }[] = [];
  const tree = (what: string, l1Offset: number, l1Size: number, active: boolean): void => {
    if (l1Size > 0) use(l1Offset, l1Size * 8);
    for (let index = 0; index < l1Size; index++) {
      const entry = image.rawU64(l1Offset + index * 8);
      const table = Number(entry & OFFSET_MASK);
      if (table === 0) continue;
      use(table, clusterSize);
      if (active)
        flags.push({ what: `${what}, table ${index}`, cluster: table / clusterSize, copied: (entry & COPIED) !== 0n });
      for (let at = 0; at < clusterSize; at += image.l2EntryBytes) {
        const { kind, hostOffset, copied, length = clusterSize } = image.decodeL2(image.rawU64(table + at));
        if (hostOffset === 0 || image.external) continue;
        const first = Math.floor(hostOffset / clusterSize) * clusterSize;
        use(first, hostOffset + length - first);
        if (active && kind !== "compressed")
          flags.push({
            what: `${what}, entry ${at / image.l2EntryBytes} of table ${index}`,
            cluster: hostOffset / clusterSize,
            copied,
          });
      }
    }
  };
  tree("the disk", image.l1Offset, image.l1Size, true);
  for (const { name, l1Offset, l1Size } of snapshots) tree(name, l1Offset, l1Size, false);
  const problems: string[] = [];
  for (let cluster = 0; cluster < image.clusterCount; cluster++) {
    const stored = image.refcount(cluster);
    const counted = counts.get(cluster) ?? 0;
    if (stored < counted || (stored > counted && !leaksAllowed)) {
      problems.push(`cluster ${cluster} has refcount ${stored}, but ${counted} references`);
    }
  }
  for (const { what, cluster, copied } of flags) {
    if (copied !== (image.refcount(cluster) === 1))
      problems.push(`${what}: COPIED is ${copied}, refcount ${image.refcount(cluster)}`);
  }
  for (const cluster of counts.keys())
    if (cluster >= image.clusterCount) problems.push(`cluster ${cluster} is past the end`);
  return problems.slice(0, 10);
}

/** The pieces of the file that the bitmaps of an image take: directory, tables and bits. */
function bitmapReferences(image: ReferenceImage): { offset: number; length: number }[] {
  if (image.bitmaps === undefined) return [];
  const { offset, length, count } = image.bitmaps;
  const view = new DataView(image.bytes.buffer, image.bytes.byteOffset, image.bytes.byteLength);
  const pieces = [{ offset, length }];
  let at = offset;
  for (let index = 0; index < count; index++) {
    const table = Number(view.getBigUint64(at));
    const entries = view.getUint32(at + 8);
    pieces.push({ offset: table, length: entries * 8 });
    for (let entry = 0; entry < entries; entry++) {
      const bits = Number(image.rawU64(table + entry * 8) & OFFSET_MASK);
      if (bits !== 0) pieces.push({ offset: bits, length: image.clusterSize });
    }
    at += Math.ceil((24 + view.getUint32(at + 20) + view.getUint16(at + 18)) / 8) * 8;
  }
  return pieces;
}
