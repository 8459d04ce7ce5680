import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isZcowError, type ZcowError } from "../../../../src/base/errors.js";
import { KiB, MiB } from "../../../../src/base/units.js";
import { createQcow2 } from "../../../../src/formats/qcow2/create.js";
import type { Qcow2Header } from "../../../../src/formats/qcow2/header.js";
import { encodeHeader, withZonedExtension } from "../../../../src/formats/qcow2/header-encode.js";
import { readHeader } from "../../../../src/formats/qcow2/header-read.js";
import { encodeWritePointer, type TableShape, writableEnd } from "../../../../src/formats/qcow2/write-pointer-table.js";
import { ZONED_LAYOUTS, type ZonedExtension, type ZonedLayout } from "../../../../src/formats/qcow2/zoned-extension.js";
import { validateZonedConfig } from "../../../../src/formats/qcow2/zoned-validation.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import {
  all,
  type Change,
  fields,
  put32,
  put64,
  putExtensions,
  TABLE_AT,
  ZONED_DATA_AT,
  zonedImage,
} from "../../../corpus/images.js";

const ZONED = 0x007a6264;
const OLD_LAYOUTS = ["v8", "v5", "v3"] as const;
const WITH_TABLE = ZONED_LAYOUTS.filter((layout) => layout !== "seed");

async function spoiled(layout: ZonedLayout, change: Change): Promise<Uint8Array> {
  const bytes = await zonedImage({ layout });
  return change(bytes) ?? bytes;
}

async function read(bytes: Uint8Array): Promise<Qcow2Header & { readonly zoned: ZonedExtension }> {
  const header = await readHeader(memoryStorage(bytes));
  if (header.zoned === undefined) throw new Error("not zoned");
  return { ...header, zoned: header.zoned };
}

async function refusal(bytes: Uint8Array): Promise<ZcowError> {
  const error: unknown = await readHeader(memoryStorage(bytes)).catch((reason: unknown) => reason);
  if (isZcowError(error)) return error;
  throw new Error(`was not refused: ${String(error)}`);
}

test("whatever its zones and pointers, an image is read in the layout it was made in", async () => {
  const zones = fc.record({
    layout: fc.constantFrom(...ZONED_LAYOUTS),
    sizeBits: fc.integer({ min: 16, max: 24 }),
    capacitySectors: fc.integer({ min: 1, max: 2 ** 15 }),
    count: fc.integer({ min: 1, max: 3000 }),
    lastZone: fc.integer({ min: 1, max: 128 }),
    conventional: fc.nat(2999),
    limits: fc.tuple(fc.nat(20), fc.nat(20)),
    pointers: fc.array(fc.nat(2 ** 20), { minLength: 1, maxLength: 20 }),
  });
  await fc.assert(
    fc.asyncProperty(
      zones,
      async ({ layout, sizeBits, capacitySectors, count, lastZone, conventional, limits, pointers }) => {
        const zoneSize = 2 ** sizeBits;
        const size = (count - 1) * zoneSize + Math.min(lastZone * 512, zoneSize);
        const storage = memoryStorage();
        await createQcow2(storage, {
          size,
          zone: {
            mode: "host-managed",
            layout,
            size: zoneSize,
            capacity: Math.min(capacitySectors * 512, zoneSize),
            conventionalZones: Math.min(conventional, count - 1),
            maxActiveZones: limits[0],
            maxOpenZones: limits[1],
          },
        });
        const { zoned } = await read(storage.bytes());
        expect(zoned).toMatchObject({
          layout,
          zoneSize,
          zoneCount: count,
          conventionalZones: Math.min(conventional, count - 1),
        });
        if (zoned.tableOffset === undefined) return;
        await movePointers(storage, zoned, size, pointers);
        expect((await read(storage.bytes())).zoned).toEqual(zoned);
      },
    ),
    { numRuns: 60 },
  );
});

async function movePointers(
  storage: ReturnType<typeof memoryStorage>,
  zoned: ZonedExtension,
  size: number,
  pointers: readonly number[],
): Promise<void> {
  const table = new Uint8Array(zoned.zoneCount * 8);
  const view = new DataView(table.buffer);
  for (let zone = 0; zone < zoned.zoneCount; zone++) {
    const start = zone * zoned.zoneSize;
    const end = writableEnd(zoned, zone, size);
    const sectors = (pointers[zone % pointers.length] ?? 0) % (Math.floor((end - start) / 512) + 1);
    encodeWritePointer(view, zone, start + sectors * 512, zoned, size);
  }
  await storage.write(zoned.tableOffset ?? 0, table);
}

