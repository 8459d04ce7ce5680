import { describe, expect, test } from "vitest";
import { KiB, MiB } from "../../../../../src/base/units.js";
import { checkQcow2 } from "../../../../../src/formats/qcow2/check/check.js";
import { type CheckFinding, checkExitCode } from "../../../../../src/formats/qcow2/check/check-result.js";
import { createQcow2 } from "../../../../../src/formats/qcow2/create.js";
import { memoryStorage } from "../../../../../src/storage/memory-storage.js";
import { COPIED, MappedImage } from "./mapped-image.js";

const CLEAN = { corruptions: 0, leaks: 0, checkErrors: 0, failure: undefined };

describe("a sound image", () => {
  test.each([512, 4 * KiB, 64 * KiB, 2 * MiB])("with clusters of %i bytes is clean", async (clusterSize) => {
    for (const refcountBits of [1, 2, 4, 8, 16, 32, 64] as const) {
      const image = await MappedImage.make({ size: 8 * MiB, clusterSize, refcountBits }, 3);
      const result = await checkQcow2(image.storage);
      expect(result).toMatchObject({ ...CLEAN, allocatedClusters: 3, fragmentedClusters: 0 });
      expect(result.imageEndOffset).toBe(image.storage.size());
      expect(result.findings).toEqual([]);
      expect(checkExitCode(result)).toBe(0);
    }
  });

  test("is not changed by a repair", async () => {
    const image = await MappedImage.make({ size: 8 * MiB });
    const before = image.storage.bytes();
    expect(await checkQcow2(image.storage, { repair: "all" })).toMatchObject(CLEAN);
    expect(image.storage.bytes()).toEqual(before);
  });
});

describe("progress", () => {
  test.each([undefined, "leaks", "all"] as const)("with repair %s goes from 0 to 1 and never back", async (repair) => {
    const image = await MappedImage.make({ size: 8 * MiB, clusterSize: 4 * KiB });
    image.truncate(image.storage.size() + 4 * KiB);
    image.setRefcount(image.firstData + 3, 1);
    const told: number[] = [];
    const onProgress = (done: number): void => void told.push(done);
    await checkQcow2(image.storage, repair === undefined ? { onProgress } : { repair, onProgress });
    expect(told[0]).toBe(0);
    expect(told.at(-1)).toBe(1);
    expect(told.filter((done) => done === 1)).toHaveLength(1);
    expect(told.length).toBeGreaterThan(3);
    expect(told).toEqual([...told].sort((a, b) => a - b));
  });
});

describe("leaked clusters", () => {
  test("are found, and freed by repair leaks", async () => {
    const image = await MappedImage.make({ size: 8 * MiB });
    image.truncate(image.storage.size() + 2 * 64 * KiB);
    const leaked = image.firstData + 3;
    image.setRefcount(leaked, 1);
    image.setRefcount(leaked + 1, 5);
    const found = await checkQcow2(image.storage);
    expect(found).toMatchObject({ corruptions: 0, leaks: 2 });
    expect(checkExitCode(found)).toBe(3);
    expect(found.findings[1]).toMatchObject({
      kind: "leak",
      severity: "leak",
      message: `Leaked cluster ${leaked + 1} refcount=5 reference=0`,
    });
    const repaired = await checkQcow2(image.storage, { repair: "leaks" });
    expect(repaired).toMatchObject({ ...CLEAN, leaksFixed: 2, corruptionsFixed: 0 });
    expect(image.refcount(leaked)).toBe(0);
    expect(image.refcount(leaked + 1)).toBe(0);
  });

  test("are kept when a table that may refer to them cannot be found", async () => {
    const image = await MappedImage.make({ size: 8 * MiB });
    image.setL1(0, 0x123_4560_0000_0000n & ((1n << 50n) - 65536n));
    const result = await checkQcow2(image.storage, { repair: "leaks" });
    expect(result.leaks).toBe(4);
    expect(result.leaksFixed).toBe(0);
    expect(result.findings.map(({ message }) => message).join("\n")).toContain("Not freeing clusters");
  });
});

describe("refcounts that are too low", () => {
  test.each([1, 2, 4, 8, 16, 32, 64] as const)("are rebuilt with %i-bit counts", async (refcountBits) => {
    const image = await MappedImage.make({ size: 8 * MiB, refcountBits });
    const data = image.firstData;
    image.setRefcount(data, 0);
    const found = await checkQcow2(image.storage);
    expect(checkExitCode(found)).toBe(2);
    expect(found.findings[0]?.message).toBe(`ERROR cluster ${data} refcount=0 reference=1`);
    const repaired = await checkQcow2(image.storage, { repair: "all" });
    expect(repaired).toMatchObject(CLEAN);
    expect(repaired.corruptionsFixed).toBeGreaterThan(0);
    expect(image.refcount(data)).toBe(1);
  });

  test("cannot be mended by repair leaks, which changes nothing", async () => {
    const image = await MappedImage.make({ size: 8 * MiB });
    image.setRefcount(image.firstData, 0);
    const before = image.storage.bytes();
    const result = await checkQcow2(image.storage, { repair: "leaks" });
    expect(result.failure).toBe("Input/output error");
    expect(checkExitCode(result)).toBe(1);
    expect(image.storage.bytes()).toEqual(before);
  });

  test("are raised in place where two entries share a cluster, and the copied flags cleared", async () => {
    const image = await MappedImage.make({ size: 8 * MiB });
    const shared = image.l2(0);
    image.setL2(4, shared);
    const repaired = await checkQcow2(image.storage, { repair: "all" });
    expect(repaired).toMatchObject({ ...CLEAN, corruptionsFixed: 3 });
    expect(image.refcount(image.firstData)).toBe(2);
    expect(image.l2(0)).toBe(shared & ~COPIED);
    expect(image.l2(4)).toBe(shared & ~COPIED);
  });
});

