import { describe, expect, it } from "vitest";
import type { DiskFiller, DiskPart, FilledPlace, StorePlaces } from "../../../../src/block/block-device.js";
import type { CreateQcow2Options } from "../../../../src/formats/qcow2/create-options.js";
import type { Qcow2Device } from "../../../../src/formats/qcow2/device.js";
import { openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { type FaultStorage, faultStorage } from "../../../../src/storage/fault-storage.js";
import { type MemoryStorage, memoryStorage } from "../../../../src/storage/memory-storage.js";
import { ALL_SHAPES, expectSound, imageInMemory, shapeName } from "../../../support/engine-images.js";
import { OpenToOthers } from "../../../support/open-to-others.js";
import { Random } from "../../../support/random.js";

const KIB = 1024;
const CLUSTER = 64 * KIB;

interface Filled {
  readonly memory: MemoryStorage;
  readonly device: Qcow2Device;
  readonly filler: DiskFiller;
  /** What the disk must read. */
  readonly expected: Uint8Array;
  /** Stores what `expected` has, as threads do: no zeros where there are some already, no clusters of zeros anywhere. */
  readonly store: StorePlaces;
}

async function imageToFill(options: CreateQcow2Options): Promise<Filled> {
  const memory = await imageInMemory(options);
  return toFill(memory, new OpenToOthers(memory));
}

/** An image in a file that cannot become longer, with room for `clusters` more. */
async function imageWithRoomFor(clusters: number): Promise<Filled> {
  const memory = await imageInMemory({ size: 64 * CLUSTER });
  await memory.truncate((Math.ceil(memory.size() / CLUSTER) + clusters) * CLUSTER);
  return toFill(memory, new OpenToOthers(memory, { ...memory.capabilities, resizable: false }));
}

async function toFill(memory: MemoryStorage, storage: OpenToOthers): Promise<Filled> {
  const device = (await openQcow2(storage)) as Qcow2Device;
  const { filler } = device;
  if (filler === undefined) throw new Error("the image cannot be filled");
  const expected = new Uint8Array(device.size);
  const unit = device.limits.optimalAlignment;
  const store = async (places: readonly FilledPlace[]): Promise<Uint8Array> => {
    const answer: number[] = [];
    for (const { offset, length, host, isZero } of places) {
      for (let at = 0; at < length; at += unit) {
        const bytes = expected.subarray(offset + at, offset + at + unit);
        const hasData = bytes.some((byte) => byte !== 0);
        answer.push(hasData ? 1 : 0);
        const step = isZero ? 512 : unit;
        for (let done = hasData ? 0 : unit; done < unit; done += step) {
          const piece = bytes.subarray(done, done + step);
          if (!isZero || piece.some((byte) => byte !== 0)) await memory.write(host + at + done, piece.slice());
        }
      }
    }
    return Uint8Array.from(answer);
  };
  return { memory, device, filler, expected, store };
}

async function expectDisk({ device, expected, memory }: Filled): Promise<void> {
  const bytes = new Uint8Array(device.size);
  await device.read(0, bytes);
  expect(Buffer.compare(bytes, expected)).toBe(0);
  await device.close();
  const file = memory.bytes();
  expectSound(file);
  const again = await openQcow2(memoryStorage(file), { readOnly: true });
  await again.read(0, bytes);
  await again.close();
  expect(Buffer.compare(bytes, expected)).toBe(0);
}

function set(filled: Filled, { offset, length }: DiskPart, value: number): DiskPart {
  filled.expected.fill(value, offset, offset + length);
  return { offset, length };
}

async function write(filled: Filled, part: DiskPart, value: number): Promise<void> {
  const { offset, length } = set(filled, part, value);
  await filled.device.write(offset, new Uint8Array(length).fill(value));
}

/** A flush that fails because the one of `storage` below does; those after it find the storage working. */
async function failingFlush({ device }: Filled, storage: FaultStorage): Promise<void> {
  storage.plan({ rules: [{ kinds: ["flush"], fault: { type: "error" } }] });
  await expect(Promise.resolve(device.flush())).rejects.toThrow("flush");
  storage.heal();
}

describe("filling a disk", () => {
  it.each(ALL_SHAPES.map((shape) => ({ name: shapeName(shape), shape })))(
    "stores parts, leaves zeros out, and is sound: $name",
    async ({ shape }) => {
      const { clusterSize } = shape;
      const filled = await imageToFill({ ...shape, size: 24 * clusterSize });
      await write(filled, { offset: 5 * clusterSize + 10, length: 7 }, 9);
      const parts = [
        set(filled, { offset: 0, length: 5 * clusterSize }, 1),
        set(filled, { offset: 7 * clusterSize, length: 9 * clusterSize }, 2),
      ];
      filled.expected.fill(0, 2 * clusterSize, 4 * clusterSize);
      filled.expected.fill(0, 9 * clusterSize + 100, 12 * clusterSize - 1);
      expect(await filled.filler.fillParts(parts, filled.store)).toBe(true);
      await expectDisk(filled);
    },
  );

  it("gives clusters that turn out to be zeros to the next who asks, with their zeros", async () => {
    const filled = await imageToFill({ size: 8 * CLUSTER });
    const parts = [set(filled, { offset: 0, length: 4 * CLUSTER }, 1)];
    filled.expected.fill(0, CLUSTER, 3 * CLUSTER);
    await filled.filler.fillParts(parts, filled.store);
    await write(filled, { offset: 5 * CLUSTER, length: 600 }, 5);
    const places: FilledPlace[] = [];
    await filled.filler.fillParts([set(filled, { offset: 6 * CLUSTER, length: CLUSTER }, 6)], (found) => {
      places.push(...found);
      return filled.store(found);
    });
    expect(places).toHaveLength(1);
    expect(places[0]?.isZero).toBe(true);
    const clusters = filled.memory.size() / CLUSTER;
    await expectDisk(filled);
    // Header, refcount table and block, L1 and L2 table, four data clusters: none was lost.
    expect(filled.memory.size() / CLUSTER).toBe(9);
    expect(clusters).toBeGreaterThan(9);
  });

  it("does nothing where something is stored, and says so", async () => {
    const filled = await imageToFill({ size: 8 * CLUSTER });
    await write(filled, { offset: 3 * CLUSTER, length: 10 }, 3);
    const parts = [
      { offset: 0, length: 2 * CLUSTER },
      { offset: 2 * CLUSTER, length: 2 * CLUSTER },
    ];
    const store = (): Promise<Uint8Array> => Promise.reject(new Error("never asked"));
    expect(await filled.filler.fillParts(parts, store)).toBe(false);
    await expectDisk(filled);
  });

  it("gives everything back when nothing could be stored", async () => {
    const filled = await imageToFill({ size: 8 * CLUSTER });
    const part = { offset: CLUSTER, length: 4 * CLUSTER };
    expect(await filled.filler.fillParts([part], async () => undefined)).toBe(false);
    await expect(filled.filler.fillParts([part], () => Promise.reject(new Error("no thread")))).rejects.toThrow(
      "no thread",
    );
    expect(await filled.filler.fillParts([set(filled, part, 1)], filled.store)).toBe(true);
    await expectDisk(filled);
  });

  it("does nothing when there is no room", async () => {
    const filled = await imageWithRoomFor(9);
    expect(await filled.filler.fillParts([{ offset: 0, length: 32 * CLUSTER }], filled.store)).toBe(false);
    const part = set(filled, { offset: 0, length: 3 * CLUSTER }, 1);
    expect(await filled.filler.fillParts([part], filled.store)).toBe(true);
    await expectDisk(filled);
  });

  it.each(["when it is there", "while it is stored"])(
    "is not said to be durable any more when a flush failed %s",
    async (when) => {
      const memory = await imageInMemory({ size: 8 * CLUSTER });
      const storage = faultStorage(memory, {});
      const filled = await toFill(memory, new OpenToOthers(storage));
      // Makes the tables, which are data that may be lost, too.
      await filled.filler.fillParts([set(filled, { offset: 0, length: CLUSTER }, 1)], filled.store);
      await filled.device.flush();
      const part = set(filled, { offset: CLUSTER, length: 2 * CLUSTER }, 1);
      const isFilled = await filled.filler.fillParts([part], async (places) => {
        const stored = await filled.store(places);
        if (when === "while it is stored") await failingFlush(filled, storage);
        return stored;
      });
      expect(isFilled).toBe(true);
      if (when === "when it is there") await failingFlush(filled, storage);
      await expect(Promise.resolve(filled.device.flush())).rejects.toThrow("an earlier flush failed");
    },
  );

  it("is not said to be durable any more when a flush failed after another one, both while it is stored", async () => {
    const memory = await imageInMemory({ size: 8 * CLUSTER });
    const storage = faultStorage(memory, {});
    const filled = await toFill(memory, new OpenToOthers(storage));
    const part = set(filled, { offset: CLUSTER, length: 2 * CLUSTER }, 1);
    const isFilled = await filled.filler.fillParts([part], async (places) => {
      await filled.device.flush();
      const stored = await filled.store(places);
      await failingFlush(filled, storage);
      return stored;
    });
    expect(isFilled).toBe(true);
    await expect(Promise.resolve(filled.device.flush())).rejects.toThrow("an earlier flush failed");
  });

  it.each([
    [
      "written",
      7,
      (device: Qcow2Device, at: number, length: number) => device.write(at, new Uint8Array(length).fill(7)),
    ],
    ["made zeros", 0, (device: Qcow2Device, at: number, length: number) => device.writeZeroes(at, length)],
    ["discarded", 0, (device: Qcow2Device, at: number, length: number) => device.discard(at, length)],
    [
      "written compressed",
      7,
      (device: Qcow2Device, at: number, length: number) => device.writeCompressed(at, new Uint8Array(length).fill(7)),
    ],
  ])("comes first where the same clusters are %s meanwhile", async (how, value, change) => {
    const filled = await imageToFill({ size: 8 * CLUSTER });
    const part = set(filled, { offset: CLUSTER, length: 3 * CLUSTER }, 1);
    const middle = { offset: 2 * CLUSTER, length: CLUSTER };
    let changed: Promise<unknown> = Promise.resolve();
    let isOver = false;
    const isFilled = await filled.filler.fillParts([part], async (places) => {
      const stored = await filled.store(places);
      changed = Promise.resolve(change(filled.device, middle.offset, middle.length)).then(
        () => undefined,
        (error: unknown) => error,
      );
      void changed.then(() => {
        isOver = true;
      });
      for (let turns = 0; turns < 5; turns++) await new Promise((resolve) => setImmediate(resolve));
      expect(isOver, how).toBe(false);
      return stored;
    });
    expect(isFilled).toBe(true);
    const refused = await changed;
    if (how === "written compressed") expect(refused).toMatchObject({ code: "COMPRESSED_REWRITE" });
    else {
      expect(refused).toBeUndefined();
      set(filled, middle, value);
    }
    await expectDisk(filled);
  });

  it("lets another filling of the same clusters do nothing meanwhile", async () => {
    const filled = await imageToFill({ size: 8 * CLUSTER });
    const part = set(filled, { offset: CLUSTER, length: 3 * CLUSTER }, 1);
    let other: boolean | undefined;
    const isFilled = await filled.filler.fillParts([part], async (places) => {
      other = await filled.filler.fillParts([{ offset: 0, length: 2 * CLUSTER }], () =>
        Promise.reject(new Error("never asked")),
      );
      return filled.store(places);
    });
    expect([isFilled, other]).toEqual([true, false]);
    await expectDisk(filled);
  });

  it("does not hold up who needs the space of others while its own end waits", async () => {
    // An L2 table, two clusters, two of the filling: one is left.
    const filled = await imageWithRoomFor(6);
    await write(filled, { offset: 0, length: 2 * CLUSTER }, 1);
    let letEnd = (): void => undefined;
    const turn = new Promise<void>((resolve) => {
      letEnd = resolve;
    });
    const part = set(filled, { offset: 8 * CLUSTER, length: 2 * CLUSTER }, 8);
    const filling = filled.filler.fillParts([part], filled.store, turn);
    await new Promise((resolve) => setImmediate(resolve));
    await filled.device.discard(0, 2 * CLUSTER);
    filled.expected.fill(0, 0, 2 * CLUSTER);
    await write(filled, { offset: 16 * CLUSTER, length: 3 * CLUSTER }, 16);
    letEnd();
    expect(await filling).toBe(true);
    await expectDisk(filled);
  });

  it("is only there where guest data lies in the image as it is and nothing shows through", async () => {
    const fillable = async (options: CreateQcow2Options, readOnly = false): Promise<boolean> => {
      const memory = await imageInMemory({ size: CLUSTER, ...options });
      const device = (await openQcow2(new OpenToOthers(memory), { readOnly })) as Qcow2Device;
      const { filler } = device;
      await device.close();
      return filler !== undefined;
    };
    expect(await fillable({ size: CLUSTER })).toBe(true);
    expect(await fillable({ size: CLUSTER }, true)).toBe(false);
    expect(await fillable({ size: CLUSTER, extendedL2: true })).toBe(false);
    const memory = await imageInMemory({ size: CLUSTER });
    const device = (await openQcow2(memory)) as Qcow2Device;
    expect(device.filler).toBeUndefined();
    await device.close();
  });

  it("refuses parts that are no whole clusters or lie outside the disk", async () => {
    const { filler, store, device } = await imageToFill({ size: 8 * CLUSTER });
    expect(() => filler.fillParts([{ offset: 512, length: CLUSTER }], store)).toThrow(/multiples of 65536/);
    expect(() => filler.fillParts([{ offset: 7 * CLUSTER, length: 2 * CLUSTER }], store)).toThrow(/do not fit/);
    await device.close();
    expect(() => filler.fillParts([{ offset: 0, length: CLUSTER }], store)).toThrow(/closed/);
  });

  it.each([1, 2, 3, 4, 5, 6])(
    "reads as a simple model and stays sound, whatever comes at a time (seed %i)",
    async (seed) => {
      const random = new Random(seed);
      const clusterSize = 4096;
      const clusters = 1500;
      const filled = await imageToFill({ size: clusters * clusterSize, clusterSize });
      // Each cluster is written by one request at most, so that their order says nothing.
      const work: Promise<unknown>[] = [];
      for (let at = 0; at < clusters; ) {
        const count = Math.min(clusters - at, 1 + random.below(40));
        const part = { offset: at * clusterSize, length: count * clusterSize };
        for (let index = 0; index < count; index++) {
          const start = part.offset + index * clusterSize;
          if (random.below(3) > 0)
            filled.expected.fill(1 + random.below(255), start + random.below(2000), start + 4096);
        }
        const kind = random.below(4);
        const late: StorePlaces = async (places) => {
          for (let turns = random.below(20); turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve));
          return kind === 1 ? undefined : filled.store(places);
        };
        const writeIt = async (): Promise<void> => {
          await filled.device.write(part.offset, filled.expected.slice(part.offset, part.offset + part.length));
        };
        work.push(
          kind === 0 ? writeIt() : filled.filler.fillParts([part], late).then((done) => (done ? undefined : writeIt())),
        );
        if (random.below(8) === 0) work.push(Promise.resolve(filled.device.flush()));
        if (random.below(4) === 0) await Promise.all(work.splice(0));
        at += count;
      }
      await Promise.all(work);
      await expectDisk(filled);
    },
  );
});
