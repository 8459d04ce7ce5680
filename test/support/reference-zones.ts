/**
 * The zoned extension and its table in every layout with a table, read field by field and on its own: no code of `src/`.
 * Positions are those of docs/format.md, section 2; `at` is where the extension's data begins.
 */
export interface ReferenceZoned {
  readonly layout: "current" | "append-limit" | "v8" | "v5" | "v3";
  readonly zoneCount: number;
  readonly zoneSize: number;
  readonly zoneCapacity: number;
  readonly tableOffset: number;
  readonly conventionalZones: number;
  readonly maxActiveZones: number;
  readonly maxOpenZones: number;
}

export interface ReferenceEntry {
  readonly conventional: boolean;
  readonly pointer: number;
  /** The state that layout v3 stores beside the pointer. */
  readonly storedState: number | undefined;
}

export function readReferenceZoned(
  view: DataView,
  at: number,
  length: number,
  diskSize: number,
  hasBit: boolean,
): ReferenceZoned {
  if (view.getUint8(at) !== 1) throw new Error("the zoned extension is not host-managed");
  const u32 = (offset: number): number => view.getUint32(at + offset);
  const u64 = (offset: number): number => Number(view.getBigUint64(at + offset));
  if (length === 44) {
    const [conventionalZones, maxActiveZones, maxOpenZones] = [u32(32), u32(36), u32(40)];
    const geometry = { zoneCount: u32(4), zoneSize: u64(8), zoneCapacity: u64(16), tableOffset: u64(24) };
    return { layout: "current", ...geometry, conventionalZones, maxActiveZones, maxOpenZones };
  }
  if (length === 56) {
    checkTableSize(u64(40), u32(24));
    const [conventionalZones, maxActiveZones, maxOpenZones] = [u32(20), u32(28), u32(32)];
    const geometry = { zoneCount: u32(24), zoneSize: u64(4), zoneCapacity: u64(12), tableOffset: u64(48) };
    return { layout: "v8", ...geometry, conventionalZones, maxActiveZones, maxOpenZones };
  }
  if (length !== 48) throw new Error(`zoned extension of ${length} bytes`);
  if (hasBit && u32(4) === Math.ceil(diskSize / u64(8))) {
    const [conventionalZones, maxActiveZones, maxOpenZones] = [u32(24), u32(28), u32(32)];
    const geometry = { zoneCount: u32(4), zoneSize: u64(8), zoneCapacity: u64(16), tableOffset: u64(40) };
    return { layout: "append-limit", ...geometry, conventionalZones, maxActiveZones, maxOpenZones };
  }
  checkTableSize(u64(hasBit ? 32 : 40), u32(16));
  const [conventionalZones, maxActiveZones, maxOpenZones] = [u32(12), u32(20), u32(24)];
  const geometry = { zoneCount: u32(16), zoneSize: u32(4), zoneCapacity: u32(8), tableOffset: u64(hasBit ? 40 : 32) };
  return { layout: hasBit ? "v5" : "v3", ...geometry, conventionalZones, maxActiveZones, maxOpenZones };
}

function checkTableSize(bytes: number, zoneCount: number): void {
  if (bytes !== zoneCount * 8) throw new Error(`table size ${bytes} for ${zoneCount} zones`);
}

/** One entry. Old tables are little-endian, as they were written on the machines of their time. */
export function readReferenceEntry(view: DataView, zoned: ReferenceZoned, index: number): ReferenceEntry {
  const at = zoned.tableOffset + index * 8;
  if (zoned.layout === "current" || zoned.layout === "append-limit") {
    const raw = view.getBigUint64(at);
    return { conventional: raw >> 63n === 1n, pointer: Number(raw & ((1n << 63n) - 1n)), storedState: undefined };
  }
  const raw = view.getBigUint64(at, true);
  const conventional = ((raw >> 59n) & 1n) === 1n;
  const storesState = zoned.layout === "v3";
  const offset = storesState ? raw & ((1n << 59n) - 1n) : raw & ~(1n << 59n);
  return { conventional, pointer: Number(offset), storedState: storesState ? Number(raw >> 60n) : undefined };
}
