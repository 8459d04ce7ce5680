import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { GiB, MiB } from "../../../../src/base/units.js";
import { createQcow2 } from "../../../../src/formats/qcow2/create.js";
import type { CreateQcow2Options } from "../../../../src/formats/qcow2/create-options.js";
import { readHeader } from "../../../../src/formats/qcow2/header-read.js";
import { ZONED_LAYOUTS } from "../../../../src/formats/qcow2/zoned-extension.js";
import { faultStorage } from "../../../../src/storage/fault-storage.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { pointersOf } from "../../../support/stored-pointers.js";

const golden = (name: string): Uint8Array =>
  readFileSync(join(import.meta.dirname, "../../../corpus/golden", `${name}.qcow2`));

async function bytesOf(options: CreateQcow2Options): Promise<Uint8Array> {
  const storage = memoryStorage();
  await createQcow2(storage, options);
  return storage.bytes();
}

describe("a zoned image", () => {
  test("in layout v8 is byte for byte the one another program made", async () => {
    const bytes = await bytesOf({
      size: 768 * MiB,
      zone: {
        mode: "host-managed",
        layout: "v8",
        size: 64 * MiB,
        maxOpenZones: 6,
        maxActiveZones: 8,
        maxAppendBytes: 4096,
      },
    });
    expect(Buffer.from(bytes).equals(golden("v8-empty"))).toBe(true);
  });

  test.each(ZONED_LAYOUTS)(
    "in layout %s is recognised, with every pointer at the start of its zone",
    async (layout) => {
      const storage = memoryStorage();
      const zone = { mode: "host-managed", layout, size: 8 * MiB, capacity: 6 * MiB, conventionalZones: 2 } as const;
      await createQcow2(storage, { size: 100 * MiB, zone: { ...zone, maxActiveZones: 6, maxOpenZones: 4 } });
      const header = await readHeader(storage);
      expect(header.zoned).toMatchObject({
        layout,
        zoneCount: 13,
        conventionalZones: 2,
        maxActiveZones: 6,
        maxOpenZones: 4,
      });
      if (header.zoned?.tableOffset === undefined) {
        expect(layout).toBe("seed");
        return;
      }
      const writePointers = pointersOf(storage.bytes(), header);
      expect([...writePointers]).toEqual(Array.from({ length: 13 }, (_, zone_) => zone_ * 8 * MiB));
    },
  );

  test("bit 5 is set exactly in the layouts that know it", async () => {
    for (const layout of ZONED_LAYOUTS) {
      const bytes = await bytesOf({ size: 64 * MiB, zone: { mode: "host-managed", layout, size: 8 * MiB } });
      expect(bytes[79], layout).toBe(layout === "v3" || layout === "seed" ? 0 : 32);
    }
  });

  test("of many zones has a table of several clusters behind the first refcount block, with slack of zeros", async () => {
    const storage = memoryStorage();
    await createQcow2(storage, { size: GiB, clusterSize: 4096, zone: { mode: "host-managed", size: MiB } });
    const header = await readHeader(storage);
    expect(header.zoned).toMatchObject({ zoneCount: 1024, tableOffset: 3 * 4096 });
    expect(header.l1TableOffset).toBe(5 * 4096);
    const table = storage.bytes().subarray(3 * 4096, 5 * 4096);
    expect(table.some((byte) => byte !== 0)).toBe(true);
    expect(storage.bytes().length).toBe(5 * 4096 + header.l1Size * 8);
  });
});

describe("creation that fails", () => {
  test("at any write, truncation or flush leaves a file that is no image", async () => {
    const options: CreateQcow2Options = {
      size: 64 * MiB,
      clusterSize: 4096,
      zone: { mode: "host-managed", size: 8 * MiB },
    };
    const old = await bytesOf({ size: MiB });
    for (let call = 1; ; call++) {
      const inner = memoryStorage();
      await inner.write(0, old);
      const storage = faultStorage(inner, { rules: [{ nth: call, fault: { type: "error" } }] });
      const failed = await createQcow2(storage, options).then(
        () => false,
        () => true,
      );
      if (!failed) {
        expect(call).toBeGreaterThan(5);
        break;
      }
      const magic = new Uint8Array(4);
      await inner.read(0, magic);
      const isOldImage = inner.size() === old.length;
      const isWhole = Buffer.from(magic).toString("latin1") === "QFI\xfb";
      // The last flush comes after the header: then everything is in place, only its durability is unknown.
      if (isWhole && !isOldImage) await expect(readHeader(inner), `call ${call}`).resolves.toBeDefined();
    }
  });
});
