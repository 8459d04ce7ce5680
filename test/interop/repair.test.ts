import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { viewOf } from "../../src/base/bytes.js";
import { KiB } from "../../src/base/units.js";
import { checkQcow2 } from "../../src/formats/qcow2/check/check.js";
import { type CheckResult, checkExitCode } from "../../src/formats/qcow2/check/check-result.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { recordingStorage } from "../../src/storage/recording-storage.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { lostPieces, type ReadableData, readableData } from "../support/readable-data.js";
import { describeWithStock, qemuImg, qemuIo, temporaryDirectory } from "../support/stock-tools.js";

const PIECE = 4 * KiB;
const BITMAPS_EXTENSION = 0x23852875;

async function stock(...args: string[]): Promise<string> {
  const result = await qemuImg(args);
  expect(result.code, result.stderr).toBe(0);
  return result.stdout;
}

/** Where things are in an image that stock tools made. */
class Image {
  readonly bytes: Uint8Array;
  readonly view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = viewOf(bytes);
  }

  u64(at: number): number {
    return Number(this.view.getBigUint64(at));
  }

  get snapshots(): number {
    return this.u64(64);
  }

  get bitmapsExtension(): number {
    for (let at = this.view.getUint32(100); ; at += 8 + Math.ceil(this.view.getUint32(at + 4) / 8) * 8) {
      if (this.view.getUint32(at) === BITMAPS_EXTENSION) return at + 8;
    }
  }

  get directory(): number {
    return this.u64(this.bitmapsExtension + 16);
  }

  get bitmapTable(): number {
    return this.u64(this.directory);
  }
}

type Step = readonly string[];

