import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { MiB } from "../../../../src/base/units.js";
import { encodeHeader, withZonedExtension } from "../../../../src/formats/qcow2/header-encode.js";
import { readHeader } from "../../../../src/formats/qcow2/header-read.js";
import type { ZonedExtension } from "../../../../src/formats/qcow2/zoned-extension.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { pointersOf } from "../../../support/stored-pointers.js";

const image = (name: string): Uint8Array =>
  readFileSync(join(import.meta.dirname, "../../../corpus/golden", `${name}.qcow2`));

const written: Omit<ZonedExtension, "layout" | "tableOffset" | "tableByteOrder" | "maxAppendBytes"> = {
  zoneCount: 12,
  zoneSize: 8 * MiB,
  zoneCapacity: 8 * MiB,
  conventionalZones: 2,
  maxActiveZones: 6,
  maxOpenZones: 4,
  tail: new Uint8Array(0),
};

const table = { tableOffset: 0x30000 } as const;
const cases: readonly [string, ZonedExtension][] = [
  ["v8-written", { ...written, ...table, layout: "v8", tableByteOrder: "little", maxAppendBytes: MiB }],
  [
    "written-append-limit",
    { ...written, ...table, layout: "append-limit", tableByteOrder: "big", maxAppendBytes: MiB },
  ],
  ["written-current", { ...written, ...table, layout: "current", tableByteOrder: "big", maxAppendBytes: undefined }],
  ["written-v3", { ...written, ...table, layout: "v3", tableByteOrder: "little", maxAppendBytes: MiB }],
  ["written-v5", { ...written, ...table, layout: "v5", tableByteOrder: "little", maxAppendBytes: MiB }],
  [
    "written-seed",
    { ...written, tableOffset: undefined, layout: "seed", tableByteOrder: "little", maxAppendBytes: MiB },
  ],
];

test.each(cases)("%s is recognised as its layout and no other", async (name, zoned) => {
  const header = await readHeader(memoryStorage(image(name)));
  expect(header.zoned).toEqual(zoned);
});

test.each([...cases.map(([name]) => name), "v8-empty"])("the header of %s is rewritten byte for byte", async (name) => {
  const bytes = image(name);
  const header = await readHeader(memoryStorage(bytes));
  expect(Buffer.from(encodeHeader(header)).equals(bytes.subarray(0, 0x10000))).toBe(true);
  expect(Buffer.from(encodeHeader(withZonedExtension(header, header.zoned))).equals(bytes.subarray(0, 0x10000))).toBe(
    true,
  );
});

const pointers = [0, 0x4000, 0x8180, 0xc018, 0x14000, 0x18000, 0x18020, 0x1c001, 0x20000, 0x24000, 0x28000, 0x2c000];

test.each(cases.filter(([, zoned]) => zoned.tableOffset !== undefined))(
  "the table of %s gives the pointers of the zone report",
  async (name) => {
    const bytes = image(name);
    const header = await readHeader(memoryStorage(bytes));
    const writePointers = pointersOf(bytes, header);
    expect([...writePointers]).toEqual(pointers.map((sector) => sector * 512));
  },
);
