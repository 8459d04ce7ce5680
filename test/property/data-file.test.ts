import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { it } from "vitest";
import { parseCreateOptions } from "../../src/formats/qcow2/create-options-parse.js";
import { createImage, parseSize } from "../../src/index.js";
import { Random, seedFromEnvironment, taggedBytes } from "../support/random.js";
import { LiveBytes, SECTOR } from "../support/sector-history.js";
import { describeWithStock, qemuImg, temporaryDirectory } from "../support/stock-tools.js";
import { expectOurReading, expectStockReading, stockWrites, succeed, weWrite } from "../support/writers-in-turn.js";

/** An image whose data is in another file, made by either, written by zcow and by stock qemu-io in turn. */

const KIB = 1024;
const SIZE = 3000 * KIB + SECTOR;
const ROUNDS = 3;
const OUR_STEPS = 60;
const STOCK_STEPS = 30;

const VARIANTS = [
  { options: "cluster_size=64k" },
  { options: "cluster_size=4k,lazy_refcounts=on" },
  { options: "cluster_size=512,refcount_bits=1" },
  { options: "cluster_size=64k,extended_l2=on" },
  { options: "cluster_size=64k,preallocation=metadata" },
  { options: "cluster_size=4k,data_file_raw=on" },
  { options: "cluster_size=64k,data_file_raw=on" },
  { options: "cluster_size=16k,extended_l2=on,data_file_raw=on" },
  { options: "cluster_size=16k", hasBacking: true },
];

describeWithStock("an image with an external data file, written by zcow and by stock qemu-io in turn", () => {
  const seed = seedFromEnvironment(0xda7a);

  for (const maker of ["zcow", "qemu-img"]) {
    it.each(VARIANTS)(`stays clean and equal to its shadow (made by ${maker}, $options)`, async (variant) => {
      const { options, hasBacking = false } = variant;
      const directory = temporaryDirectory();
      const [path, data, base] = [join(directory, "image"), join(directory, "data"), join(directory, "base")];
      const clusterSize = parseSize(/cluster_size=(\w+)/.exec(options)?.[1] ?? "") ?? 0;
      const random = new Random(seed);
      const history = new LiveBytes(SIZE);
      const list = [`data_file=${data}`, options];
      if (hasBacking) {
        const behind = taggedBytes(7, 0, 1000 * KIB);
        await writeFile(base, behind);
        history.live.set(behind);
        list.push(`backing_file=${base},backing_fmt=raw`);
      }
      if (maker === "zcow") await createImage(path, { format: "qcow2", ...parseCreateOptions(list), size: SIZE });
      else await succeed(qemuImg(["create", "-q", "-f", "qcow2", "-o", list.join(","), path, String(SIZE)]));
      const rawData = options.includes("data_file_raw") ? data : undefined;
      const image = { path, history, clusterSize, discards: "none" } as const;
      for (let round = 0; round < ROUNDS; round++) {
        await weWrite(image, random, OUR_STEPS);
        await expectStockReading(image, rawData);
        await stockWrites(image, random, STOCK_STEPS);
      }
      await expectOurReading(image, random);
    });
  }
});
