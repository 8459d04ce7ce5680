import { describe, expect, test } from "vitest";
import { KiB, MiB } from "../../../../../src/base/units.js";
import { checkQcow2 } from "../../../../../src/formats/qcow2/check/check.js";
import { checkExitCode } from "../../../../../src/formats/qcow2/check/check-result.js";
import { decodeWritePointer } from "../../../../../src/formats/qcow2/write-pointer-table.js";
import type { ZonedLayout } from "../../../../../src/formats/qcow2/zoned-extension.js";
import { MappedImage } from "./mapped-image.js";

const ZONE = 4 * MiB;

async function zonedImage(layout: ZonedLayout = "current"): Promise<MappedImage> {
  return MappedImage.make(
    { size: 30 * MiB, zone: { mode: "host-managed", size: ZONE, conventionalZones: 1, layout } },
    3,
  );
}

function tableOffset(image: MappedImage): number {
  return image.header.zoned?.tableOffset ?? expect.unreachable();
}

function pointerOf(image: MappedImage, zone: number): number {
  const bytes = image.read(tableOffset(image), 64 * KiB);
  return decodeWritePointer(new DataView(bytes.buffer), zone, image.header.zoned ?? expect.unreachable(), 30 * MiB);
}

describe("the write-pointer table", () => {
  test.each(["current", "append-limit", "v8", "v5", "v3", "seed"] as const)(
    "of layout %s is not leaked",
    async (layout) => {
      const image = await zonedImage(layout);
      expect(await checkQcow2(image.storage)).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    },
  );

  test("with entries out of range: each is named with its zone, value and limits", async () => {
    const image = await zonedImage();
    image.setWord(tableOffset(image) + 8 * 2, 5n);
    image.setWord(tableOffset(image) + 8 * 3, BigInt(3 * ZONE + 100));
    image.setWord(tableOffset(image) + 8 * 4, BigInt(4 * ZONE) | (1n << 63n));
    const result = await checkQcow2(image.storage);
    expect(checkExitCode(result)).toBe(2);
    expect(result.findings.map(({ structure }) => structure)).toEqual(["zone 2", "zone 3", "zone 4"]);
    expect(result.findings[0]?.message).toMatch(/zone 2.*0x5\b.*0x800000.*0xc00000/);
    expect(result.findings.every(({ kind }) => kind === "zone")).toBe(true);
  });

  test("is mended by repair all: pointers go to the end of the data, or the start of an empty zone", async () => {
    const image = await zonedImage();
    // Clusters 0 and 1 of zone 3, and the last one of the short zone 7.
    const inZone3 = (3 * ZONE) / (64 * KiB);
    const last = (30 * MiB) / (64 * KiB) - 1;
    const [first, second, third] = [image.l2(0), image.l2(1), image.l2(2)];
    for (let index = 0; index < 3; index++) image.setL2(index, 0n);
    image.setL2(inZone3, first);
    image.setL2(inZone3 + 1, second);
    image.setL2(inZone3 + 5, 1n);
    image.setL2(last, third);
    for (const zone of [0, 2, 3, 7]) image.setWord(tableOffset(image) + zone * 8, 0x7fff_ffff_0000_0001n);
    const result = await checkQcow2(image.storage, { repair: "all" });
    expect(result).toMatchObject({ corruptions: 0, leaks: 0, corruptionsFixed: 4 });
    expect(pointerOf(image, 0)).toBe(0);
    expect(pointerOf(image, 2)).toBe(2 * ZONE);
    expect(pointerOf(image, 3)).toBe(3 * ZONE + 128 * KiB);
    expect(pointerOf(image, 7)).toBe(30 * MiB);
    expect(pointerOf(image, 1)).toBe(ZONE);
  });

  test("is left alone by repair leaks", async () => {
    const image = await zonedImage();
    image.setWord(tableOffset(image) + 16, 5n);
    const result = await checkQcow2(image.storage, { repair: "leaks" });
    expect(result).toMatchObject({ corruptions: 1, corruptionsFixed: 0 });
    expect(image.word(tableOffset(image) + 16)).toBe(5n);
  });

  test("that shares its cluster with guest data is not rewritten", async () => {
    const image = await zonedImage();
    image.setL2(5, BigInt(tableOffset(image)));
    image.setWord(tableOffset(image) + 16, 5n);
    await checkQcow2(image.storage, { repair: "all" });
    expect(image.word(tableOffset(image) + 16)).toBe(5n);
  });

  test("survives a rebuild of the refcounts", async () => {
    const image = await zonedImage();
    image.setReftable(0, 0n);
    expect(await checkQcow2(image.storage, { repair: "all" })).toMatchObject({ corruptions: 0, leaks: 0 });
    expect(pointerOf(image, 5)).toBe(5 * ZONE);
  });
});
