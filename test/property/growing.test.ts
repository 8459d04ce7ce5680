import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { parseCreateOptions } from "../../src/formats/qcow2/create-options-parse.js";
import { changeBitmap, createImage, createSnapshot, describeImage, openImage, parseSize } from "../../src/index.js";
import { PlainWorkload } from "../support/plain-workload.js";
import { Random, seedFromEnvironment, taggedBytes } from "../support/random.js";
import { LiveBytes } from "../support/sector-history.js";
import {
  describeWithStock,
  expectCleanCheck,
  expectSameContents,
  qemuImg,
  temporaryDirectory,
} from "../support/stock-tools.js";
import { succeed } from "../support/writers-in-turn.js";

/** Disks that grow while they are written to, made by either: a plain array is the model, and the stock tools judge. */

const KIB = 1024;
const LARGEST = 5000 * KIB;
const ROUNDS = 3;
const STEPS = 40;
/** Requests stay near the end of the disk, where growing matters. */
const REACH = 400 * KIB;

const VARIANTS = [
  { options: "cluster_size=64k" },
  { options: "cluster_size=512,refcount_bits=64" },
  { options: "cluster_size=512,lazy_refcounts=on" },
  { options: "cluster_size=4k,compat=0.10" },
  { options: "cluster_size=4k,refcount_bits=1" },
  { options: "cluster_size=64k,extended_l2=on" },
  { options: "cluster_size=64k,preallocation=metadata" },
  { options: "cluster_size=16k", behind: 3000 * KIB },
  { options: "cluster_size=512,compat=0.10", behind: 700 * KIB },
  { options: "cluster_size=64k,extended_l2=on", behind: 6000 * KIB },
  { options: "cluster_size=4k", hasDataFile: true },
  { options: "cluster_size=64k,data_file_raw=on", hasDataFile: true },
  { options: "cluster_size=64k,extended_l2=on,data_file_raw=on", hasDataFile: true },
  { options: "cluster_size=512", hasExtras: true },
];

describeWithStock("a disk that grows under load", () => {
  const seed = seedFromEnvironment(0x960);

  // Others are made by the stock tool for the next seed.
  const variants = VARIANTS.map((variant, index) => ({ ...variant, byStock: (index + seed) % 2 === 1 }));

  it.each(variants)("is clean for the stock tools and equal to its shadow (%o)", async (variant) => {
    const { options, behind = 0, hasDataFile = false, hasExtras = false, byStock } = variant;
    const directory = temporaryDirectory();
    const [path, data, base, shadow] = ["image", "data", "base", "shadow"].map((name) => join(directory, name)) as [
      string,
      string,
      string,
      string,
    ];
    const clusterSize = parseSize(/cluster_size=(\w+)/.exec(options)?.[1] ?? "") ?? 0;
    const random = new Random(seed);
    const first = random.between(200, 700) * 512;
    const history = new LiveBytes(LARGEST);
    const list = [options];
    if (hasDataFile) list.push(`data_file=${data}`);
    if (behind > 0) {
      const below = taggedBytes(7, 0, behind);
      await writeFile(base, below);
      history.live.set(below.subarray(0, first));
      list.push(`backing_file=${base},backing_fmt=raw`);
    }
    if (!byStock) await createImage(path, { format: "qcow2", ...parseCreateOptions(list), size: first });
    else await succeed(qemuImg(["create", "-q", "-f", "qcow2", "-o", list.join(","), path, String(first)]));
    if (hasExtras) {
      await createSnapshot(path, { format: "qcow2", name: "first" });
      await changeBitmap(path, { format: "qcow2", name: "marks", actions: [{ do: "add", granularity: 512 }] });
    }
    let size = first;
    for (let round = 0; round < ROUNDS; round++) {
      const device = await openImage(path, { format: "qcow2", implicitFiles: "allow" });
      expect(device.size).toBe(size);
      const workload = (): PlainWorkload =>
        new PlainWorkload({
          random,
          device,
          history,
          position: () => 0,
          clusterSize,
          unaligned: true,
          from: Math.max(0, device.size - REACH),
        });
      for (let step = 0; step < 3; step++) {
        size = Math.min(LARGEST, size + random.pick([1, 2, 9, 130, 2000]) * 512);
        await Promise.all([workload().run(STEPS), device.grow?.(size)]);
        await workload().run(5);
      }
      await new PlainWorkload({ random, device, history, position: () => 0, clusterSize, to: size }).verify();
      await device.close();
      await expectCleanCheck(path);
      await writeFile(shadow, history.live.subarray(0, size));
      await expectSameContents(path, "qcow2", shadow, "raw");
      if (options.includes("data_file_raw")) await expectSameContents(data, "raw", shadow, "raw");
      if (!hasExtras) continue;
      const { snapshots } = await describeImage(path, { format: "qcow2" });
      expect(snapshots).toMatchObject([{ name: "first" }]);
    }
  });
});
