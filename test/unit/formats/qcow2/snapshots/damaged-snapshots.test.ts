import { describe, expect, it } from "vitest";
import { openQcow2 } from "../../../../../src/formats/qcow2/open.js";
import {
  applySnapshot,
  createSnapshot,
  deleteSnapshot,
  type MemoryStorage,
  memoryStorage,
} from "../../../../../src/index.js";
import { newImage } from "../../../../support/new-image.js";

/** Damaged and hostile snapshot tables: named, refused, and the image left as it is. */

const qcow2 = { format: "qcow2" } as const;

async function withSnapshots(count: number): Promise<MemoryStorage> {
  const storage = memoryStorage(await newImage({ size: 64 * 1024, clusterSize: 512 }));
  for (let i = 0; i < count; i++) await createSnapshot(storage, { ...qcow2, name: `s${i}` });
  return storage;
}

function patched(storage: MemoryStorage, change: (view: DataView, table: number) => void): MemoryStorage {
  const bytes = storage.bytes();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  change(view, Number(view.getBigUint64(64)));
  return memoryStorage(bytes);
}

const DAMAGE = [
  {
    what: "an L1 table between clusters",
    code: "QCOW2_SNAPSHOT_L1",
    change: (v: DataView, t: number) => v.setBigUint64(t, 100n),
  },
  {
    what: "an L1 table above 2^53",
    code: "QCOW2_SNAPSHOT_L1",
    change: (v: DataView, t: number) => v.setBigUint64(t, 1n << 60n),
  },
  {
    what: "an L1 table of 16 GiB",
    code: "QCOW2_SNAPSHOT_L1",
    change: (v: DataView, t: number) => v.setUint32(t + 8, 0x7fff_ffff),
  },
  {
    what: "an L1 table past the file",
    code: "IMAGE_CORRUPT",
    change: (v: DataView, t: number) => v.setBigUint64(t, 512n * 100_000n),
  },
  {
    what: "too much extra data",
    code: "QCOW2_SNAPSHOT_TABLE",
    change: (v: DataView, t: number) => v.setUint32(t + 36, 2000),
  },
] as const;

describe("a snapshot table", () => {
  it.each(DAMAGE)("with $what is named, and nothing is changed", async ({ code, change }) => {
    const image = patched(await withSnapshots(2), change);
    const before = image.bytes();
    await expect(deleteSnapshot(image, { ...qcow2, snapshot: "s0" })).rejects.toMatchObject({ code });
    if (code !== "IMAGE_CORRUPT") {
      await expect(applySnapshot(image, { ...qcow2, snapshot: "s0" })).rejects.toMatchObject({ code });
      await expect(openQcow2(image, { readOnly: true, snapshot: "s0" })).rejects.toMatchObject({ code });
    }
    expect(Buffer.compare(image.bytes(), before)).toBe(0);
  });

  it("whose L1 table refers to one L2 table again and again does not keep the walk busy", async () => {
    const written = memoryStorage(await newImage({ size: 64 * 1024, clusterSize: 512 }));
    const disk = await openQcow2(written, {});
    await disk.write(0, new Uint8Array(64 * 1024).fill(1));
    await disk.close();
    const image = memoryStorage(written.bytes());
    await createSnapshot(image, { ...qcow2, name: "s" });
    const twice = patched(image, (view, table) => {
      const l1 = Number(view.getBigUint64(table));
      view.setBigUint64(l1 + 8, view.getBigUint64(l1));
    });
    await expect(applySnapshot(twice, { ...qcow2, snapshot: "s" })).rejects.toMatchObject({ code: "IMAGE_CORRUPT" });
  });

  it("with larger L1 tables than can be remembered lets the disk be read only", async () => {
    const image = await withSnapshots(20);
    const hostile = patched(image, (view, table) => {
      for (let i = 0, at = table; i < 20; i++) {
        view.setUint32(at + 8, 2 ** 22);
        at += Math.ceil((40 + view.getUint32(at + 36) + view.getUint16(at + 12) + view.getUint16(at + 14)) / 8) * 8;
      }
    });
    const device = await openQcow2(hostile, {});
    await device.read(0, new Uint8Array(512));
    await expect(Promise.resolve(device.write(0, new Uint8Array(512)))).rejects.toMatchObject({
      code: "SNAPSHOT_LIMIT",
    });
  });
});
