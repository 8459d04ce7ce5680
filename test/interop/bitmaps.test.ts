import { join } from "node:path";
import { expect, test } from "vitest";
import { createImage } from "../../src/formats/create-image.js";
import { openImage } from "../../src/formats/open-image.js";
import { changeBitmap, readBitmap } from "../../src/jobs/bitmap.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { describeWithStock, expectCleanCheck, qemuImg, qemuIo, temporaryDirectory } from "../support/stock-tools.js";

const SIZE = 4 * 1024 * 1024;

async function stock(...args: readonly string[]): Promise<void> {
  const result = await qemuImg(args);
  expect(result.stderr).toBe("");
}

describeWithStock("persistent bitmaps", () => {
  test.each([
    { clusterSize: 512, granularity: 512 },
    { clusterSize: 4096, granularity: 65_536 },
    { clusterSize: 65_536, granularity: undefined },
    { clusterSize: 2 ** 21, granularity: 2 ** 31 },
  ])("are kept by both programs in turns: $clusterSize, $granularity", async ({ clusterSize, granularity }) => {
    const random = new Random(seedFromEnvironment(1));
    const path = join(temporaryDirectory(), "disk.qcow2");
    await createImage(path, { format: "qcow2", size: SIZE, clusterSize });
    const size = granularity === undefined ? [] : ["-g", String(granularity)];
    await stock("bitmap", "--add", ...size, path, "theirs");
    await changeBitmap(path, { format: "qcow2", name: "ours", actions: [{ do: "add", granularity }] });
    const unit = granularity ?? 65_536;
    const model = new Set<number>();
    for (let turn = 0; turn < 4; turn++) {
      const device = turn % 2 === 0 ? await openImage(path, { format: "qcow2" }) : undefined;
      const commands: string[] = [];
      for (let write = 0; write < 6; write++) {
        const offset = random.below(SIZE - 1);
        const length = random.between(1, Math.min(100_000, SIZE - offset));
        if (device === undefined) commands.push("-c", `write -q -P 7 ${offset} ${length}`);
        else await device.write(offset, new Uint8Array(length).fill(7));
        for (let at = Math.floor(offset / unit); at * unit < offset + length; at++) model.add(at);
      }
      await device?.close();
      if (device === undefined) await qemuIo(["-f", "qcow2", ...commands, path]);
      await expectCleanCheck(path);
    }
    const marked: number[] = [];
    for (const name of ["theirs", "ours"]) {
      const bits = await readBitmap(path, { format: "qcow2", name });
      for (const { offset, length } of bits.ranges()) {
        for (let at = offset / unit; at * unit < offset + length; at++) marked.push(at);
      }
      expect(marked.splice(0)).toEqual([...model].toSorted((a, b) => a - b));
    }
  });

  test("are merged by the stock tool into what zcow merges them to", async () => {
    const path = join(temporaryDirectory(), "disk.qcow2");
    await createImage(path, { format: "qcow2", size: SIZE });
    await stock("bitmap", "--add", "-g", "512", path, "fine");
    const device = await openImage(path, { format: "qcow2" });
    await device.write(1_000_000, new Uint8Array(1000));
    await device.close();
    await stock("bitmap", "--add", path, "theirs");
    await stock("bitmap", "--merge", "fine", path, "theirs");
    const actions = [{ do: "add" }, { do: "merge", from: "fine" }] as const;
    await changeBitmap(path, { format: "qcow2", name: "ours", actions });
    const rangesOf = async (name: string) => [...(await readBitmap(path, { format: "qcow2", name })).ranges()];
    expect(await rangesOf("ours")).toEqual(await rangesOf("theirs"));
    await stock("bitmap", "--remove", path, "ours");
    await changeBitmap(path, { format: "qcow2", name: "theirs", actions: [{ do: "remove" }] });
    await changeBitmap(path, { format: "qcow2", name: "fine", actions: [{ do: "remove" }] });
    await expectCleanCheck(path);
  });
});
