import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openImage } from "../../src/index.js";
import { mapImage } from "../../src/jobs/map.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { describeWithStock, expectSameContents, qemuImg, qemuIo, temporaryDirectory } from "../support/stock-tools.js";

/** Images with extended L2 entries that the stock tools wrote: every byte and every extent as they see them. */

const KIB = 1024;

/** Random qemu-io commands that leave subclusters of every state behind. */
function stockCommands(random: Random, size: number, clusterSize: number): string[] {
  const subcluster = clusterSize / 32;
  return Array.from({ length: 120 }, () => {
    const unit = random.pick([512, subcluster, clusterSize]);
    const offset = random.below(Math.floor(size / unit)) * unit;
    const length = Math.min(random.between(1, 40) * random.pick([512, subcluster, subcluster * 3]), size - offset);
    const kind = random.weighted({ write: 6, zero: 3, unmap: 1, discard: 2 });
    if (kind === "write") return `write -q -P ${random.between(1, 255)} ${offset} ${length}`;
    if (kind === "discard") {
      const first = Math.floor(offset / clusterSize) * clusterSize;
      return `discard -q ${first} ${Math.min(clusterSize * random.between(1, 3), size - first)}`;
    }
    return `write -q -z ${kind === "unmap" ? "-u" : ""} ${offset} ${length}`;
  }).flatMap((command) => ["-c", command]);
}

async function stockMap(path: string): Promise<unknown> {
  const { stdout } = await qemuImg(["map", "-f", "qcow2", "--output=json", path]);
  return JSON.parse(stdout);
}

async function ourMap(path: string): Promise<unknown> {
  const device = await openImage(path, { format: "qcow2", readOnly: true });
  const entries: unknown[] = [];
  for await (const entry of mapImage(device)) {
    const { offset, file: _file, ...rest } = entry;
    entries.push(offset === undefined ? rest : { ...rest, offset });
  }
  await device.close();
  return entries;
}

async function expectSameDisk(path: string): Promise<void> {
  const device = await openImage(path, { format: "qcow2", readOnly: true });
  const bytes = new Uint8Array(device.size);
  await device.read(0, bytes);
  const raw = `${path}.raw`;
  await writeFile(raw, bytes);
  await expectSameContents(path, "qcow2", raw, "raw");
  // Small reads take another way than large ones.
  const piece = new Uint8Array(4 * KIB);
  for (let at = 0; at + piece.length <= device.size; at += 3.5 * KIB) {
    await device.read(at, piece);
    expect(Buffer.compare(piece, bytes.subarray(at, at + piece.length)), `4 KiB at ${at}`).toBe(0);
  }
  await device.close();
}

describeWithStock("an image with extended L2 entries that stock qemu-io wrote", () => {
  const seed = seedFromEnvironment(0x5c);

  test.each([
    ["cluster_size=16k", 16 * KIB, 2048 * KIB],
    ["cluster_size=64k", 64 * KIB, 8192 * KIB + 512],
    ["cluster_size=64k,preallocation=metadata", 64 * KIB, 4096 * KIB],
    ["cluster_size=128k,preallocation=falloc,refcount_bits=1", 128 * KIB, 4096 * KIB],
    ["cluster_size=2M,refcount_bits=64", 2048 * KIB, 16_384 * KIB + 4096],
  ])("reads and maps alike (%s)", async (options, clusterSize, size) => {
    const path = join(temporaryDirectory(), "image.qcow2");
    const random = new Random(seed);
    await qemuImg(["create", "-q", "-f", "qcow2", "-o", `extended_l2=on,${options}`, path, String(size)]);
    expect(await ourMap(path)).toEqual(await stockMap(path));
    await expectSameDisk(path);
    for (let round = 0; round < 3; round++) {
      const io = await qemuIo(["-d", "unmap", "-f", "qcow2", ...stockCommands(random, size, clusterSize), path]);
      expect(io.code, io.stdout + io.stderr).toBe(0);
      expect(await ourMap(path), `seed ${seed}`).toEqual(await stockMap(path));
      await expectSameDisk(path);
    }
  });
});
