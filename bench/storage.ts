import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { KiB, MiB } from "../src/base/units.js";
import { alignedBuffer } from "../src/host/direct-io.js";
import { type FileStorageOptions, openFileStorage } from "../src/storage/file-storage.js";
import type { Storage } from "../src/storage/storage.js";
import { median, shuffled } from "./statistics.js";

/**
 * What the storage interface costs over the plain calls of Node.js, and what it gains. Prints rates and ratios of
 * medians: time of the first contestant / time of this one. On a busy machine only the CPU ratio of calls on one thread means
 * something (the stock tool's CPU time is not in it).
 *
 * `npm run bench` builds it too; then: node dist/bench/storage.js [--directory D] [--rounds N] [--only TEXT].
 * With ZCOW_NO_NATIVE=1 direct reads go through the thread pool: then set UV_THREADPOOL_SIZE=32 too.
 */

const { values } = parseArgs({
  options: {
    directory: { type: "string", default: tmpdir() },
    rounds: { type: "string", default: "9" },
    only: { type: "string" },
  },
});
const rounds = Number(values.rounds);
const fileSize = 512 * MiB;
const depth = 64;

interface Contestant {
  readonly name: string;
  /** Makes all requests. A contestant that is a process of its own returns the milliseconds that it measured itself. */
  readonly run: (offsets: Float64Array) => undefined | number | Promise<undefined>;
}

/** Offsets of whole blocks in random order, from a fixed seed. */
function randomOffsets(count: number, blockSize: number): Float64Array {
  let state = 1;
  return Float64Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * (fileSize / blockSize)) * blockSize;
  });
}

async function compare(
  title: string,
  blockSize: number,
  count: number,
  contestants: readonly Contestant[],
): Promise<void> {
  if (values.only !== undefined && !title.includes(values.only)) return;
  const offsets = randomOffsets(count, blockSize);
  const samples = new Map(contestants.map(({ name }) => [name, { wall: [] as number[], cpu: [] as number[] }]));
  for (const { run } of contestants) await run(offsets.subarray(0, 2000));
  for (let round = 0; round < rounds; round++) {
    for (const { name, run } of shuffled(contestants)) {
      const cpuBefore = process.cpuUsage();
      const started = performance.now();
      const own = await run(offsets);
      const wall = own ?? performance.now() - started;
      const { user, system } = process.cpuUsage(cpuBefore);
      samples.get(name)?.wall.push((wall * 1000) / count);
      samples.get(name)?.cpu.push((user + system) / count);
    }
  }
  const medians = [...samples].map(([name, { wall, cpu }]) => ({ name, wall: median(wall), cpu: median(cpu) }));
  const base = medians[0];
  for (const { name, wall, cpu } of medians) {
    const ratios = [(base?.wall ?? 0) / wall, (base?.cpu ?? 0) / cpu].map((ratio) => ratio.toFixed(2));
    const cells = [title, name, `${Math.round(1000 / wall)} k/s`, `${cpu.toFixed(2)} us`, ...ratios];
    console.log(`| ${cells.join(" | ")} |`);
  }
}

function storageReads(name: string, storage: Storage, blockSize: number): Contestant {
  const buffer = new Uint8Array(blockSize);
  return {
    name,
    run: async (offsets): Promise<undefined> => {
      for (const at of offsets) {
        const wait = storage.read(at, buffer);
        if (wait !== undefined) await wait;
      }
    },
  };
}

function storageWrites(name: string, storage: Storage, blockSize: number): Contestant {
  const buffer = new Uint8Array(blockSize).fill(1);
  return {
    name,
    run: async (offsets): Promise<undefined> => {
      for (const at of offsets) {
        const wait = storage.write(at, buffer);
        if (wait !== undefined) await wait;
      }
    },
  };
}

/** Keeps `depth` reads under way. */
function deepReads(name: string, storage: Storage, blockSize: number): Contestant {
  const buffers = Array.from({ length: depth }, () => alignedBuffer(blockSize));
  return {
    name,
    run: async (offsets): Promise<undefined> => {
      let next = 0;
      const lane = async (buffer: Uint8Array): Promise<void> => {
        while (next < offsets.length) await storage.read(offsets[next++] ?? 0, buffer);
      };
      await Promise.all(buffers.map(lane));
    },
  };
}

function stockDirectReads(path: string, blockSize: number): Contestant {
  return {
    name: "qemu-img bench -t none (threads)",
    run: (offsets) => {
      const args = ["bench", "-f", "raw", "-t", "none", "-c", String(offsets.length), "-d", String(depth)];
      const printed = execFileSync("qemu-img", [...args, "-s", String(blockSize), "-S", String(17 * blockSize), path], {
        encoding: "utf8",
      });
      return Number(/completed in ([0-9.]+) seconds/.exec(printed)?.[1]) * 1000;
    },
  };
}

const directory = fs.mkdtempSync(join(values.directory, "zcow-bench-"));
const path = join(directory, "disk");
try {
  const fd = fs.openSync(path, "w+");
  const filling = new Uint8Array(MiB).fill(7);
  for (let at = 0; at < fileSize; at += MiB) fs.writeSync(fd, filling, 0, MiB, at);
  fs.fsyncSync(fd);
  const open = (options: FileStorageOptions): Promise<Storage> =>
    openFileStorage(path, { writable: true, lock: false, ...options });
  const [auto, sync, pool, direct] = await Promise.all([
    open({ lock: true }),
    open({ io: "sync" }),
    open({ io: "pool" }),
    open({ direct: true }),
  ]);

  console.log("| case | contestant | rate | CPU per request | ratio | CPU ratio |\n|---|---|---|---|---|---|");
  for (const blockSize of [4 * KiB, 64 * KiB]) {
    const count = blockSize === 4 * KiB ? 100_000 : 10_000;
    const buffer = new Uint8Array(blockSize).fill(3);
    const size = `${blockSize / KiB} KiB`;
    const plainRead: Contestant = {
      name: "fs.readSync",
      run: (offsets) => {
        for (const at of offsets) fs.readSync(fd, buffer, 0, blockSize, at);
        return undefined;
      },
    };
    await compare(`cached read ${size}`, blockSize, count, [
      plainRead,
      storageReads("storage auto", auto, blockSize),
      storageReads("storage sync", sync, blockSize),
    ]);
    await compare(`cached read ${size}, few`, blockSize, count / 10, [
      plainRead,
      storageReads("storage pool", pool, blockSize),
    ]);
    const plainWrite: Contestant = {
      name: "fs.writeSync",
      run: (offsets) => {
        for (const at of offsets) fs.writeSync(fd, buffer, 0, blockSize, at);
        return undefined;
      },
    };
    await compare(`overwrite ${size}`, blockSize, count / 4, [
      plainWrite,
      storageWrites("storage auto", auto, blockSize),
    ]);
  }
  await auto.flush();
  await compare("direct read 4 KiB, depth 64", 4 * KiB, 20_000, [
    stockDirectReads(path, 4 * KiB),
    deepReads("storage direct", direct, 4 * KiB),
  ]);
  await Promise.all([auto.close(), sync.close(), pool.close(), direct.close()]);
  fs.closeSync(fd);
} finally {
  fs.rmSync(directory, { recursive: true });
}