describe("refcount structures that are broken", () => {
  const breakages: [string, (image: MappedImage) => void][] = [
    ["no block", (image) => image.setReftable(0, 0n)],
    ["a block between clusters", (image) => image.setReftable(0, image.word(image.header.refcountTableOffset) + 512n)],
    ["reserved bits", (image) => image.setReftable(0, image.word(image.header.refcountTableOffset) | 3n)],
    ["two entries for one block", (image) => image.setReftable(1, image.word(image.header.refcountTableOffset))],
    ["a block in guest data", (image) => image.setReftable(0, BigInt(image.firstData * image.geometry.clusterSize))],
    ["a block past the end of the file", (image) => image.setReftable(1, 1n << 54n)],
    ["a table outside the file", (image) => image.setWord(48, 1n << 40n)],
    ["no table", (image) => image.setWord(56, 0n)],
  ];

  test.each(breakages)("%s: repaired, with the guest's data in place", async (_name, breakIt) => {
    const image = await MappedImage.make({ size: 8 * MiB });
    breakIt(image);
    expect(checkExitCode(await checkQcow2(image.storage))).toBeGreaterThan(0);
    const repaired = await checkQcow2(image.storage, { repair: "all" });
    expect(repaired).toMatchObject(CLEAN);
    for (let index = 0; index < 3; index++) {
      const offset = Number(image.l2(index) & ~COPIED);
      const data = image.read(offset, 64 * KiB);
      expect(data.every((byte) => byte === index + 1)).toBe(true);
    }
  });
});

describe("copied flags", () => {
  test("that are missing are set by repair leaks", async () => {
    const image = await MappedImage.make({ size: 8 * MiB });
    image.setL2(1, image.l2(1) & ~COPIED);
    image.setL1(0, image.word(image.header.l1TableOffset) & ~COPIED);
    const found = await checkQcow2(image.storage);
    expect(found.corruptions).toBe(2);
    expect(found.findings.map(({ kind }) => kind)).toEqual(["copied-flag", "copied-flag"]);
    expect(await checkQcow2(image.storage, { repair: "leaks" })).toMatchObject({ ...CLEAN, corruptionsFixed: 2 });
    expect(image.l2(1) & COPIED).toBe(COPIED);
  });

  test("are never written into a table that is other metadata as well", async () => {
    const image = await MappedImage.make({ size: 1024 * MiB });
    const l1 = image.header.l1TableOffset;
    const entry = image.word(l1);
    image.setL1(1, BigInt(l1) | COPIED);
    const result = await checkQcow2(image.storage, { repair: "all", structures: false });
    expect(checkExitCode(result)).toBe(2);
    expect(result.findings.map(({ message }) => message).join("\n")).toContain("it overlaps with the L2 table");
    expect(image.word(l1) & ~COPIED).toBe(entry & ~COPIED);
  });
});

describe("dirty and corrupt bits", () => {
  test.each([1n, 2n, 3n])("(word %s) are cleared once the image is sound, and not before", async (bits) => {
    const image = await MappedImage.make({ size: 8 * MiB });
    image.setWord(72, bits);
    image.setL2(1, image.l2(1) | 4n);
    await checkQcow2(image.storage, { repair: "all", structures: false });
    expect(image.word(72)).toBe(bits);
    image.setL2(1, image.l2(1) & ~4n);
    await checkQcow2(image.storage);
    expect(image.word(72)).toBe(bits);
    await checkQcow2(image.storage, { repair: "leaks" });
    expect(image.word(72)).toBe(0n);
  });
});

describe("findings", () => {
  test("are told as they are made, and kept up to a bound", async () => {
    const storage = memoryStorage();
    await createQcow2(storage, { size: 64 * MiB, clusterSize: 512 });
    const clusters = storage.size() / 512;
    const image = new MappedImage(storage, (await MappedImage.make({ size: 64 * MiB, clusterSize: 512 }, 0)).header);
    image.truncate((clusters + 40) * 512);
    for (let cluster = clusters; cluster < clusters + 40; cluster++) image.setRefcount(cluster, 1);
    const told: CheckFinding[] = [];
    const result = await checkQcow2(storage, { onFinding: (finding) => told.push(finding) });
    expect(result.leaks).toBe(40);
    expect(told).toEqual(result.findings);
    expect(result.findingsDropped).toBe(0);
  });
});

test("a repair of read-only storage is refused", async () => {
  const image = await MappedImage.make({ size: 8 * MiB });
  const storage = memoryStorage(image.storage.bytes(), { writable: false });
  await expect(checkQcow2(storage, { repair: "all" })).rejects.toMatchObject({ code: "READ_ONLY" });
});

test.each(["everything", true, null])("a repair of %o is refused, and nothing is changed", async (repair) => {
  const image = await MappedImage.make({ size: 8 * MiB });
  image.setRefcount(5, 3);
  const before = image.storage.bytes();
  await expect(checkQcow2(image.storage, { repair: repair as "all" })).rejects.toMatchObject({
    code: "INVALID_ARGUMENT",
    data: { option: "repair" },
  });
  expect(image.storage.bytes()).toEqual(before);
});
