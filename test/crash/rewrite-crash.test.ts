import { describe, expect, it } from "vitest";
import { isZcowError } from "../../src/base/errors.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import {
  amendImage,
  applySnapshot,
  createSnapshot,
  deleteSnapshot,
  memoryStorage,
  resizeImage,
  type Storage,
} from "../../src/index.js";
import { borrowedStorage } from "../../src/storage/borrowed-storage.js";
import { type Fault, faultStorage } from "../../src/storage/fault-storage.js";
import { recordingStorage } from "../../src/storage/recording-storage.js";
import { CRASH_KINDS, crashedFile } from "../support/crash-images.js";
import { newImage } from "../support/new-image.js";
import { Random, seedFromEnvironment, taggedBytes } from "../support/random.js";
import { referenceContents, referenceCounts } from "../support/reference-snapshots.js";

/** Power cuts and failing calls while tables are rewritten: the image must be what it was or what it is to be. */

const KIB = 1024;
const qcow2 = { format: "qcow2" } as const;

const SHAPES = [
  { name: "4 KiB clusters", options: { size: 300 * KIB, clusterSize: 4096 } },
  { name: "512-byte clusters, 64-bit counts", options: { size: 100 * KIB, clusterSize: 512, refcountBits: 64 } },
  { name: "version 2", options: { size: 200 * KIB, clusterSize: 4096, compat: "0.10" } },
] as const;

/** What is done, and whether the way to it may show: then leaks and a disk between the two are allowed. */
interface Operation {
  readonly name: string;
  readonly run: (storage: Storage) => Promise<unknown>;
  readonly inSteps?: boolean;
  readonly version?: 2 | 3;
}

const OPERATIONS: readonly Operation[] = [
  { name: "taking a snapshot", run: (storage) => createSnapshot(storage, { ...qcow2, name: "new" }) },
  { name: "applying a snapshot", run: (storage) => applySnapshot(storage, { ...qcow2, snapshot: "old" }) },
  { name: "deleting a snapshot", run: (storage) => deleteSnapshot(storage, { ...qcow2, snapshot: "old" }) },
  { name: "deleting the newest", run: (storage) => deleteSnapshot(storage, { ...qcow2, snapshot: "newer" }) },
  { name: "narrower counts", run: (storage) => amendImage(storage, { ...qcow2, refcountBits: 4 }), version: 3 },
  { name: "wider counts", run: (storage) => amendImage(storage, { ...qcow2, refcountBits: 32 }), version: 3 },
  { name: "lazy counts", run: (storage) => amendImage(storage, { ...qcow2, lazyRefcounts: true }), version: 3 },
  { name: "version 3", run: (storage) => amendImage(storage, { ...qcow2, compat: "1.1" }), version: 2, inSteps: true },
  {
    name: "version 2",
    run: (storage) => amendImage(storage, { ...qcow2, compat: "0.10", refcountBits: 16 }),
    version: 3,
    inSteps: true,
  },
  { name: "growing", run: (storage) => resizeImage(storage, { ...qcow2, size: 9000 * KIB }), version: 3 },
  {
    name: "growing with preallocation",
    run: (storage) => resizeImage(storage, { ...qcow2, size: 400 * KIB, preallocation: "metadata" }),
    version: 3,
  },
  {
    name: "shrinking",
    run: (storage) => resizeImage(storage, { ...qcow2, size: 50 * KIB + 512, shrink: true }),
    version: 3,
    inSteps: true,
  },
];

/** A disk with two snapshots, of which each shares some clusters, and zero clusters of both kinds. */
async function imageToChange(options: Parameters<typeof newImage>[0]): Promise<Uint8Array> {
  const storage = memoryStorage(await newImage(options));
  const write = async (tag: number, offset: number, length: number): Promise<void> => {
    const device = await openQcow2(borrowedStorage(storage), {});
    await device.write(offset, taggedBytes(tag, offset, length));
    await device.writeZeroes(offset + 4096, 4096, { unmap: false });
    await device.writeZeroes(offset + 12_288, 4096, { unmap: true });
    await device.close();
  };
  await write(1, 0, 60 * KIB);
  await createSnapshot(storage, { ...qcow2, name: "old" });
  await write(2, 20 * KIB, 50 * KIB);
  await createSnapshot(storage, { ...qcow2, name: "newer" });
  await write(3, 40 * KIB, 48 * KIB);
  return storage.bytes();
}

