import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { isZcowError } from "../../src/base/errors.js";
import { checkQcow2 } from "../../src/formats/qcow2/check/check.js";
import { checkExitCode } from "../../src/formats/qcow2/check/check-result.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { describeWithStock, qemuImg, qemuIo, temporaryDirectory } from "../support/stock-tools.js";

const ROUNDS = Number(process.env["ZCOW_FUZZ_ROUNDS"] ?? 60);
const OFFSET = (1n << 56n) - 512n;

/** A run of metadata in the file: where mutations hurt. `word`: bytes that belong together. */
interface Target {
  readonly at: number;
  readonly length: number;
  readonly word: 1 | 8;
}

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

/** Named several times, a target is hit more often. */
function repeated(times: number, target: Target): Target[] {
  return Array.from({ length: times }, () => target);
}

function targetsOf(bytes: Uint8Array): Target[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const clusterSize = 2 ** view.getUint32(20);
  const l1 = Number(view.getBigUint64(40));
  const reftable = Number(view.getBigUint64(48));
  const targets: Target[] = [
    { at: l1, length: view.getUint32(36) * 8, word: 8 },
    { at: reftable, length: 64, word: 8 },
    { at: 36, length: 36, word: 1 },
  ];
  for (let index = 0; index < view.getUint32(36); index++) {
    const table = Number(view.getBigUint64(l1 + index * 8) & OFFSET);
    if (table > 0) targets.push(...repeated(4, { at: table, length: Math.min(clusterSize, 512), word: 8 }));
  }
  for (let index = 0; index < 8; index++) {
    const block = Number(view.getBigUint64(reftable + index * 8));
    if (block > 0) targets.push(...repeated(3, { at: block, length: 64, word: 1 }));
  }
  if (view.getUint32(60) > 0) targets.push({ at: Number(view.getBigUint64(64)), length: 80, word: 1 });
  return targets.filter(({ at, length }) => at + length + 8 <= bytes.length);
}

function mutate(bytes: Uint8Array, targets: readonly Target[], random: Random): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const { at: base, length, word } = random.pick(targets);
  const at = base + random.below(length / word) * word;
  if (word === 1 || random.chance(0.2)) {
    bytes[at] = random.chance(0.5) ? random.below(256) : (bytes[at] as number) ^ (1 << random.below(8));
    return;
  }
  const other = random.pick(targets.filter((target) => target.word === 8));
  const values = [
    (): bigint => view.getBigUint64(at) ^ (1n << BigInt(random.below(64))),
    (): bigint => view.getBigUint64(other.at + random.below(other.length / 8) * 8),
    (): bigint => BigInt(random.below(bytes.length)) | (BigInt(random.below(4)) << 62n),
    (): bigint => 0n,
  ];
  view.setBigUint64(at, random.pick(values)());
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
      const targets = targetsOf(bytes);
      for (let count = random.pick([1, 1, 1, 2, 3]); count > 0; count--) mutate(bytes, targets, random);
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
