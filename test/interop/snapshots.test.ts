import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import {
  amendImage,
  applySnapshot,
  createSnapshot,
  deleteSnapshot,
  listSnapshots,
  openImage,
  resizeImage,
} from "../../src/index.js";
import { PlainWorkload } from "../support/plain-workload.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { LiveBytes } from "../support/sector-history.js";
import {
  describeWithStock,
  expectCleanCheck,
  expectSameContents,
  qemuImg,
  qemuIo,
  temporaryDirectory,
} from "../support/stock-tools.js";

/** The same random life twice: snapshots by us on one copy and by the stock tool on another, writes by both in turn. */

const KIB = 1024;
const STEPS = Number(process.env["ZCOW_STEPS"] ?? 5);

interface Variant {
  readonly options: string;
  readonly size: number;
  /** Some of our writes are compressed. */
  readonly compressed?: boolean;
}

const VARIANTS: readonly Variant[] = [
  { options: "cluster_size=64k", size: 4096 * KIB + 512 },
  { options: "extended_l2=on,cluster_size=16k", size: 1024 * KIB },
  { options: "cluster_size=512", size: 512 * KIB },
  { options: "cluster_size=512,refcount_bits=64,compat=1.1", size: 300 * KIB },
  { options: "cluster_size=4k,refcount_bits=4", size: 2048 * KIB },
  { options: "cluster_size=4k,compat=0.10", size: 2048 * KIB },
  { options: "cluster_size=64k,lazy_refcounts=on,refcount_bits=8", size: 4096 * KIB },
  { options: "cluster_size=4k,refcount_bits=16", size: 512 * KIB, compressed: true },
  { options: "cluster_size=64k,compression_type=zstd", size: 2048 * KIB + 512, compressed: true },
];

interface Twin {
  readonly compressed: boolean;
  readonly path: string;
  readonly raw: string;
  readonly isVersion2: boolean;
  live: LiveBytes;
  /** What each snapshot holds, by name. */
  readonly kept: Map<string, Uint8Array>;
}

async function stock(args: readonly string[]): Promise<void> {
  const result = await qemuImg(args);
  expect(result.code, `${args.join(" ")}: ${result.stdout}${result.stderr}`).toBe(0);
}

async function writeWithUs({ path, live, compressed }: Twin, random: Random): Promise<void> {
  const device = await openImage(path, { format: "qcow2" });
  const clusterSize = device.limits.optimalAlignment;
  const workload = new PlainWorkload({
    random,
    device,
    history: live,
    position: () => 0,
    clusterSize,
    unaligned: true,
    compressed,
  });
  await workload.run(15);
  await workload.verify();
  await device.close();
}

async function writeWithStock({ path, live }: Twin, random: Random): Promise<void> {
  const commands: string[] = [];
  for (let i = 0; i < 8; i++) {
    const offset = random.below(Math.floor(live.live.length / 512)) * 512;
    const length = Math.min(random.pick([1, 16, 130, 300]) * 512, live.live.length - offset);
    const value = random.chance(0.7) ? random.between(1, 255) : 0;
    live.live.fill(value, offset, offset + length);
    commands.push("-c", value === 0 ? `write -q -z ${offset} ${length}` : `write -q -P ${value} ${offset} ${length}`);
  }
  const result = await qemuIo(["-f", "qcow2", ...commands, path]);
  expect(result.code, result.stdout + result.stderr).toBe(0);
}

function setLive(twin: Twin, bytes: Uint8Array, size: number): void {
  const live = new LiveBytes(size);
  live.live.set(bytes.subarray(0, size));
  twin.live = live;
}

/** A larger or smaller disk; not in version 2 with snapshots, where it is refused. */
async function changeSize(twin: Twin, random: Random, byUs: boolean): Promise<string> {
  const unit = 128 * KIB;
  const size = random.between(1, Math.ceil((twin.live.live.length * 1.5) / unit)) * unit;
  if (byUs) await resizeImage(twin.path, { format: "qcow2", size, shrink: true });
  else await stock(["resize", "-q", "--shrink", "-f", "qcow2", twin.path, String(size)]);
  setLive(twin, twin.live.live, size);
  return `${byUs} resize ${size}`;
}

