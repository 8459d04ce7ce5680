import { deflateRawSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { KiB } from "../../../../../src/base/units.js";
import { checkQcow2 } from "../../../../../src/formats/qcow2/check/check.js";
import { type CheckResult, checkExitCode } from "../../../../../src/formats/qcow2/check/check-result.js";
import { openQcow2 } from "../../../../../src/formats/qcow2/open.js";
import { borrowedStorage } from "../../../../../src/storage/borrowed-storage.js";
import { faultStorage } from "../../../../../src/storage/fault-storage.js";
import { type MemoryStorage, memoryStorage } from "../../../../../src/storage/memory-storage.js";
import { recordingStorage } from "../../../../../src/storage/recording-storage.js";
import { Random, seedFromEnvironment } from "../../../../support/random.js";
import { lostPieces, type ReadableData, readableData } from "../../../../support/readable-data.js";
import { COPIED, MappedImage } from "./mapped-image.js";

const CLUSTER = KiB;
/** Two L1 entries. */
const SIZE = 256 * KiB;

/** Ten data clusters under the first L1 entry; the second one is free. */
const make = ({ refcountBits, compat }: Pick<Damage, "refcountBits" | "compat"> = {}): Promise<MappedImage> =>
  MappedImage.make(
    { size: SIZE, clusterSize: CLUSTER, ...(refcountBits && { refcountBits }), ...(compat && { compat }) },
    10,
  );

const read = async (storage: MemoryStorage): Promise<ReadableData> => {
  const data = await readableData(storage.bytes(), CLUSTER);
  if (data === undefined) throw new Error("the image cannot be opened");
  return data;
};

const told = ({ findings }: CheckResult): string => findings.map(({ message }) => message).join("\n");

interface Damage {
  readonly name: string;
  readonly damage: (image: MappedImage) => void;
  /** In what is told. */
  readonly says: string;
  readonly refcountBits?: 1;
  readonly compat?: "0.10";
}

const DAMAGES: readonly Damage[] = [
  {
    name: "two L1 entries share an L2 table",
    damage: (image) => image.setL1(1, image.word(image.header.l1TableOffset)),
    says: "copied for another L1 entry",
  },
  {
    name: "two L1 entries share an L2 table, and counts have one bit",
    damage: (image) => image.setL1(1, image.word(image.header.l1TableOffset)),
    says: "data copied from shared cluster",
    refcountBits: 1,
  },
  {
    name: "two guest clusters share a data cluster, and counts have one bit",
    damage: (image) => image.setL2(12, image.l2(3)),
    says: "data copied from shared cluster",
    refcountBits: 1,
  },
  {
    name: "a guest cluster lies in the L1 table",
    damage: (image) => image.setL2(3, BigInt(image.header.l1TableOffset) | COPIED),
    says: "data copied from shared cluster",
  },
  {
    name: "a guest cluster lies in its L2 table",
    damage: (image) => image.setL2(3, BigInt(image.tableOffset) | COPIED),
    says: "now in a cluster of its own",
  },
  {
    name: "an L1 entry leads to guest data",
    damage: (image) => image.setL1(1, BigInt((image.firstData + 2) * CLUSTER) | COPIED),
    says: "now in a cluster of its own",
  },
  {
    name: "an L1 entry has reserved bits",
    damage: (image) => image.setL1(0, image.word(image.header.l1TableOffset) | (1n << 60n)),
    says: "active L1 table entry 0: reserved bits",
  },
  {
    name: "an L1 entry has the copied flag and no table",
    damage: (image) => image.setL1(1, COPIED),
    says: "table offset 0x0 is no place for one",
  },
  {
    name: "an L1 entry leads out of the file",
    damage: (image) => image.setL1(1, (1n << 40n) | COPIED),
    says: "active L1 table entry 1: table offset 0x10000000000 is no place for one",
  },
  {
    name: "L2 entries lead out of the file, between clusters and have reserved bits",
    damage: (image) => {
      image.setL2(2, (1n << 40n) | COPIED);
      image.setL2(3, image.l2(3) + 512n);
      image.setL2(4, image.l2(4) | (1n << 58n));
    },
    says: "entry 2: cluster outside the file, now reads as zeros",
  },
  {
    name: "compressed clusters with the copied flag and outside the file",
    damage: (image) => {
      image.setL2(20, (3n << 62n) | BigInt(image.firstData * CLUSTER));
      image.setL2(21, (1n << 62n) | (1n << 50n));
    },
    says: "compressed cluster with the copied flag",
  },
  {
    name: "a compressed cluster is said to be longer than the file",
    damage: (image) => {
      const at = (image.firstData + 9) * CLUSTER;
      image.write(at, deflateRawSync(new Uint8Array(CLUSTER).fill(0x55)));
      image.setL2(9, 0n);
      image.setL2(20, (1n << 62n) | (3n << 60n) | BigInt(at));
    },
    says: "compressed cluster that reaches past the end of the file",
  },
  {
    name: "a guest cluster lies in a refcount block, and counts have one bit",
    damage: (image) => image.setL2(3, (image.word(image.header.refcountTableOffset) & ~511n) | COPIED),
    says: "Rebuilding refcount structure",
    refcountBits: 1,
  },
  {
    name: "the refcount table lies over the L1 table",
    damage: (image) => image.setWord(48, BigInt(image.header.l1TableOffset)),
    says: "Rebuilding refcount structure",
  },
  {
    name: "the refcount table is too large",
    damage: (image) => image.setWord(56, (0xffff_ffffn << 32n) | 0n),
    says: "refcount_table_clusters 4294967295 is above the limit",
  },
  {
    name: "entries of version 2 have the zero flag of version 3",
    damage: (image) => {
      image.setL2(3, image.l2(3) | 1n);
      image.setL2(30, 1n);
    },
    says: "entry 3: reserved bits",
    compat: "0.10",
  },
  {
    name: "the refcount table lies past all files",
    damage: (image) => image.setWord(48, image.word(48) | (1n << 56n)),
    says: "is above 2^53",
  },
  {
    name: "the refcount table lies between clusters",
    damage: (image) => image.setWord(48, image.word(48) + 512n),
    says: "Repairing the header",
  },
];

/** What can be said of every repair: sound by two checks, nothing readable lost, all of the disk writable. */
async function expectMended(
  storage: MemoryStorage,
  good: ReadableData,
  before: ReadableData | undefined,
): Promise<void> {
  expect(lostPieces(good, before, await read(storage))).toEqual([]);
  const copy = memoryStorage(storage.bytes());
  const device = await openQcow2(borrowedStorage(copy));
  await device.write(0, new Uint8Array(SIZE).fill(0x77));
  await device.close();
  expect(checkExitCode(await checkQcow2(copy))).toBe(0);
}

describe("repair all puts right", () => {
  test.each(DAMAGES)("$name", async ({ damage, says, ...options }) => {
    const image = await make(options);
    const good = await read(image.storage);
    damage(image);
    const before = await readableData(image.storage.bytes(), CLUSTER);
    expect(checkExitCode(await checkQcow2(image.storage).catch(() => ({ failure: "" }) as CheckResult))).not.toBe(0);
    const result = await checkQcow2(image.storage, { repair: "all" });
    expect(checkExitCode(result), told(result)).toBe(0);
    expect(told(result)).toContain(says);
    expect(image.word(72)).toBe(0n);
    await expectMended(image.storage, good, before);
  });

  test("no image whose L1 table is not where the header says: nothing is changed", async () => {
    const image = await make();
    image.setWord(40, 1n << 40n);
    const bytes = image.storage.bytes();
    const result = await checkQcow2(image.storage, { repair: "all" });
    expect(checkExitCode(result)).toBe(1);
    expect(told(result)).toContain("the L1 table is not where the header says");
    expect(Buffer.compare(image.storage.bytes(), bytes)).toBe(0);
  });

  test("no tables when a dirty image is opened: that mends refcounts only", async () => {
    const image = await make();
    image.setWord(72, 1n);
    image.setL2(3, image.l2(3) + 512n);
    const entry = image.l2(3);
    await expect(openQcow2(borrowedStorage(image.storage))).rejects.toMatchObject({ code: "IMAGE_CORRUPT" });
    expect(image.l2(3)).toBe(entry);
  });
});

describe("when storage fails during the repair of tables", () => {
  test.each(DAMAGES)(
    "each write in turn, $name: the next repair makes the image sound",
    async ({ damage, ...options }) => {
      const image = await make(options);
      const good = await read(image.storage);
      damage(image);
      const bytes = image.storage.bytes();
      const before = await readableData(bytes, CLUSTER);
      for (let nth = 1; ; nth++) {
        const inner = memoryStorage(bytes);
        const rules = [
          { kinds: ["write", "flush"] as const, from: nth, fault: { type: "error", code: "NO_SPACE" } as const },
        ];
        const storage = faultStorage(inner, { rules });
        const outcome = await checkQcow2(storage, { repair: "all" }).catch(() => undefined);
        if (storage.faults.length === 0) break;
        expect(outcome === undefined ? 1 : checkExitCode(outcome), `write ${nth}`).not.toBe(0);
        const now = await readableData(inner.bytes(), CLUSTER);
        if (now !== undefined) expect(lostPieces(good, before, now), `write ${nth}`).toEqual([]);
        const again = await checkQcow2(inner, { repair: "all" });
        expect(checkExitCode(again), `write ${nth}\n${told(again)}`).toBe(0);
        expect(lostPieces(good, before, await read(inner)), `write ${nth}`).toEqual([]);
      }
    },
  );
});

describe("when power fails during the repair of tables", () => {
  test.each(DAMAGES)(
    "$name: nothing readable is lost, and the next repair makes the image sound",
    async ({ damage, ...options }) => {
      const random = new Random(seedFromEnvironment(8));
      const image = await make(options);
      const good = await read(image.storage);
      damage(image);
      const before = await readableData(image.storage.bytes(), CLUSTER);
      const recording = recordingStorage(image.storage);
      await checkQcow2(recording, { repair: "all" });
      const end = recording.moment();
      for (let moment = 0; moment <= end; moment++) {
        for (let variant = 0; variant < 2; variant++) {
          const left = recording.crashImage(moment, { random: () => random.u32() / 2 ** 32 });
          const text = `seed ${random.seed} moment ${moment}`;
          const now = await readableData(left.bytes(), CLUSTER);
          if (before !== undefined) expect(now, text).toBeDefined();
          if (now !== undefined) expect(lostPieces(good, before, now), text).toEqual([]);
          const again = await checkQcow2(left, { repair: "all" });
          expect(checkExitCode(again), `${text}\n${told(again)}`).toBe(0);
          expect(lostPieces(good, before, await read(left)), text).toEqual([]);
        }
      }
    },
  );
});
