import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { isZcowError } from "../../src/base/errors.js";
import { KiB, MiB } from "../../src/base/units.js";
import { checkQcow2 } from "../../src/formats/qcow2/check/check.js";
import { type CheckResult, checkExitCode } from "../../src/formats/qcow2/check/check-result.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { borrowedStorage } from "../../src/storage/borrowed-storage.js";
import { type MemoryStorage, memoryStorage } from "../../src/storage/memory-storage.js";
import { damageOne, damageTargets } from "../support/metadata-damage.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { lostPieces, type ReadableData, readableData } from "../support/readable-data.js";
import { describeWithStock, qemuImg, qemuIo, temporaryDirectory } from "../support/stock-tools.js";

const ROUNDS = Number(process.env["ZCOW_FUZZ_ROUNDS"] ?? 40);
const PIECE = 4 * KiB;

interface Subject {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly good: ReadableData;
  readonly dataFile?: Uint8Array;
}

/** An image as the stock tools leave it. Steps that begin with `write` or `discard` are of qemu-io. */
async function subject(options: string, ...steps: string[]): Promise<Subject> {
  const folder = temporaryDirectory();
  const path = join(folder, "image.qcow2");
  const data = join(folder, "data.raw");
  const hasDataFile = options.includes("data_file");
  const run = async (args: string[]): Promise<void> => {
    const result = await qemuImg(args);
    expect(result.code, result.stderr).toBe(0);
  };
  const given = options.replace("data_file=", `data_file=${folder}/`);
  await run(["create", "-q", "-f", "qcow2", ...(given === "" ? [] : ["-o", given]), path, "2M"]);
  for (const step of ["write -P 1 0 300k", "write -z 1M 100k", ...steps]) {
    if (/^(write|discard)/.test(step)) expect((await qemuIo(["-c", step, path])).code).toBe(0);
    else await run(step.replace("IMAGE", path).split(" "));
  }
  const bytes = new Uint8Array(await readFile(path));
  const dataFile = hasDataFile ? new Uint8Array(await readFile(data)) : undefined;
  const good = await read(bytes, dataFile);
  if (good === undefined) throw new Error(`${options}: cannot be read`);
  return { name: `${options} ${steps.join(", ")}`, bytes, good, ...(dataFile === undefined ? {} : { dataFile }) };
}

const read = (bytes: Uint8Array, dataFile?: Uint8Array): Promise<ReadableData | undefined> =>
  readableData(bytes, PIECE, dataFile === undefined ? undefined : memoryStorage(dataFile));

function subjects(): Promise<Subject[]> {
  return Promise.all([
    subject("", "snapshot -c a IMAGE", "write -P 2 100k 50k", "snapshot -c b IMAGE"),
    subject("cluster_size=512", "snapshot -c a IMAGE", "write -P 2 100k 50k"),
    ...[1, 2, 4, 8, 32, 64].map((bits) => subject(`refcount_bits=${bits},cluster_size=4k`)),
    subject("refcount_bits=2,cluster_size=4k", "snapshot -c a IMAGE", "write -P 2 100k 50k"),
    subject("compat=0.10,cluster_size=4k", "snapshot -c a IMAGE", "write -P 3 0 128k"),
    subject("extended_l2=on,cluster_size=16k", "snapshot -c a IMAGE", "write -P 4 4k 20k"),
    subject("cluster_size=4k", "write -c -P 5 1M 4k", "write -c -P 6 1028k 4k", "snapshot -c a IMAGE", "write 0 30k"),
    subject("cluster_size=4k", "bitmap --add IMAGE one", "bitmap --add -g 4096 IMAGE two", "write -P 7 600k 30k"),
    subject("data_file=data.raw,cluster_size=4k", "write -P 7 600k 30k"),
  ]);
}

/** Faults after which nobody can tell where the data are: the L1 table or the header itself is lost. */
function isHopeless(result: CheckResult | undefined): boolean {
  return result === undefined || result.findings.some(({ message }) => message.includes("L1 table is not where"));
}

describeWithStock("repair of random damage", () => {
  test(`leaves an image that stock qemu-img calls sound, with all data that the damage spared (${ROUNDS} rounds)`, async () => {
    const random = new Random(seedFromEnvironment(1414));
    const images = await subjects();
    const path = join(temporaryDirectory(), "repaired.qcow2");
    let repaired = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const image = random.pick(images);
      const label = `seed ${random.seed} round ${round}: ${image.name}`;
      const bytes = Uint8Array.from(image.bytes);
      const targets = damageTargets(bytes);
      for (let count = random.pick([1, 1, 1, 2, 3, 6]); count > 0; count--) damageOne(bytes, targets, random);
      const before = await read(bytes, image.dataFile);
      const storage = memoryStorage(bytes);
      const result = await repair(storage);
      if (isHopeless(result)) continue;
      repaired++;
      const told = result?.findings.map(({ message }) => message).join("\n");
      expect(result === undefined ? 1 : checkExitCode(result), `${label}\n${told}`).toBe(0);
      await writeFile(path, storage.bytes());
      const stock = await qemuImg(["check", "-f", "qcow2", ...imageOptions(path, image)]);
      expect(stock.code, `${label}\n${stock.stdout}${stock.stderr}${told}`).toBe(0);
      const after = await read(storage.bytes(), image.dataFile);
      expect(after, label).toBeDefined();
      expect(lostPieces(image.good, before, after as ReadableData), `${label}\n${told}`).toEqual([]);
      await expectWritable(storage, image, `${label}\n${told}`);
    }
    expect(repaired).toBeGreaterThan(ROUNDS / 2);
  }, 600_000);
});

/** The data file keeps its name. */
function imageOptions(path: string, { dataFile }: Subject): string[] {
  return dataFile === undefined ? [path] : ["-U", path];
}

async function repair(storage: MemoryStorage): Promise<CheckResult | undefined> {
  try {
    return await checkQcow2(storage, { repair: "all" });
  } catch (error) {
    if (!isZcowError(error)) throw error;
    return undefined;
  }
}

/** All of the disk can be written and read back, and the image is sound after it. */
async function expectWritable(storage: MemoryStorage, { dataFile }: Subject, label: string): Promise<void> {
  const written = memoryStorage(storage.bytes());
  const device = await openQcow2(
    borrowedStorage(written),
    dataFile === undefined ? {} : { dataFile: memoryStorage(dataFile) },
  );
  const bytes = new Uint8Array(2 * MiB).fill(9);
  await device.write(0, bytes);
  const back = new Uint8Array(bytes.length);
  await device.read(0, back);
  expect(Buffer.compare(back, bytes), label).toBe(0);
  await device.close();
  const found = await checkQcow2(written);
  // Counts of clusters behind the end of the file are not looked at before the file has them.
  expect([0, 3], `${label}\nafter writing:\n${found.findings.map(({ message }) => message).join("\n")}`).toContain(
    checkExitCode(found),
  );
}
