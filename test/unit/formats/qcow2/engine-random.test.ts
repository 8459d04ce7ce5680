import { describe, expect, it } from "vitest";
import { openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { type MemoryStorage, memoryStorage } from "../../../../src/storage/memory-storage.js";
import { ALL_SHAPES, expectSound, type ImageShape, imageInMemory, shapeName } from "../../../support/engine-images.js";
import { JitteryStorage } from "../../../support/jittery-storage.js";
import { PlainWorkload } from "../../../support/plain-workload.js";
import { Random, seedFromEnvironment } from "../../../support/random.js";
import { LiveBytes } from "../../../support/sector-history.js";

/** Random requests against a plain array of bytes; afterwards the image is sound and still holds them. */

const STEPS = 25;

function sizeFor(clusterSize: number): number {
  if (clusterSize <= 4096) return 600 * 1024 + 512;
  return clusterSize === 65_536 ? 2 * 1024 * 1024 + 1536 : 9 * 1024 * 1024;
}

async function runWorkload(
  storage: MemoryStorage,
  shape: ImageShape,
  random: Random,
  late: boolean,
  cacheBytes: number | undefined,
): Promise<Uint8Array> {
  const device = await openQcow2(late ? new JitteryStorage(storage, random) : storage, {
    ...(cacheBytes !== undefined && { cacheBytes }),
  });
  const history = new LiveBytes(device.size);
  const { clusterSize } = shape;
  const workload = new PlainWorkload({
    random,
    device,
    history,
    clusterSize,
    position: () => 0,
    unaligned: true,
    to: Math.min(device.size, clusterSize > 65_536 ? 2 * clusterSize + 3 * 65_536 : device.size),
  });
  await workload.run(STEPS);
  await workload.verify();
  await device.close();
  return history.live;
}

async function expectContents(bytes: Uint8Array, expected: Uint8Array): Promise<void> {
  const device = await openQcow2(memoryStorage(bytes), { readOnly: true });
  const actual = new Uint8Array(device.size);
  await device.read(0, actual);
  await device.close();
  expect(Buffer.compare(actual, expected)).toBe(0);
}

const MODES = [
  { name: "at once", late: false, cacheBytes: undefined },
  { name: "answering late and out of order", late: true, cacheBytes: undefined },
  { name: "with the smallest cache, answering late", late: true, cacheBytes: 0 },
];

for (const [m, mode] of MODES.entries()) {
  describe(`random requests, storage ${mode.name}`, () => {
    it.each(ALL_SHAPES.map((shape, index) => ({ name: shapeName(shape), shape, index })))(
      "read back as written: $name",
      async ({ shape, index }) => {
        const random = new Random(seedFromEnvironment(1000 + index * 17 + m));
        const storage = await imageInMemory({ size: sizeFor(shape.clusterSize), ...shape });
        const expected = await runWorkload(storage, shape, random, mode.late, mode.cacheBytes);
        const bytes = storage.bytes();
        expectSound(bytes);
        await expectContents(bytes, expected);
      },
    );
  });
}