async function made(steps: readonly Step[]): Promise<Image> {
  const path = join(temporaryDirectory(), "image.qcow2");
  await stock("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, "1M");
  const write = async (command: string): Promise<void> => {
    expect((await qemuIo(["-c", command, path])).code).toBe(0);
  };
  await write("write -P 1 0 100k");
  for (const step of steps) {
    if (step[0] === "write") await write(step.join(" "));
    else await stock(...step.map((word) => (word === "IMAGE" ? path : word)));
  }
  return new Image(new Uint8Array(await readFile(path)));
}

const SNAPSHOTS: readonly Step[] = [
  ["snapshot", "-c", "a", "IMAGE"],
  ["write", "-P", "2", "50k", "20k"],
  ["snapshot", "-c", "b", "IMAGE"],
  ["write", "-P", "3", "60k", "20k"],
];
const BITMAPS: readonly Step[] = [
  ["bitmap", "--add", "IMAGE", "one"],
  ["bitmap", "--add", "IMAGE", "two"],
  ["write", "-P", "4", "200k", "20k"],
];

interface Case {
  readonly name: string;
  readonly steps: readonly Step[];
  readonly damage: (image: Image) => void;
  readonly says: string;
  /** What `info` of the stock tool lists, in order. */
  readonly left: readonly string[];
}

const CASES: readonly Case[] = [
  {
    name: "a snapshot whose L1 table is lost",
    steps: SNAPSHOTS,
    damage: ({ view, snapshots }) => view.setBigUint64(snapshots, 1n << 50n),
    says: "Discarding snapshot table entry 0, snapshot '1' (a): no L1 table at l1_offset=0x4000000000000",
    left: ["b"],
  },
  {
    name: "a snapshot with an L1 table of impossible length",
    steps: SNAPSHOTS,
    damage: ({ view, snapshots }) => view.setUint32(snapshots + 8, 0xffff_ffff),
    says: "Repairing snapshot table entry 0, snapshot '1' (a): l1_size=0xffffffff is too large, now 0x1",
    left: ["a", "b"],
  },
  {
    name: "a snapshot with an L1 table that reaches past the end of the file",
    steps: SNAPSHOTS,
    damage: ({ view, snapshots }) => view.setUint32(snapshots + 8, 0x40_0001),
    says: "Repairing snapshot table entry 0, snapshot '1' (a): l1_size=0x400001 is too large, now 0x1",
    left: ["a", "b"],
  },
  {
    name: "a snapshot with an L1 table that reaches into what is behind it",
    steps: SNAPSHOTS,
    damage: ({ view, snapshots }) => view.setUint32(snapshots + 8, 0x401),
    says: "snapshot 1 (a): l1_size=0x401 reaches into something else, now 0x1",
    left: ["a", "b"],
  },
  {
    name: "too much extra data",
    steps: SNAPSHOTS,
    damage: ({ view, snapshots }) => view.setUint32(snapshots + 36, 2000),
    says: "Discarding too much extra metadata in snapshot table entry 0 (2000 > 1024)",
    left: ["a", "b"],
  },
  {
    name: "more snapshots than there can be",
    steps: SNAPSHOTS,
    damage: ({ view }) => view.setUint32(60, 70_000),
    says: "Discarding 4464 overhanging snapshots",
    left: ["a", "b"],
  },
  {
    name: "a snapshot table past the end",
    steps: SNAPSHOTS,
    damage: ({ view }) => view.setBigUint64(64, 1n << 40n),
    says: "Discarding all 2 snapshots",
    left: [],
  },
  {
    name: "snapshots with one L1 table",
    steps: SNAPSHOTS,
    damage: (image) => image.view.setBigUint64(image.snapshots, image.view.getBigUint64(40)),
    says: "active L1 table: now in clusters of its own",
    left: ["a", "b"],
  },
  {
    name: "a bitmap that was in use",
    steps: BITMAPS,
    damage: ({ view, directory }) => view.setUint32(directory + 12, view.getUint32(directory + 12) | 1),
    says: "bitmap 'one': was in use, now consistent with everything dirty",
    left: ["one", "two"],
  },
  {
    name: "a bitmap with flags that have no meaning",
    steps: BITMAPS,
    damage: ({ view, directory }) => view.setUint32(directory + 12, 0x0100_0000),
    says: "Bitmap directory, entry 0: reserved flags are set",
    left: ["two"],
  },
  {
    name: "a bitmap without a table",
    steps: BITMAPS,
    damage: ({ view, directory }) => view.setBigUint64(directory, 1n << 40n),
    says: "bitmap 'one': removed, its table lies outside the file",
    left: ["two"],
  },
  {
    name: "a bitmap with a damaged table",
    steps: BITMAPS,
    damage: ({ view, bitmapTable }) => view.setBigUint64(bitmapTable, 0x123n),
    says: "bitmap 'one': 1 pieces are lost and count as dirty",
    left: ["one", "two"],
  },
  {
    name: "a bitmap directory past the end",
    steps: BITMAPS,
    damage: ({ view, bitmapsExtension }) => view.setBigUint64(bitmapsExtension + 16, 1n << 40n),
    says: "all 2 bitmaps are lost",
    left: [],
  },
  {
    name: "bitmaps whose number is wrong",
    steps: BITMAPS,
    damage: ({ view, bitmapsExtension }) => view.setUint32(bitmapsExtension, 3),
    says: "bitmaps 2 to 2: removed",
    left: ["one", "two"],
  },
];

interface ImageInfo {
  readonly snapshots?: readonly { readonly name: string }[];
  readonly "format-specific": { readonly data: { readonly bitmaps?: readonly { readonly name: string }[] } };
}

/** What the stock tool makes of the image; it must call it sound. */
async function names(bytes: Uint8Array): Promise<string[]> {
  const path = join(temporaryDirectory(), "repaired.qcow2");
  await writeFile(path, bytes);
  await stock("check", "-f", "qcow2", path);
  const info = JSON.parse(await stock("info", "--output", "json", path)) as ImageInfo;
  const bitmaps = info["format-specific"].data.bitmaps ?? [];
  return [...(info.snapshots ?? []), ...bitmaps].map(({ name }) => name);
}

const told = ({ findings }: CheckResult): string => findings.map(({ message }) => message).join("\n");

describeWithStock("repair all of snapshots and bitmaps", () => {
  test.each(CASES)("$name", async ({ steps, damage, says, left }) => {
    const image = await made(steps);
    const good = (await readableData(image.bytes, PIECE)) as ReadableData;
    damage(image);
    const storage = memoryStorage(image.bytes);
    const said: string[] = [];
    const result = await checkQcow2(storage, { repair: "all", onFinding: ({ message }) => said.push(message) });
    expect(checkExitCode(result), told(result)).toBe(0);
    expect(said).toContainEqual(expect.stringContaining(says));
    expect(await names(storage.bytes())).toEqual(left);
    const after = (await readableData(storage.bytes(), PIECE)) as ReadableData;
    expect(lostPieces(good, good, after)).toEqual([]);
  });

  test.each(CASES)(
    "$name, and power fails: nothing of the disk is lost, the next repair ends sound",
    async ({ steps, damage, left }) => {
      const random = new Random(seedFromEnvironment(9));
      const image = await made(steps);
      const good = (await readableData(image.bytes, PIECE)) as ReadableData;
      damage(image);
      const before = await readableData(image.bytes, PIECE);
      const recording = recordingStorage(memoryStorage(image.bytes));
      await checkQcow2(recording, { repair: "all" });
      const end = recording.moment();
      for (let moment = 0; moment <= end; moment++) {
        const crashed = recording.crashImage(moment, { random: () => random.u32() / 2 ** 32 });
        const text = `seed ${random.seed} moment ${moment}`;
        const now = await readableData(crashed.bytes(), PIECE);
        if (before !== undefined) expect(now, text).toBeDefined();
        if (now !== undefined) expect(lostPieces(good, before, now), text).toEqual([]);
        const again = await checkQcow2(crashed, { repair: "all" });
        expect(checkExitCode(again), `${text}\n${told(again)}`).toBe(0);
        const after = (await readableData(crashed.bytes(), PIECE)) as ReadableData;
        expect(lostPieces(good, good, after), text).toEqual([]);
        if (moment % 8 === 0) expect(await names(crashed.bytes()), text).toEqual(left);
      }
    },
  );
});
