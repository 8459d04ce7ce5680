import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { openFileStorage } from "../../src/storage/file-storage.js";
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

/** The engine and the stock tools on the same files, both ways. */

const MiB = 1024 * 1024;

const FILES = [
  { options: "compat=1.1", size: 8 * MiB },
  { options: "compat=0.10", size: 8 * MiB + 1536 },
  { options: "compat=1.1,cluster_size=512,refcount_bits=64", size: 2 * MiB },
  { options: "compat=1.1,cluster_size=512,refcount_bits=1", size: 2 * MiB },
  { options: "compat=1.1,cluster_size=4k,lazy_refcounts=on", size: 4 * MiB + 512 },
  { options: "compat=1.1,cluster_size=2M,refcount_bits=16", size: 16 * MiB },
  { options: "compat=1.1,preallocation=metadata", size: 8 * MiB },
];

async function createWithStock(path: string, options: string, size: number): Promise<void> {
  const result = await qemuImg(["create", "-q", "-f", "qcow2", "-o", options, path, String(size)]);
  expect(result.code, result.stderr).toBe(0);
}

describeWithStock("images written by the engine", () => {
  it.each(FILES.map((file, index) => ({ ...file, index })))(
    "are clean and equal for the stock tools: $options",
    async ({ options, size, index }) => {
      const folder = temporaryDirectory();
      const path = join(folder, "disk.qcow2");
      await createWithStock(path, options, size);
      const random = new Random(seedFromEnvironment(77 + index));
      const live = new LiveBytes(size);
      for (let life = 0; life < 2; life++) {
        const device = await openQcow2(await openFileStorage(path, { writable: true }), {});
        const { optimalAlignment: clusterSize } = device.limits;
        const workload = new PlainWorkload({
          random,
          device,
          history: live,
          clusterSize,
          position: () => 0,
          unaligned: true,
        });
        await workload.run(60);
        await device.close();
        await expectCleanCheck(path);
      }
      const shadow = join(folder, "shadow.raw");
      writeFileSync(shadow, live.live);
      await expectSameContents(path, "qcow2", shadow, "raw");
    },
    20_000,
  );
});

interface Command {
  readonly text: string;
  readonly apply: (shadow: Uint8Array) => void;
}

/** A random qemu-io command on whole sectors, and what it does. */
function stockCommand(random: Random, size: number): Command {
  const offset = random.below(size / 512) * 512;
  const length = Math.min(size - offset, random.between(1, random.pick([4, 40, 400])) * 512);
  const value = random.between(1, 255);
  const kind = random.weighted({ write: 6, zero: 1, unmap: 1 });
  if (kind === "write") {
    return {
      text: `write -P ${value} ${offset} ${length}`,
      apply: (shadow) => void shadow.fill(value, offset, offset + length),
    };
  }
  return {
    text: `write ${kind === "zero" ? "-z" : "-z -u"} ${offset} ${length}`,
    apply: (shadow) => void shadow.fill(0, offset, offset + length),
  };
}

describeWithStock("images written by the stock tool", () => {
  it.each(FILES.map((file, index) => ({ ...file, index })))(
    "read back right, and take turns with the engine: $options",
    async ({ options, size, index }) => {
      const path = join(temporaryDirectory(), "disk.qcow2");
      await createWithStock(path, options, size);
      const random = new Random(seedFromEnvironment(177 + index));
      const whole = size - (size % 512);
      const live = new LiveBytes(size);
      for (let turn = 0; turn < 3; turn++) {
        const commands = Array.from({ length: 40 }, () => stockCommand(random, whole));
        const result = await qemuIo(["-f", "qcow2", ...commands.flatMap(({ text }) => ["-c", text]), path]);
        expect(result.code, result.stdout + result.stderr).toBe(0);
        for (const { apply } of commands) apply(live.live);
        const device = await openQcow2(await openFileStorage(path, { writable: true }), {});
        const actual = new Uint8Array(size);
        await device.read(0, actual);
        expect(Buffer.compare(actual, live.live), `turn ${turn}, seed ${random.seed}`).toBe(0);
        const { optimalAlignment: clusterSize } = device.limits;
        const workload = new PlainWorkload({
          random,
          device,
          history: live,
          clusterSize,
          position: () => 0,
          unaligned: true,
        });
        await workload.run(20);
        await device.close();
      }
      await expectCleanCheck(path);
    },
    20_000,
  );
});