describe("the byte order of an old table", () => {
  test.each(OLD_LAYOUTS)("is found for layout %s, whichever machine wrote it", async (layout) => {
    for (const order of ["little", "big"] as const) {
      const bytes = await zonedImage({ layout });
      const { zoned, size } = await read(bytes);
      const shape: TableShape = { ...zoned, tableByteOrder: order };
      const view = new DataView(bytes.buffer, TABLE_AT);
      for (let zone = 0; zone < 12; zone++) encodeWritePointer(view, zone, zone * 8 * MiB + 512 * zone, shape, size);
      expect((await read(bytes)).zoned).toEqual({ ...zoned, tableByteOrder: order });
    }
  });

  test.each(OLD_LAYOUTS)("is that of most entries when some of layout %s are damaged", async (layout) => {
    const bytes = await spoiled(layout, all(put64(TABLE_AT + 24, 0xffff_ffff_ffff_ffffn), put64(TABLE_AT + 80, 77)));
    expect((await read(bytes)).zoned).toMatchObject({ layout, tableByteOrder: "little" });
  });
});

describe("a damaged table", () => {
  test.each(WITH_TABLE)("does not hide layout %s", async (layout) => {
    const bytes = await spoiled(layout, (image) => image.fill(0xa5, TABLE_AT, TABLE_AT + 96));
    expect((await read(bytes)).zoned.layout).toBe(layout);
  });
});

describe("bytes behind the fields", () => {
  const longer = (bytes: Uint8Array, length: number, tail: Uint8Array): Uint8Array => {
    const data = Uint8Array.of(...bytes.slice(ZONED_DATA_AT, ZONED_DATA_AT + length), ...tail);
    return putExtensions([[ZONED, data]], ZONED_DATA_AT - 8)(bytes) ?? bytes;
  };

  test.each([
    ["current", 44],
    ["append-limit", 48],
    ["v8", 56],
    ["v5", 48],
    ["v3", 48],
  ] as const)("are kept for layout %s when the header is rewritten", async (layout, length) => {
    const tail = fields(0xfeedface, 0xfeedface, 0xfeedface, 0xfeedface, 0xfeedface);
    const bytes = longer(await zonedImage({ layout, conventionalZones: 2 }), length, tail);
    const header = await read(bytes);
    expect(header.zoned).toMatchObject({ layout, tail });
    bytes.set(encodeHeader(withZonedExtension(header, { ...header.zoned, maxOpenZones: 3 })));
    expect((await read(bytes)).zoned).toEqual({ ...header.zoned, maxOpenZones: 3 });
  });

  test("that make two layouts fit are refused, with what each says", async () => {
    // Layout current with a tail that layout append-limit takes for the place of the table.
    const bytes = await zonedImage({ conventionalZones: 0, maxActiveZones: 0, maxOpenZones: 0 });
    const error = await refusal(longer(bytes, 44, fields(TABLE_AT, 0)));
    expect(error.code).toBe("ZONED_LAYOUT_AMBIGUOUS");
    expect(error.message).toContain("fits 2 layouts");
    expect(error.data.reasons).toContain("current: all fields and table entries fit");
    expect(error.data.reasons).toContain("append-limit: all fields and table entries fit");
  });

  test("that only the table can tell apart are told apart by it", async () => {
    // The limits of one layout are where the other has its conventional zones; the table says which is right.
    const bytes = await zonedImage({ conventionalZones: 2, maxActiveZones: 0, maxOpenZones: 0 });
    expect((await read(longer(bytes, 44, fields(TABLE_AT, 0)))).zoned).toMatchObject({
      layout: "current",
      conventionalZones: 2,
    });
  });
});

describe("rules that are newer than a layout", () => {
  const open = async (bytes: Uint8Array): Promise<ReturnType<typeof validateZonedConfig>> => {
    const { zoned, size } = await read(bytes);
    return validateZonedConfig(zoned, { size, clusterSize: 64 * KiB }, "open");
  };

  test.each([
    ["v8", put64(ZONED_DATA_AT + 12, 1000), "ZONED_CAPACITY_ALIGNMENT"],
    ["v5", put32(ZONED_DATA_AT + 8, 1000), "ZONED_CAPACITY_ALIGNMENT"],
    ["v3", put32(ZONED_DATA_AT + 8, 1000), "ZONED_CAPACITY_ALIGNMENT"],
    ["seed", put32(ZONED_DATA_AT + 8, 1000), "ZONED_CAPACITY_ALIGNMENT"],
    ["seed", all(put32(ZONED_DATA_AT + 4, 12 * MiB), put32(ZONED_DATA_AT + 16, 8)), "ZONED_ZONE_SIZE_POWER"],
  ] as const)("let an image of layout %s be read, with a warning that names the rule", async (layout, change, code) => {
    const bytes = await zonedImage({ layout, maxAppendBytes: 512 });
    change(bytes);
    const { readOnly, warnings } = await open(bytes);
    expect(readOnly).toBe(true);
    expect(warnings.map((warning) => warning.code)).toContain(code);
  });
});
