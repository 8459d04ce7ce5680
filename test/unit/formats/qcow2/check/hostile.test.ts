import { describe, expect, test } from "vitest";
import { isZcowError } from "../../../../../src/base/errors.js";
import { KiB, MiB, TiB } from "../../../../../src/base/units.js";
import { checkQcow2 } from "../../../../../src/formats/qcow2/check/check.js";
import { openQcow2 } from "../../../../../src/formats/qcow2/open.js";
import { borrowedStorage } from "../../../../../src/storage/borrowed-storage.js";
import { memoryStorage } from "../../../../../src/storage/memory-storage.js";
import { recordingStorage } from "../../../../../src/storage/recording-storage.js";
import { tracingStorage } from "../../../../../src/storage/tracing-storage.js";
import { Random, seedFromEnvironment } from "../../../../support/random.js";
import { COPIED, MappedImage } from "./mapped-image.js";

describe("images made to hurt", () => {
  test("four million L1 entries for one L2 table are counted in linear time", async () => {
    const image = await MappedImage.make({ size: 64 * MiB, refcountBits: 32 });
    const entries = 2 ** 22;
    const entry = BigInt(image.tableOffset) | COPIED;
    const l1 = image.storage.size();
    const table = new Uint8Array(entries * 8);
    const view = new DataView(table.buffer);
    for (let index = 0; index < entries; index++) view.setBigUint64(index * 8, entry);
    image.write(l1, table);
    image.setWord(40, BigInt(l1));
    image.setWord(32, BigInt(entries));
    const result = await checkQcow2(image.storage);
    const references = result.findings.filter(({ kind }) => kind === "refcount-too-low").map(({ message }) => message);
    expect(references).toContain(`ERROR cluster ${image.firstData} refcount=1 reference=${entries}`);
    expect(result.totalClusters).toBe(1024);
  });

  test.each([
    ["that ends inside it", 0],
    ["that is mostly a hole", 64 * MiB],
  ])("the largest L1 table, in a file %s, is never held whole", async (_what, length) => {
    const image = await MappedImage.make({ size: 64 * MiB });
    if (length > 0) image.truncate(length);
    // At the end of the image as it was made, so that most of the table is not in the file, or in the hole.
    image.setWord(40, BigInt(image.tableOffset + 64 * KiB));
    image.setWord(32, 2n ** 22n);
    let largest = 0;
    const storage = tracingStorage(image.storage, (trace) => {
      if (trace.kind === "read") largest = Math.max(largest, trace.length);
    });
    for (const repair of [undefined, "leaks", "all"] as const) {
      const result = await checkQcow2(storage, repair === undefined ? {} : { repair });
      expect(result.corruptions + result.corruptionsFixed).toBeGreaterThan(0);
    }
    expect(largest).toBeLessThanOrEqual(2 * MiB);
  });

  test("of a hundred thousand findings the first sixteen thousand are kept, and all are counted and told", async () => {
    const image = await MappedImage.make({ size: 64 * MiB });
    const entries = 2 ** 16;
    const l1 = image.storage.size();
    // Odd numbers are no places of tables: two findings for each.
    image.write(l1, new Uint8Array(entries * 8).fill(0x11));
    image.setWord(40, BigInt(l1));
    image.setWord(32, BigInt(entries));
    let told = 0;
    const result = await checkQcow2(image.storage, { onFinding: () => told++ });
    expect(result.findings).toHaveLength(16_384);
    expect(result.findingsDropped + result.findings.length).toBeGreaterThanOrEqual(entries);
    expect(result.corruptions).toBeGreaterThanOrEqual(entries);
    expect(told).toBe(result.findingsDropped + result.findings.length);
  });

  test("findings that quote long names are kept up to 4 MiB of text", async () => {
    const image = await MappedImage.make({ size: 64 * MiB });
    const [count, name] = [60, 65_000];
    const table = new Uint8Array(count * (56 + name));
    for (let index = 0; index < count; index++) {
      const view = new DataView(table.buffer, index * (56 + name), 56 + name);
      // A misplaced L1 table, and a name that each line about it quotes.
      view.setBigUint64(0, 7n);
      view.setUint32(8, 1);
      view.setUint16(14, name);
      view.setUint32(36, 16);
      table.fill(0x61, index * (56 + name) + 56, (index + 1) * (56 + name));
    }
    const at = image.storage.size();
    image.write(at, table);
    image.setWord(56, (1n << 32n) | BigInt(count));
    image.setWord(64, BigInt(at));
    const result = await checkQcow2(image.storage);
    const text = result.findings.reduce((sum, { message }) => sum + message.length, 0);
    expect(result.corruptions).toBeGreaterThanOrEqual(count);
    expect(text).toBeLessThanOrEqual(4 * MiB + name + 200);
  });

  test("a snapshot table with more than 4 MiB of names is refused by check and repair, which change nothing", async () => {
    const image = await MappedImage.make({ size: 64 * MiB });
    const entry = new Uint8Array(65_536);
    new DataView(entry.buffer).setUint16(14, 65_535 - 40);
    const at = image.storage.size();
    for (let index = 0; index < 66; index++) image.write(at + index * entry.length, entry);
    image.setWord(64, BigInt(at));
    image.setWord(56, (1n << 32n) | 66n);
    const before = image.storage.bytes();
    for (const repair of [undefined, "all"] as const)
      await expect(checkQcow2(image.storage, repair === undefined ? {} : { repair })).rejects.toMatchObject({
        code: "QCOW2_SNAPSHOT_TABLE",
      });
    // Compared at once: an assertion on megabytes takes a minute.
    expect(Buffer.compare(image.storage.bytes(), before)).toBe(0);
  });

  test("a sparse file of 100 TiB costs no more than what is in it", async () => {
    const image = await MappedImage.make({ size: 64 * MiB });
    image.truncate(100 * TiB);
    image.setL2(5, BigInt(90 * TiB) | COPIED);
    const result = await checkQcow2(image.storage);
    expect(result.findings.map(({ message }) => message)).toEqual([
      `ERROR cluster ${(90 * TiB) / (64 * KiB)} refcount=0 reference=1`,
      expect.stringContaining("OFLAG_COPIED"),
    ]);
  });

  test("a million bad write pointers are counted, mended and told within bounds", async () => {
    const zones = 2 ** 20;
    const zone = { mode: "host-managed", size: 64 * KiB } as const;
    const image = await MappedImage.make({ size: zones * 64 * KiB, zone }, 0);
    const table = image.header.zoned?.tableOffset ?? expect.unreachable();
    image.write(table, new Uint8Array(zones * 8).fill(0x55));
    const found = await checkQcow2(image.storage);
    expect(found).toMatchObject({ corruptions: zones, corruptionsFixed: 0 });
    expect(found.findings.length + found.findingsDropped).toBe(zones);
    expect(found.findings.length).toBeLessThan(zones / 8);
    expect(await checkQcow2(image.storage, { repair: "all" })).toMatchObject({
      corruptions: 0,
      corruptionsFixed: zones,
    });
  });

  test("a file of more than 2^31 clusters is not checked", async () => {
    const image = await MappedImage.make({ size: 64 * MiB });
    image.truncate(129 * TiB);
    expect(await checkQcow2(image.storage)).toMatchObject({ failure: "File too large", checkErrors: 1 });
  });

  test("clusters scattered over a sparse file are refused before they fill the memory", async () => {
    const image = await MappedImage.make({ size: 4096 * MiB, clusterSize: 2 * MiB }, 0);
    image.truncate(2 ** 51);
    for (let index = 0; index < 50_000; index++) image.setL2(index, BigInt(index + 1) << 34n);
    await expect(checkQcow2(image.storage)).rejects.toMatchObject({ code: "CHECK_LIMIT" });
    for (const repair of ["leaks", "all"] as const) {
      const recording = recordingStorage(image.storage);
      await expect(checkQcow2(recording, { repair })).rejects.toMatchObject({ code: "CHECK_LIMIT" });
      expect(recording.changes).toEqual([]);
    }
  });

  test("a repair that would have to copy more than it may says so, and leaves all that can be read to readers", async () => {
    const clusterSize = 2 * MiB;
    const image = await MappedImage.make({ size: 1024 * MiB, clusterSize, refcountBits: 1 }, 1);
    // Counts of one bit cannot share a cluster.
    for (let index = 1; index < 200; index++) image.setL2(index, image.l2(0));
    const data = image.read(image.firstData * clusterSize, clusterSize);
    await expect(checkQcow2(image.storage, { repair: "all" })).rejects.toMatchObject({
      code: "CHECK_LIMIT",
      message: expect.stringContaining("The repair would make the file"),
    });
    const device = await openQcow2(borrowedStorage(image.storage), { readOnly: true });
    const bytes = new Uint8Array(clusterSize);
    for (const index of [0, 1, 150, 199]) {
      await device.read(index * clusterSize, bytes);
      expect(Buffer.compare(bytes, data), `cluster ${index}`).toBe(0);
    }
    await device.close();
    // Half of a repair is no reason to let anybody write.
    await expect(openQcow2(borrowedStorage(image.storage))).rejects.toMatchObject({ code: "QCOW2_MARKED_CORRUPT" });
  });

  test("L2 tables in the holes of a sparse file are refused before they take for ever to read", async () => {
    const image = await MappedImage.make({ size: 64 * MiB });
    const entries = 2 ** 16;
    const l1 = image.storage.size();
    const table = new Uint8Array(entries * 8);
    const view = new DataView(table.buffer);
    for (let index = 0; index < entries; index++) view.setBigUint64(index * 8, BigInt(MiB * 64 + index * 64 * KiB));
    image.write(l1, table);
    image.truncate(MiB * 64 + entries * 64 * KiB);
    image.setWord(40, BigInt(l1));
    image.setWord(32, BigInt(entries));
    await expect(checkQcow2(image.storage)).rejects.toMatchObject({ code: "CHECK_LIMIT" });
  });

  test("a million refcount table entries for one block end in a rebuild report, not in a hang", async () => {
    const image = await MappedImage.make({ size: 64 * MiB });
    const clusters = (8 * MiB) / (64 * KiB);
    const table = new Uint8Array(8 * MiB);
    const block = image.word(image.header.refcountTableOffset);
    const view = new DataView(table.buffer);
    for (let at = 0; at < table.length; at += 8) view.setBigUint64(at, block);
    const offset = image.storage.size();
    image.write(offset, table);
    image.setWord(48, BigInt(offset));
    image.setWord(56, BigInt(clusters) << 32n);
    const result = await checkQcow2(image.storage);
    expect(result.corruptions).toBeGreaterThanOrEqual(2 ** 20 - 1);
  });

  test("any byte of metadata may change: the check ends, or refuses with an error of its own", async () => {
    const random = new Random(seedFromEnvironment(20_261_122));
    const image = await MappedImage.make({ size: 64 * MiB, clusterSize: 512 });
    const pristine = image.storage.bytes();
    for (let round = 0; round < 1500; round++) {
      const bytes = pristine.slice();
      for (let change = random.between(1, 4); change > 0; change--) {
        const at = random.below(random.pick([112, bytes.length]));
        bytes[at] = random.chance(0.5) ? random.below(256) : (bytes[at] as number) ^ (1 << random.below(8));
      }
      const repair = random.pick([undefined, "leaks", "all"] as const);
      const storage = memoryStorage(bytes);
      try {
        await checkQcow2(storage, repair === undefined ? {} : { repair });
      } catch (error) {
        expect(isZcowError(error), `seed ${random.seed} round ${round}: ${String(error)}`).toBe(true);
      }
    }
  });
});
