import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { openImage } from "../../src/index.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { equalBytes } from "../support/sector-history.js";
import {
  describeWithStock,
  expectCleanCheck,
  expectSameContents,
  qemuImg,
  temporaryDirectory,
} from "../support/stock-tools.js";

/** Compressed clusters written by stock tools and read by us, and the other way round. */

const KIB = 1024;

interface Variant {
  readonly clusterSize: number;
  readonly options: string;
}

const VARIANTS: readonly Variant[] = (
  [
    [512, [1, 64]],
    [4 * KIB, [2, 32]],
    [64 * KIB, [4, 16]],
    [2048 * KIB, [8]],
  ] as const
).flatMap(([clusterSize, widths]) =>
  ["zlib", "zstd"].flatMap((type) =>
    widths.map((bits) => ({
      clusterSize,
      options: `cluster_size=${clusterSize},refcount_bits=${bits},compression_type=${type}`,
    })),
  ),
);

/** Clusters of every kind: zeros, text-like, noise that does not shrink, and in between; the last one is short. */
function mixedDisk(random: Random, clusterSize: number): Uint8Array {
  const clusters = clusterSize > 64 * KIB ? 5 : 24;
  const disk = new Uint8Array(clusters * clusterSize + Math.max(512, clusterSize / 4));
  for (let at = 0; at < disk.length; at += clusterSize) {
    const cluster = disk.subarray(at, at + clusterSize);
    const values = random.pick([1, 2, 3, 40, 200, 256]);
    const repeat = random.pick([1, 7, 300]);
    if (values > 1) for (let i = 0; i < 4096; i++) cluster[i] = i % repeat === 0 ? random.below(values) : 7;
    // Far enough back that it is found again by zstd only.
    for (let i = 4096; i < cluster.length; i += i) cluster.copyWithin(i, 0, i);
    if (values === 256) cluster[random.below(cluster.length)] = 0;
  }
  return disk;
}

async function createStock(path: string, options: string, size: number): Promise<void> {
  const made = await qemuImg(["create", "-q", "-f", "qcow2", "-o", options, path, String(size)]);
  expect(made.stderr).toBe("");
}

describeWithStock("compressed images", () => {
  const seed = seedFromEnvironment(0xc0);

  it.each(VARIANTS)("by stock convert -c are read: $options", async ({ options, clusterSize }) => {
    const folder = temporaryDirectory();
    const disk = mixedDisk(new Random(seed), clusterSize);
    const [raw, path] = [join(folder, "disk.raw"), join(folder, "disk.qcow2")];
    writeFileSync(raw, disk);
    const made = await qemuImg(["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, path]);
    expect(made.stderr).toBe("");
    const device = await openImage(path, { format: "qcow2", readOnly: true });
    const bytes = new Uint8Array(disk.length);
    await device.read(0, bytes);
    expect(equalBytes(bytes, disk)).toBe(true);
    const random = new Random(seed);
    for (let i = 0; i < 50; i++) {
      const offset = random.below(disk.length);
      const part = new Uint8Array(random.between(1, Math.min(disk.length - offset, 3 * clusterSize)));
      await device.read(offset, part);
      expect(equalBytes(part, disk.subarray(offset, offset + part.length)), `at ${offset}`).toBe(true);
    }
    let compressed = 0;
    for await (const extent of device.extents(0, disk.length)) {
      if (!extent.compressed) continue;
      compressed += extent.length;
      expect(extent).toMatchObject({ kind: "data", hostOffset: undefined });
    }
    expect(compressed).toBeGreaterThan(0);
    await device.close();
  });

  it.each(VARIANTS)("by us are clean and equal for stock tools: $options", async ({ options, clusterSize }) => {
    const folder = temporaryDirectory();
    const disk = mixedDisk(new Random(seed), clusterSize);
    const [raw, path] = [join(folder, "disk.raw"), join(folder, "disk.qcow2")];
    writeFileSync(raw, disk);
    await createStock(path, options, disk.length);
    const device = await openImage(path, { format: "qcow2" });
    const part = 7 * clusterSize;
    for (let at = 0; at < disk.length; at += part) await device.writeCompressed(at, disk.subarray(at, at + part));
    await device.close();
    await expectCleanCheck(path);
    await expectSameContents(path, "qcow2", raw, "raw");
    const json = JSON.parse((await qemuImg(["check", "--output", "json", path])).stdout) as Record<string, number>;
    expect(json["compressed-clusters"]).toBeGreaterThan(2);
  });
});