/** Requests as qemu-io takes them, on 64 KiB clusters: every way a discard or zeroing can meet a cluster. */
const ERASURES: readonly (readonly string[])[] = [
  ["write -P 5 0 256k", "discard 64k 64k"],
  ["write -P 5 0 256k", "discard 60k 80k"],
  ["write -P 5 0 256k", "discard 0 1048064"],
  ["write -P 5 0 256k", "write -z 64k 64k"],
  ["write -P 5 0 256k", "write -z 60k 80k", "write -z 128k 64k"],
  ["write -P 5 0 256k", "write -z -u 64k 64k", "write -z -u 512k 64k", "write -z 640k 64k"],
  ["write -P 5 0 256k", "write -z 64k 64k", "discard 64k 64k"],
  ["write -P 5 0 256k", "write -z 64k 64k", "write -z -u 64k 64k"],
  ["write -P 5 0 256k", "write -z -u 64k 64k", "write -z 64k 64k"],
  ["write -z 512k 128k", "discard 512k 64k"],
  ["write -z 512k 128k", "write -z 520k 8k", "write -z 700k 8k", "write -z 768k 100k"],
  ["write -z -u 512k 128k", "write -P 6 520k 8k", "write -z -u 512k 4k"],
  ["write -P 5 0 64k", "write -z 0 64k", "write -z -u 4k 4k"],
  ["write -P 5 0 64k", "write -z 0 64k", "write -P 6 4k 4k"],
  ["discard 0 1048064"],
  ["write -P 5 960k 65024", "discard 960k 65024"],
  ["write -P 5 960k 65024", "write -z -u 960k 65024"],
];

async function applyToEngine(path: string, commands: readonly string[]): Promise<void> {
  const device = await openQcow2(await openFileStorage(path, { writable: true }), {});
  for (const command of commands) {
    const words = command.split(" ");
    const [offset, length] = words.slice(-2).map(bytesOf) as [number, number];
    if (command.startsWith("discard")) await device.discard(offset, length);
    else if (words.includes("-z")) await device.writeZeroes(offset, length, { unmap: words.includes("-u") });
    else await device.write(offset, new Uint8Array(length).fill(Number(words[2])));
  }
  await device.close();
}

function bytesOf(text: string): number {
  const unit = { k: 1024, M: MiB }[text.at(-1) as string];
  return Number.parseInt(text, 10) * (unit ?? 1);
}

interface StockExtent {
  readonly start: number;
  readonly length: number;
  readonly present: boolean;
  readonly data: boolean;
  readonly zero: boolean;
  readonly offset?: number;
}

/**
 * What qemu-img map says of the image, without what it adds from the holes of the file below, and without host offsets:
 * a freed cluster is reused later here than there.
 */
async function mappingOf(path: string): Promise<string[]> {
  const { stdout } = await qemuImg(["map", "--output=json", "-f", "qcow2", path]);
  const runs: { kind: string; start: number; end: number }[] = [];
  for (const { start, length, present, data, zero, offset } of JSON.parse(stdout) as StockExtent[]) {
    const state = data ? "data" : zero ? "zero" : "other";
    const kind = `${present ? "present" : "absent"} ${state}${offset === undefined ? "" : ", has a cluster"}`;
    const last = runs.at(-1);
    if (last?.kind === kind) last.end = start + length;
    else runs.push({ kind, start, end: start + length });
  }
  return runs.map(({ kind, start, end }) => `${start}..${end} ${kind}`);
}

describeWithStock("discard and write zeroes leave the states that the stock tool leaves", () => {
  const cases = ["1.1", "0.10"].flatMap((compat) => ERASURES.map((commands) => ({ compat, commands })));
  it.each(cases)("compat $compat: $commands", async ({ compat, commands }) => {
    const folder = temporaryDirectory();
    const maps: string[][] = [];
    for (const name of ["stock", "ours"]) {
      const path = join(folder, `${name}.qcow2`);
      await createWithStock(path, `compat=${compat}`, MiB - 512);
      if (name === "ours") await applyToEngine(path, commands);
      else await qemuIo(["-f", "qcow2", ...commands.flatMap((text) => ["-c", text]), path]);
      await expectCleanCheck(path);
      maps.push(await mappingOf(path));
    }
    expect(maps[1]).toEqual(maps[0]);
  });
});
