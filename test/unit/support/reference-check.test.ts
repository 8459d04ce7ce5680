import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { Random, seedFromEnvironment } from "../../support/random.js";
import { referenceCheck } from "../../support/reference-check.js";
import { ReferenceImage } from "../../support/reference-image.js";
import { describeWithStock, qemuImg, qemuIo, temporaryDirectory } from "../../support/stock-tools.js";

/** The judge of the crash tests is itself judged here, against the stock tools. */

const MIB = 1024 * 1024;

const VARIANTS = [
  { clusterSize: 512, options: "cluster_size=512" },
  { clusterSize: 4096, options: "cluster_size=4096,refcount_bits=1" },
  { clusterSize: 65536, options: "cluster_size=65536,refcount_bits=64" },
  { clusterSize: 4096, options: "cluster_size=4096,compat=0.10" },
];

async function stockImage(path: string, options: string, random: Random): Promise<void> {
  await qemuImg(["create", "-q", "-f", "qcow2", "-o", options, path, "1M"]);
  const commands: string[] = [];
  for (let i = 0; i < 40; i++) {
    const offset = random.below(MIB / 512) * 512;
    const length = Math.min(random.between(1, 40) * 512, MIB - offset);
    const kind = random.weighted({ write: 6, zero: 2, discard: 1 });
    if (kind === "write") commands.push("-c", `write -P ${random.between(1, 255)} ${offset} ${length}`);
    else if (kind === "zero") commands.push("-c", `write -z ${random.chance(0.5) ? "-u" : ""} ${offset} ${length}`);
    else commands.push("-c", `discard ${offset} ${length}`);
  }
  await qemuIo(["-d", "unmap", "-f", "qcow2", ...commands, path]);
}

describeWithStock("the reference reader", () => {
  const seed = seedFromEnvironment(20_261_122);

  it.each(VARIANTS)("reads what stock qemu-io wrote and finds it clean ($options)", async ({ options }) => {
    const path = join(temporaryDirectory(), "image.qcow2");
    await stockImage(path, options, new Random(seed));
    const raw = `${path}.raw`;
    await qemuImg(["convert", "-f", "qcow2", "-O", "raw", path, raw]);
    const bytes = await readFile(path);
    const guest = new ReferenceImage(bytes).readGuest(0, MIB);
    expect(Buffer.compare(guest, await readFile(raw)), `seed ${seed}`).toBe(0);
    expect(referenceCheck(bytes)).toEqual({ corruptions: [], leaks: [], dirty: false });
  });

  it.each(VARIANTS)("agrees with qemu-img check on damaged tables ($options)", async ({ options, clusterSize }) => {
    const directory = temporaryDirectory();
    const path = join(directory, "image.qcow2");
    const random = new Random(seed + 1);
    await stockImage(path, options, random);
    const good = await readFile(path);
    const image = new ReferenceImage(good);
    const firstTable = Number(image.l1Entry(0) & 0x00ff_ffff_ffff_fe00n);
    const inFirstTable = Math.min(clusterSize / 8, MIB / clusterSize);
    const allocated = Array.from({ length: inFirstTable }, (_, i) => i).filter(
      (i) => image.mappingAt(i * image.clusterSize).hostOffset !== 0,
    );
    for (let round = 0; round < 12; round++) {
      const bad = Buffer.from(good);
      const kind = random.pick(["refcount", "l2", "l2-copied"] as const);
      if (kind === "refcount") {
        const at = image.refcountBlockOffset(0) + random.below(8);
        bad[at] = (bad[at] as number) ^ (1 << random.below(2));
      } else {
        const at = firstTable + random.pick(allocated) * 8;
        const flip = kind === "l2-copied" ? 1n << 63n : BigInt(clusterSize);
        bad.writeBigUInt64BE(bad.readBigUInt64BE(at) ^ flip, at);
      }
      const damaged = join(directory, `damaged-${round}.qcow2`);
      await writeFile(damaged, bad);
      const stock = await qemuImg(["check", "-f", "qcow2", "--output", "json", damaged]);
      const verdict = referenceCheck(bad);
      const report = JSON.parse(stock.stdout) as { corruptions?: number; leaks?: number };
      const message = `round ${round} (${kind}), seed ${seed}: ${JSON.stringify(verdict)} against ${stock.stdout}`;
      expect(verdict.corruptions.length > 0, message).toBe((report.corruptions ?? 0) > 0);
      if (verdict.corruptions.length === 0) expect(verdict.leaks.length > 0, message).toBe((report.leaks ?? 0) > 0);
    }
  });
});
