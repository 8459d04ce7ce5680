import { expect, it } from "vitest";
import { openEngine } from "../../../../src/formats/qcow2/open.js";
import { changeBitmap } from "../../../../src/jobs/bitmap.js";
import { borrowedStorage } from "../../../../src/storage/borrowed-storage.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { recordingStorage } from "../../../../src/storage/recording-storage.js";
import { crashedFile } from "../../../support/crash-images.js";
import { expectSound, imageInMemory } from "../../../support/engine-images.js";
import { Random } from "../../../support/random.js";
import { referenceCheck } from "../../../support/reference-check.js";
import { referenceCounts } from "../../../support/reference-snapshots.js";

const GIB = 2 ** 30;
/** A block counts 64 clusters, and a table of one cluster has 64 blocks. */
const SMALL_BLOCKS = { clusterSize: 512, refcountBits: 64 } as const;
const PER_BLOCK = 64;

it.each([PER_BLOCK - 1, PER_BLOCK, PER_BLOCK + 1, 5 * PER_BLOCK, 100 * PER_BLOCK])(
  "%i clusters in a row are had in an image whose refcount blocks count 64",
  async (count) => {
    const storage = await imageInMemory({ ...SMALL_BLOCKS, size: 2 ** 20 });
    const engine = await openEngine(borrowedStorage(storage));
    const first = await engine.allocateClusters(count);
    const second = await engine.allocateClusters(count);
    expect(Math.abs(second - first)).toBeGreaterThanOrEqual(count * 512);
    await engine.freeClusters(first, count);
    await engine.freeClusters(second, count);
    await engine.close();
    expectSound(storage.bytes());
    expect(storage.size()).toBeLessThan(3 * count * 512 + 2 ** 20);
  },
);

it("a crash while they are looked for leaves leaks at most", async () => {
  const image = (await imageInMemory({ ...SMALL_BLOCKS, size: 2 ** 20 })).bytes();
  const memory = memoryStorage(image);
  const recorder = recordingStorage(memory);
  const engine = await openEngine(recorder);
  // The entries of so many blocks lie in several sectors of the refcount table.
  await engine.allocateClusters(10 * PER_BLOCK);
  await engine.flush();
  await engine.allocateClusters(70 * PER_BLOCK);
  await engine.close();
  const random = new Random(1);
  const calls = { initial: image, changes: recorder.changes, flushes: recorder.flushes };
  // Writes of several sectors, each of which may be lost: of the refcount table.
  const writes = recorder.changes.filter(({ kind, length }) => kind === "write" && length > 512);
  expect(writes.length).toBeGreaterThan(2);
  for (const { completed = 0 } of writes) {
    for (let attempt = 0; attempt < 40; attempt++) {
      const { corruptions } = referenceCheck(crashedFile(calls, completed + 1, "sectors", random));
      expect(corruptions, `power cut at ${completed + 1}`).toEqual([]);
    }
  }
});

it("a bitmap finds room for a table that takes more clusters than a refcount block counts", async () => {
  const storage = await imageInMemory({ ...SMALL_BLOCKS, size: 10 * GIB });
  await changeBitmap(storage, { format: "qcow2", name: "fine", actions: [{ do: "add", granularity: 512 }] });
  expect(referenceCounts(storage.bytes(), false)).toEqual([]);
});