type Contents = ReturnType<typeof referenceContents>;

function sameContents(a: Contents, b: Contents): boolean {
  return (
    a.length === b.length &&
    a.every((state, index) => {
      const other = b[index];
      return other !== undefined && state.name === other.name && Buffer.compare(state.bytes, other.bytes) === 0;
    })
  );
}

function judge(file: Uint8Array, before: Contents, after: Contents, operation: Operation, where: string): void {
  const problems = referenceCounts(file, operation.inSteps ?? false);
  if (problems.length > 0) throw new Error(`${where}: ${problems.join("; ")}`);
  const now = referenceContents(file);
  if (sameContents(now, before) || sameContents(now, after)) return;
  // On the way to a smaller disk only its tail may differ; snapshots never.
  const rest = now.slice(1);
  const size = Math.min(now[0]?.size ?? 0, after[0]?.size ?? 0);
  const isBetween =
    operation.inSteps === true &&
    sameContents(rest, before.slice(1)) &&
    Buffer.compare(
      (now[0] as Contents[0]).bytes.subarray(0, size),
      (after[0] as Contents[0]).bytes.subarray(0, size),
    ) === 0;
  if (!isBetween) throw new Error(`${where}: the image is neither what it was nor what it is to be`);
}

const CASES = SHAPES.flatMap((shape) => {
  const version = "compat" in shape.options ? 2 : 3;
  return OPERATIONS.filter((operation) => (operation.version ?? version) === version).map((operation) => ({
    shape,
    operation,
  }));
});

describe("rewriting the tables of an image", () => {
  it.each(CASES)("survives a power cut at any moment: $operation.name, $shape.name", async ({ shape, operation }) => {
    const image = await imageToChange(shape.options);
    expect(referenceCounts(image, false)).toEqual([]);
    const memory = memoryStorage(image);
    const recorder = recordingStorage(memory, memory);
    await operation.run(recorder);
    const [before, after] = [referenceContents(image), referenceContents(memory.bytes())];
    expect(referenceCounts(memory.bytes(), false)).toEqual([]);
    const random = new Random(seedFromEnvironment(7));
    const calls = { initial: image, changes: recorder.changes, flushes: recorder.flushes };
    const last = recorder.moment() + 1;
    const step = Math.max(1, Math.floor(last / 60));
    for (let moment = 0; moment <= last; moment += step) {
      for (const kind of CRASH_KINDS) {
        judge(
          crashedFile(calls, moment, kind, random),
          before,
          after,
          operation,
          `cut at ${moment} of ${last}, ${kind}`,
        );
      }
    }
  });

  it.each(CASES)("survives any storage call failing: $operation.name, $shape.name", async ({ shape, operation }) => {
    const image = await imageToChange(shape.options);
    const whole = memoryStorage(image);
    const counting = faultStorage(whole, {});
    await operation.run(counting);
    const [before, after] = [referenceContents(image), referenceContents(whole.bytes())];
    const calls = counting.calls();
    const faults: readonly Fault[] = [{ type: "error" }, { type: "torn", bytes: 512 }];
    const step = Math.max(1, Math.floor(calls / 50));
    for (let nth = 1; nth <= calls; nth += step) {
      for (const fault of faults) {
        const memory = memoryStorage(image);
        const storage = faultStorage(memory, { rules: [{ fault, nth }] });
        const where = `${fault.type} at call ${nth} of ${calls}`;
        await operation.run(storage).catch((error: unknown) => {
          if (!isZcowError(error) || error.code === "IMAGE_CORRUPT") throw new Error(where, { cause: error });
        });
        judge(memory.bytes(), before, after, operation, where);
      }
    }
  });
});