async function changeWidth(twin: Twin, random: Random, byUs: boolean): Promise<string> {
  const refcountBits = random.pick([4, 8, 16, 32, 64]);
  if (byUs) await amendImage(twin.path, { format: "qcow2", refcountBits });
  else await stock(["amend", "-q", "-f", "qcow2", "-o", `refcount_bits=${refcountBits}`, twin.path]);
  return `${byUs} refcount_bits ${refcountBits}`;
}

/** One random step on the snapshots; `byUs` says who takes it. */
async function changeSnapshots(twin: Twin, random: Random, name: string, byUs: boolean): Promise<string> {
  const { path, live, kept } = twin;
  const names = [...kept.keys()];
  if (!twin.isVersion2 && random.chance(0.3)) {
    return random.chance(0.6) ? changeSize(twin, random, byUs) : changeWidth(twin, random, byUs);
  }
  const kind = names.length === 0 ? "create" : random.weighted({ create: 3, apply: 2, delete: 2 });
  if (kind === "create") {
    if (byUs) await createSnapshot(path, { format: "qcow2", name });
    else await stock(["snapshot", "-c", name, path]);
    kept.set(name, live.live.slice());
    return `${byUs} create ${name}`;
  }
  const chosen = random.pick(names);
  if (kind === "apply") {
    if (byUs) await applySnapshot(path, { format: "qcow2", snapshot: chosen });
    else await stock(["snapshot", "-a", chosen, path]);
    const bytes = kept.get(chosen) ?? new Uint8Array(0);
    setLive(twin, bytes, bytes.length);
  } else {
    if (byUs) await deleteSnapshot(path, { format: "qcow2", snapshot: chosen });
    else await stock(["snapshot", "-d", chosen, path]);
    kept.delete(chosen);
  }
  return `${byUs} ${kind} ${chosen}`;
}

async function judge({ path, raw, live, kept }: Twin): Promise<void> {
  await expectCleanCheck(path);
  writeFileSync(raw, live.live);
  await expectSameContents(path, "qcow2", raw, "raw");
  expect((await listSnapshots(path, { format: "qcow2" })).map(({ name }) => name)).toEqual([...kept.keys()]);
}

async function judgeKept({ path, raw, kept, live }: Twin): Promise<void> {
  for (const [name, bytes] of kept) {
    const device = await openImage(path, { format: "qcow2", readOnly: true, snapshot: name });
    const found = new Uint8Array(device.size);
    await device.read(0, found);
    await device.close();
    expect(Buffer.compare(found, bytes), name).toBe(0);
    // The stock tool reads snapshots with the size that the disk has now.
    if (bytes.length !== live.live.length) continue;
    const taken = `${raw}.taken`;
    await stock(["convert", "-f", "qcow2", "-l", name, "-O", "raw", path, taken]);
    writeFileSync(raw, bytes);
    await expectSameContents(taken, "raw", raw, "raw");
  }
}

describeWithStock("snapshots taken by zcow and by the stock tool", () => {
  it.each(VARIANTS)(
    "stay clean and hold what was taken ($options, compressed writes: $compressed)",
    async ({ options, size, compressed = false }) => {
      const folder = temporaryDirectory();
      const seed = seedFromEnvironment(4);
      const random = new Random(seed);
      const path = join(folder, "image.qcow2");
      await stock(["create", "-q", "-f", "qcow2", "-o", options, path, String(size)]);
      const isVersion2 = options.includes("0.10");
      const raw = join(folder, "shadow.raw");
      const twin: Twin = { path, raw, isVersion2, live: new LiveBytes(size), kept: new Map(), compressed };
      const done: string[] = [];
      for (let step = 0; step < STEPS; step++) {
        if (random.chance(0.5)) await writeWithUs(twin, random);
        else await writeWithStock(twin, random);
        done.push(await changeSnapshots(twin, random, `s${step}`, random.chance(0.6)));
        try {
          await judge(twin);
          await judgeKept(twin);
        } catch (error) {
          throw new Error(`seed ${seed}, after ${done.join(", ")}: ${String(error)}`, { cause: error });
        }
      }
    },
    60_000,
  );
});
