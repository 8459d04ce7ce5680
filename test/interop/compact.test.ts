import { stat } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { compactImage } from "../../src/index.js";
import {
  describeWithStock,
  expectCleanCheck,
  expectSameContents,
  qemuImg,
  qemuIo,
  temporaryDirectory,
} from "../support/stock-tools.js";

async function stock(args: readonly string[]): Promise<void> {
  const { code, stderr } = await qemuImg(args);
  if (code !== 0) throw new Error(`qemu-img ${args.join(" ")}: ${stderr}`);
}

/** An image of the stock tool with bitmaps, a snapshot, compressed clusters, and holes in the file. */
async function stockImage(path: string, options: string): Promise<void> {
  await stock(["create", "-q", "-f", "qcow2", "-o", options, path, "48M"]);
  await stock(["bitmap", "--add", "-g", "4096", path, "fine"]);
  const io = async (...commands: string[]): Promise<void> => {
    const { code, stdout } = await qemuIo([...commands.flatMap((command) => ["-c", command]), path]);
    if (code !== 0) throw new Error(stdout);
  };
  await io("write -P 1 0 4M", "write -P 2 4M 4M", "write -P 3 8M 1M");
  await stock(["snapshot", "-c", "one", path]);
  await io("write -P 4 2M 1M", "write -c -P 5 20M 1M", "discard 4M 3M");
  await stock(["snapshot", "-c", "two", path]);
  await stock(["snapshot", "-d", "one", path]);
  await io("write -P 6 20M 64k", "discard 0 1M");
}

describeWithStock("a stock image compacted by zcow", () => {
  it.each([
    "cluster_size=4k",
    "extended_l2=on",
    "cluster_size=2k,refcount_bits=8",
    "compat=1.1,cluster_size=64k,lazy_refcounts=on",
  ])("is shorter, sound for the stock tool, and holds the same: %s", async (options) => {
    const path = join(temporaryDirectory(), "image.qcow2");
    await stockImage(path, options);
    const before = await keep(path, "before");
    const result = await compactImage(path, { format: "qcow2" });
    expect(result.clustersMoved).toBeGreaterThan(0);
    expect(result.kept).toEqual([]);
    expect((await stat(path)).size).toBe(result.bytesAfter);
    expect(result.bytesAfter).toBeLessThan(result.bytesBefore * 0.8);
    await expectCleanCheck(path);
    const after = await keep(path, "after");
    for (const [index, file] of before.entries()) await expectSameContents(file, "raw", after[index] ?? "", "raw");
    await stock(["bitmap", "--enable", path, "fine"]);
    await expectCleanCheck(path);
  });
});

/** The disk and the snapshot as raw files. */
async function keep(path: string, name: string): Promise<string[]> {
  const [disk, snapshot] = [`${path}.${name}.raw`, `${path}.${name}.snapshot.raw`];
  await stock(["convert", "-O", "raw", path, disk]);
  await stock(["convert", "-O", "raw", "-l", "snapshot.name=two", path, snapshot]);
  return [disk, snapshot];
}
