import { describe, expect, it } from "vitest";
import type { Snapshot } from "../../../../../src/formats/qcow2/snapshots/snapshot.js";
import { findSnapshot, newSnapshotId } from "../../../../../src/formats/qcow2/snapshots/snapshot-lookup.js";
import { encodeSnapshotTable, readSnapshotTable } from "../../../../../src/formats/qcow2/snapshots/snapshot-table.js";
import { memoryStorage } from "../../../../../src/storage/memory-storage.js";

function snapshot(changes: Partial<Snapshot>): Snapshot {
  return {
    id: "1",
    name: "one",
    l1Offset: 0x30000n,
    l1Entries: 2,
    dateSeconds: 1_700_000_000,
    dateNanoseconds: 5,
    vmClock: 77n,
    vmStateSize: 0n,
    diskSize: 4096n,
    icount: undefined,
    unknownExtra: new Uint8Array(0),
    extraLength: 24,
    ...changes,
  };
}

async function read(bytes: Uint8Array, count: number): Promise<readonly Snapshot[]> {
  return (await readSnapshotTable(memoryStorage(bytes), { snapshotCount: count, snapshotsOffset: 0 })).snapshots;
}

describe("the snapshot table", () => {
  it("keeps every field and all unknown extra data", async () => {
    const snapshots = [
      snapshot({ name: "a", unknownExtra: Uint8Array.of(1, 2, 3), extraLength: 27 }),
      snapshot({ id: "2", name: "", icount: 9n, vmStateSize: 2n ** 40n, diskSize: 2n ** 50n }),
      snapshot({ id: "drei", name: "\udcff odd" }),
    ];
    expect(await read(encodeSnapshotTable(snapshots, 0), 3)).toEqual(snapshots);
  });

  it("takes the VM state size of entries without extra data from the fixed part, and knows no disk size then", async () => {
    const bytes = new Uint8Array(48);
    new DataView(bytes.buffer).setUint32(32, 1234);
    const [entry] = await read(bytes, 1);
    expect(entry).toMatchObject({ vmStateSize: 1234n, diskSize: undefined, icount: undefined, extraLength: 0 });
  });

  it("gives entries without a disk size that of the image when it is written again", async () => {
    const bytes = encodeSnapshotTable([snapshot({ diskSize: undefined, extraLength: 0 })], 8192);
    expect((await read(bytes, 1))[0]).toMatchObject({ diskSize: 8192n, extraLength: 24 });
  });

  it("is read in pieces, however long it is", async () => {
    const snapshots = Array.from({ length: 3000 }, (_, i) => snapshot({ id: String(i), name: "x".repeat(i % 700) }));
    expect(await read(encodeSnapshotTable(snapshots, 0), 3000)).toEqual(snapshots);
  });

  it("is refused with more than 1 KiB of extra data in an entry, and is not written with more than 65,536 entries", async () => {
    const bytes = encodeSnapshotTable([snapshot({})], 0);
    new DataView(bytes.buffer).setUint32(36, 1025);
    await expect(read(bytes, 1)).rejects.toMatchObject({ code: "QCOW2_SNAPSHOT_TABLE", data: { value: 1025 } });
    const many = Array.from({ length: 65_537 }, () => snapshot({}));
    expect(() => encodeSnapshotTable(many, 0)).toThrow(/above the limit of 65536/);
  });

  it("is refused, and not written, with more than 4 MiB of ids and names", async () => {
    const named = (length: number): Snapshot => snapshot({ id: "", name: "n".repeat(length) });
    const sixtyFour = Array.from({ length: 64 }, () => named(65_535));
    const most = encodeSnapshotTable([...sixtyFour, named(64)], 0);
    expect(await read(most, 65)).toHaveLength(65);
    const last = most.length - 64 - 64;
    new DataView(most.buffer).setUint16(last + 14, 65);
    const more = new Uint8Array(most.length + 8);
    more.set(most);
    await expect(read(more, 65)).rejects.toMatchObject({
      code: "QCOW2_SNAPSHOT_TABLE",
      data: { field: "entry 64, name_size", limit: 4_194_304 },
    });
    expect(() => encodeSnapshotTable([...sixtyFour, named(65)], 0)).toThrow(/above the limit of 4194304/);
  });
});

describe("looking a snapshot up", () => {
  const snapshots = [
    snapshot({ id: "1", name: "2" }),
    snapshot({ id: "2", name: "b" }),
    snapshot({ id: "7x", name: "b" }),
  ];

  it("goes by id first and by name then, or by name alone", () => {
    expect(findSnapshot(snapshots, "2", "id-or-name", "image")).toBe(snapshots[1]);
    expect(findSnapshot(snapshots, "2", "name", "image")).toBe(snapshots[0]);
    expect(findSnapshot(snapshots, "b", "name", "image")).toBe(snapshots[1]);
    expect(() => findSnapshot(snapshots, "1", "name", "image")).toThrow(/has no snapshot '1'/);
  });

  it("a new id is one more than the largest number that an id starts with", () => {
    expect(newSnapshotId([])).toBe("1");
    expect(newSnapshotId(snapshots)).toBe("8");
  });
});
