import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { parseCreateOptions } from "../../src/formats/qcow2/create-options-parse.js";
import { createImage, openImage, parseSize } from "../../src/index.js";
import { PlainWorkload } from "../support/plain-workload.js";
import { Random, seedFromEnvironment, taggedBytes } from "../support/random.js";
import { equalBytes, LiveBytes, SECTOR } from "../support/sector-history.js";
import {
  describeWithStock,
  expectCleanCheck,
  expectSameContents,
  qemuImg,
  qemuIo,
  temporaryDirectory,
} from "../support/stock-tools.js";

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

function stockCommands(random: Random, live: Uint8Array): string[] {
  const commands: string[] = [];
  for (let i = 0; i < STOCK_STEPS; i++) {
    const offset = random.below(live.length / SECTOR) * SECTOR;
    const length = Math.min(random.pick([1, 3, 16, 130, 300]) * SECTOR, live.length - offset);
    if (random.chance(0.7)) {
      const pattern = random.between(1, 255);
      live.fill(pattern, offset, offset + length);
      commands.push("-c", `write -q -P ${pattern} ${offset} ${length}`);
    } else {
      live.fill(0, offset, offset + length);
      commands.push("-c", `write -q -z ${random.chance(0.5) ? "-u" : ""} ${offset} ${length}`);
    }
  }
  return commands;
}

async function succeed(run: Promise<{ code: number; stdout: string; stderr: string }>): Promise<void> {
  const { code, stdout, stderr } = await run;
  expect(code, `${stdout}${stderr}`).toBe(0);
}

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
      const shadow = join(directory, "shadow");
      for (let round = 0; round < ROUNDS; round++) {
        const device = await openImage(path, { format: "qcow2", implicitFiles: "allow" });
        const workload = new PlainWorkload({
          random,
          device,
          history,
          position: () => 0,
          clusterSize,
          unaligned: true,
        });
        await workload.verify();
        await workload.run(OUR_STEPS);
        await workload.verify();
        await device.close();
        await expectCleanCheck(path);
        await writeFile(shadow, history.live);
        await expectSameContents(path, "qcow2", shadow, "raw");
        if (options.includes("data_file_raw")) {
          expect(equalBytes((await readFile(data)).subarray(0, SIZE), history.live), "the data file is the disk").toBe(
            true,
          );
        }
        await succeed(qemuIo(["-d", "unmap", "-f", "qcow2", ...stockCommands(random, history.live), path]));
      }
      const last = await openImage(path, { format: "qcow2", readOnly: true, implicitFiles: "allow" });
      await new PlainWorkload({ random, device: last, history, position: () => 0, clusterSize }).verify();
      await last.close();
    });
  }
});
