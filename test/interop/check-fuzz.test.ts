import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { isZcowError } from "../../src/base/errors.js";
import { checkQcow2 } from "../../src/formats/qcow2/check/check.js";
import { checkExitCode } from "../../src/formats/qcow2/check/check-result.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { damageOne, damageTargets } from "../support/metadata-damage.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { describeWithStock, qemuImg, qemuIo, temporaryDirectory } from "../support/stock-tools.js";

const ROUNDS = Number(process.env["ZCOW_FUZZ_ROUNDS"] ?? 60);
async function image(options: string, ...steps: string[]): Promise<Uint8Array> {
  const path = join(temporaryDirectory(), "image.qcow2");
  const run = async (args: string[]): Promise<void> => {
    const result = await qemuImg(args);
    expect(result.code, result.stderr).toBe(0);
  };
  await run(["create", "-q", "-f", "qcow2", ...(options === "" ? [] : ["-o", options]), path, "2M"]);
  const write = (command: string): ReturnType<typeof qemuIo> => qemuIo(["-c", command, path]);
  await write("write -P 1 0 300k");
  await write("write -z 1M 100k");
  for (const step of steps) {
    if (step.startsWith("snapshot")) await run([...step.split(" "), path]);
    else await write(step);
  }
  return readFile(path);
}

describeWithStock("check under random damage", () => {
  test(`says clean exactly when stock qemu-img does, and repairs to what it calls clean (${ROUNDS} rounds)`, async () => {
    const random = new Random(seedFromEnvironment(1122));
    const images = [
      await image(""),
      await image("cluster_size=512"),
      await image("refcount_bits=1"),
      await image("refcount_bits=64,cluster_size=4k"),
      await image("compat=0.10", "snapshot -c a", "write 0 128k"),
      await image("extended_l2=on,cluster_size=16k", "snapshot -c a", "write 4k 20k"),
      await image("cluster_size=4k", "write -c -P 5 1M 4k", "write -c -P 6 1028k 4k", "snapshot -c a", "write 0 30k"),
    ];
    const path = join(temporaryDirectory(), "damaged.qcow2");
    for (let round = 0; round < ROUNDS; round++) {
      const bytes = Uint8Array.from(random.pick(images));
      const targets = damageTargets(bytes);
      for (let count = random.pick([1, 1, 1, 2, 3]); count > 0; count--) damageOne(bytes, targets, random);
      await writeFile(path, bytes);
      const label = `seed ${random.seed} round ${round}`;
      const stock = (await qemuImg(["check", "-f", "qcow2", path])).code;
      const ours = await codeOf(bytes);
      expect(ours === 0, `${label}: ours ${ours}, stock ${stock}`).toBe(stock === 0);
      if (stock === 3 || ours === 3) expect(ours, label).toBe(stock);
      await expectHonestRepair(bytes, path, label);
    }
  }, 600_000);
});

async function codeOf(bytes: Uint8Array): Promise<number> {
  try {
    return checkExitCode(await checkQcow2(memoryStorage(bytes)));
  } catch (error) {
    if (!isZcowError(error)) throw error;
    return 1;
  }
}

/** What our repair calls clean, stock calls clean. */
async function expectHonestRepair(bytes: Uint8Array, path: string, label: string): Promise<void> {
  const storage = memoryStorage(bytes);
  const repaired = await checkQcow2(storage, { repair: "all" }).catch((error: unknown) => {
    if (!isZcowError(error)) throw error;
  });
  if (repaired === undefined || checkExitCode(repaired) !== 0) return;
  await writeFile(path, storage.bytes());
  const stock = await qemuImg(["check", "-f", "qcow2", path]);
  expect(stock.code, `${label}: after repair\n${stock.stdout}${stock.stderr}`).toBe(0);
}
