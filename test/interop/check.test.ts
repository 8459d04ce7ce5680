import { copyFile, open, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { checkCommand } from "../../src/cli/commands/check.js";
import type { CommandContext } from "../../src/cli/context.js";
import { reportFailure } from "../../src/cli/failure.js";
import { describeWithStock, qemuImg, qemuIo, type ToolResult, temporaryDirectory } from "../support/stock-tools.js";

/** `zcow check`, called by the name of the stock tool. */
async function ourCheck(args: readonly string[]): Promise<ToolResult> {
  let stdout = "";
  let stderr = "";
  const context: CommandContext = {
    program: "qemu-img",
    standIn: true,
    output: {
      out: (text) => {
        stdout += text;
      },
      err: (text) => {
        stderr += text;
      },
    },
  };
  const code = await checkCommand(args, context).catch((error: unknown) => reportFailure(error, context));
  return { stdout, stderr, code };
}

const MODES = [undefined, "leaks", "all"] as const;
type Mode = (typeof MODES)[number];

/** Both programs on a copy of `image` under one name, so that texts can be compared whole. */
async function both(
  image: string,
  mode: Mode,
  form = "human",
): Promise<[ours: ToolResult, stock: ToolResult, after: [string, string]]> {
  const copy = join(image, "..", "copy.qcow2");
  const kept = join(image, "..", "ours.qcow2");
  const args = ["-f", "qcow2", "--output", form, ...(mode === undefined ? [] : ["-r", mode]), copy];
  await copyFile(image, copy);
  const ours = await ourCheck(args);
  await copyFile(copy, kept);
  await copyFile(image, copy);
  const stock = await qemuImg(["check", ...args]);
  return [ours, stock, [kept, copy]];
}

async function expectSame(image: string, modes: readonly Mode[] = MODES): Promise<void> {
  for (const mode of modes) {
    const [ours, stock] = await both(image, mode);
    expect(ours, `check ${mode ?? ""}`).toEqual(stock);
  }
}

const io = async (image: string, ...commands: string[]): Promise<void> => {
  const result = await qemuIo([...commands.flatMap((command) => ["-c", command]), image]);
  expect(result.code, result.stderr).toBe(0);
};

const img = async (...args: string[]): Promise<void> => {
  const result = await qemuImg(args);
  expect(result.code, result.stderr).toBe(0);
};

/** A stock image with data, zeros and a hole. */
async function written(options: string, size = "8M"): Promise<string> {
  const image = join(temporaryDirectory(), "image.qcow2");
  await img("create", "-q", "-f", "qcow2", ...(options === "" ? [] : ["-o", options]), image, size);
  await io(image, "write -P 1 0 300k", "write -P 3 2M 128k", "write -z 4M 100k", "discard 64k 64k");
  return image;
}

/** Big-endian words of an image file. */
class Words {
  readonly path: string;
  constructor(path: string) {
    this.path = path;
  }
  async read(at: number, bytes: 2 | 4 | 8 = 8): Promise<bigint> {
    const file = await open(this.path, "r");
    const buffer = new Uint8Array(bytes);
    await file.read(buffer, 0, bytes, at);
    await file.close();
    return BigInt(`0x${Buffer.from(buffer).toString("hex")}`);
  }
  async write(at: number, value: bigint, bytes: 2 | 4 | 8 = 8): Promise<void> {
    const file = await open(this.path, "r+");
    await file.write(Buffer.from(value.toString(16).padStart(bytes * 2, "0"), "hex"), 0, bytes, at);
    await file.close();
  }
}

const OFFSET = (1n << 56n) - 512n;
const COPIED = 1n << 63n;

interface Places {
  readonly words: Words;
  readonly l1: number;
  readonly l2: number;
  readonly reftable: number;
  readonly refblock: number;
}

async function placesOf(image: string): Promise<Places> {
  const words = new Words(image);
  const l1 = Number(await words.read(40));
  const l2 = Number((await words.read(l1)) & OFFSET);
  const reftable = Number(await words.read(48));
  return { words, l1, l2, reftable, refblock: Number(await words.read(reftable)) };
}

type Damage = (places: Places) => Promise<void>;
const l2 =
  (index: number, change: (entry: bigint) => bigint): Damage =>
  async ({ words, l2: at }) =>
    words.write(at + index * 8, change(await words.read(at + index * 8)));
const l1 =
  (change: (entry: bigint) => bigint): Damage =>
  async ({ words, l1: at }) =>
    words.write(at, change(await words.read(at)));
const refcount =
  (cluster: number, count: bigint): Damage =>
  ({ words, refblock }) =>
    words.write(refblock + cluster * 2, count, 2);
const header =
  (at: number, value: bigint, bytes: 4 | 8): Damage =>
  ({ words }) =>
    words.write(at, value, bytes);
const reftable =
  (index: number, change: (entry: bigint) => bigint): Damage =>
  async ({ words, reftable: at }) =>
    words.write(at + index * 8, change(await words.read(at + index * 8)));
const all =
  (...damages: Damage[]): Damage =>
  async (places) => {
    for (const damage of damages) await damage(places);
  };

/** Damage after which both programs print the same, to the letter, in every mode. */
const SAME: Record<string, Damage> = {
  "nothing wrong": async () => undefined,
  "a leaked cluster": refcount(6, 3n),
  "low and high counts": all(
    l2(2, () => COPIED | 0x50000n),
    refcount(9, 4n),
  ),
  "a missing copied flag": l2(2, (entry) => entry & ~COPIED),
  "a missing copied flag in the L1 table": l1((entry) => entry & ~COPIED),
  "a preallocated zero cluster between clusters": l2(2, (entry) => (entry + 512n) | 1n),
  "a compressed cluster over a plain one": l2(2, () => (1n << 62n) | (1n << 54n) | 0x50000n),
  "the dirty bit": header(72, 1n, 8),
  "the corrupt bit": header(72, 2n, 8),
  "the dirty bit and leaks": all(header(72, 1n, 8), refcount(6, 3n)),
  "an unknown autoclear bit": header(88, 1n << 40n, 8),
  "an L1 table between clusters": header(40, 0x30200n, 8),
};

/** Damage that both find alike, that the stock tool leaves and that `-r all` mends here. */
const MENDED_HERE: Record<string, Damage> = {
  "a reserved bit in an L2 entry": l2(2, (entry) => entry | 2n),
  "a high reserved bit in an L2 entry": l2(2, (entry) => entry | (1n << 57n)),
  "a reserved bit in an L1 entry": l1((entry) => entry | 1n),
  "a data cluster between clusters": l2(2, (entry) => entry + 512n),
  "a data cluster past the end": l2(2, () => COPIED | (1n << 40n)),
  "a compressed cluster with the copied flag": l2(2, () => (3n << 62n) | (1n << 54n) | 0x50000n),
  "a compressed cluster past the end": l2(2, () => (1n << 62n) | 0xfff_ffff_ffffn),
  "a snapshot table between clusters": all(header(60, 1n, 4), header(64, 0x30200n, 8)),
};

/** Damage that both find alike, and where the repair of the stock tool fails or says more about its own new structures. */
const SAME_UNTIL_REPAIR: Record<string, Damage> = {
  "a count of 0": refcount(5, 0n),
  "a count of 0 for an L2 table": refcount(4, 0n),
  "no refcount block": reftable(0, () => 0n),
  "a refcount block that two entries share": reftable(1, () => 0x20000n),
  "a refcount block in guest data": reftable(0, () => 0x50000n),
  "a refcount block in the L2 table": reftable(2, () => 0x40000n),
  "a refcount table entry with reserved bits": reftable(0, (entry) => entry | 1n),
  "a refcount block between clusters": reftable(0, (entry) => entry + 512n),
  "a refcount block past the end": reftable(1, () => 0x1000_0000n),
  "a refcount table past the end": header(48, 0x1000_0000n, 8),
  "no refcount table": header(56, 0n, 4),
};

describeWithStock("check finds, prints and repairs what stock qemu-img does", () => {
  test.each(Object.entries(SAME))("%s", async (_name, damage) => {
    const image = await written("");
    await damage(await placesOf(image));
    await expectSame(image);
  });

  test.each(Object.entries(MENDED_HERE))("%s: found alike, mended to a sound image", async (_name, damage) => {
    const image = await written("");
    await damage(await placesOf(image));
    await expectSame(image, [undefined, "leaks"]);
    const [ours, , [repaired]] = await both(image, "all");
    expect(ours.code, ours.stderr).toBe(0);
    await img("check", "-f", "qcow2", repaired);
    await io(repaired, "write -P 9 0 8M");
    await img("check", "-f", "qcow2", repaired);
  });

  test.each(Object.entries(SAME_UNTIL_REPAIR))("%s: found alike, repaired to a sound image", async (_name, damage) => {
    const image = await written("");
    const good = join(image, "..", "good.raw");
    await img("convert", "-O", "raw", image, good);
    await damage(await placesOf(image));
    const [found, stockFound] = await both(image, undefined);
    expect(found).toEqual(stockFound);
    const [leaks] = await both(image, "leaks");
    expect(leaks.code).not.toBe(0);
    const [ours, , [repaired]] = await both(image, "all");
    expect(ours.code, ours.stderr).toBe(0);
    await img("check", "-f", "qcow2", repaired);
    await img("compare", "-f", "qcow2", "-F", "raw", repaired, good);
  });
});

const GEOMETRIES = [
  "compat=0.10",
  "cluster_size=512",
  "cluster_size=4k",
  "cluster_size=2M",
  "lazy_refcounts=on",
  "preallocation=metadata",
  ...[1, 2, 4, 8, 32, 64].map((bits) => `refcount_bits=${bits}`),
  "cluster_size=512,refcount_bits=64",
];

describeWithStock("--output json", () => {
  test.each(["nothing wrong", "low and high counts", "a compressed cluster over a plain one"])("%s", async (name) => {
    const image = await written("");
    await SAME[name]?.(await placesOf(image));
    for (const mode of MODES) {
      const [ours, stock] = await both(image, mode, "json");
      expect(ours).toEqual(stock);
    }
  });
});

describeWithStock("references of every feature are counted", () => {
  test.each(GEOMETRIES)("%s", async (options) => {
    await expectSame(await written(options));
  });

  test.each(["", "compat=0.10", "cluster_size=512", "extended_l2=on,cluster_size=16k"])(
    "internal snapshots (%s), sound and damaged",
    async (options) => {
      const image = await written(options);
      await img("snapshot", "-c", "first", image);
      await io(image, "write -P 7 0 1M");
      await img("snapshot", "-c", "second", image);
      await io(image, "write -P 8 64k 128k");
      await expectSame(image);
      const { words, l1: at } = await placesOf(image);
      await words.write(at, (await words.read(at)) & ~COPIED);
      await expectSame(image);
    },
  );

  test("bitmaps", async () => {
    const image = await written("cluster_size=4k");
    await img("bitmap", "--add", "-g", "512", image, "fine");
    await img("bitmap", "--add", image, "coarse");
    await io(image, "write -P 7 0 1M");
    await expectSame(image);
  });

  test("extended L2 entries", async () => {
    const image = await written("extended_l2=on,cluster_size=128k");
    await io(image, "write 4k 8k", "write -z 1M 70k", "write 3M 2k");
    await expectSame(image);
  });

  test.each(["data_file=guest.raw", "data_file=guest.raw,data_file_raw=on"])(
    "an external data file (%s)",
    async (option) => {
      const folder = temporaryDirectory();
      const image = join(folder, "image.qcow2");
      await img(
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        option.replace("guest.raw", join(folder, "guest.raw")),
        image,
        "8M",
      );
      await io(image, "write 0 300k", "write 4M 64k");
      await expectSame(image);
    },
  );

  test.each(["cluster_size=512", "cluster_size=4k,compression_type=zstd", "", "cluster_size=2M"])(
    "compressed clusters (%s)",
    async (options) => {
      const folder = temporaryDirectory();
      const [source, image] = [join(folder, "source.raw"), join(folder, "image.qcow2")];
      await writeFile(source, Array.from({ length: 20_000 }, (_, line) => `${line}: ${line * line}`).join("\n"));
      const option = options === "" ? [] : ["-o", options];
      await img("convert", "-q", "-c", "-f", "raw", "-O", "qcow2", ...option, source, image);
      await expectSame(image);
      await io(image, "write 1k 2k");
      await img("snapshot", "-c", "one", image);
      await io(image, "write 3k 2k");
      await expectSame(image);
    },
  );

  test("a backing file that is missing", async () => {
    const base = await written("");
    const image = join(base, "..", "overlay.qcow2");
    await img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", image, "3000001");
    await rm(base);
    await expectSame(image);
  });

  test("a data file that is missing", async () => {
    const folder = temporaryDirectory();
    const image = join(folder, "image.qcow2");
    const data = join(folder, "guest.raw");
    await img("create", "-q", "-f", "qcow2", "-o", `data_file=${data}`, image, "8M");
    await rm(data);
    await expectSame(image);
  });

  test("a backing file and an odd size", async () => {
    const base = await written("");
    const image = join(base, "..", "overlay.qcow2");
    await img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", image, "3000001");
    await io(image, "write 70k 2k");
    await expectSame(image);
  });
});
