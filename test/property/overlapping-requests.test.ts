import { describe, expect, it } from "vitest";
import type { BlockDevice } from "../../src/block/block-device.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { JitteryStorage } from "../support/jittery-storage.js";
import { newImage } from "../support/new-image.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { referenceCheck } from "../support/reference-check.js";
import { ReferenceImage } from "../support/reference-image.js";

/** Many requests at once, byte by byte on top of each other: each byte ends as one of the requests left it, none is lost. */

const KIB = 1024;
const ROUNDS = 40;

const GEOMETRIES = [
  { name: "512-byte clusters", options: { size: 48 * KIB, clusterSize: 512 }, cacheBytes: 4 * KIB },
  { name: "4 KiB clusters", options: { size: 96 * KIB, clusterSize: 4 * KIB } },
  { name: "64 KiB clusters, 1-bit refcounts", options: { size: 512 * KIB, clusterSize: 64 * KIB, refcountBits: 1 } },
  { name: "lazy refcounts", options: { size: 96 * KIB, clusterSize: 4 * KIB, lazyRefcounts: true } },
];

interface Change {
  readonly from: number;
  readonly to: number;
  readonly value: number;
  /** The bytes may not stay as they were. */
  readonly sure: boolean;
}

/** What the bytes may be once all requests of a round are done. */
class Candidates {
  readonly #old: Uint8Array;
  readonly #changes: Change[] = [];

  constructor(old: Uint8Array) {
    this.#old = old;
  }

  add(from: number, length: number, value: number, sure: boolean): void {
    this.#changes.push({ from, to: from + length, value, sure });
  }

  /** Position of the first byte that is none of its candidates; -1 = all are right. */
  firstWrong(now: Uint8Array): number {
    const edges = new Set([0, now.length, ...this.#changes.flatMap((change) => [change.from, change.to])]);
    const cuts = [...edges].toSorted((a, b) => a - b);
    for (const [index, from] of cuts.slice(0, -1).entries()) {
      const wrong = this.#wrongIn(now, from, cuts[index + 1] as number);
      if (wrong !== -1) return wrong;
    }
    return -1;
  }

  /** Between two edges all bytes have the same requests. */
  #wrongIn(now: Uint8Array, from: number, to: number): number {
    const changes = this.#changes.filter((change) => change.from <= from && change.to >= to);
    const mayBeOld = !changes.some((change) => change.sure);
    for (let at = from; at < to; at++) {
      const known = changes.some((change) => change.value === now[at]);
      if (!known && !(mayBeOld && this.#old[at] === now[at])) return at;
    }
    return -1;
  }
}

async function round(device: BlockDevice, random: Random, old: Uint8Array, clusterSize: number): Promise<Candidates> {
  const candidates = new Candidates(old);
  const jobs: Promise<unknown>[] = [];
  const centre = random.below(device.size);
  for (let i = 0; i < random.between(2, 14); i++) {
    const reach = clusterSize * 3;
    const from = Math.max(0, Math.min(device.size - 1, centre + random.between(-reach, reach)));
    const length = Math.min(
      device.size - from,
      random.between(1, random.pick([64, 700, clusterSize, clusterSize * 2])),
    );
    const kind = random.weighted({ write: 10, zeroes: 3, discard: 2, read: 3, flush: 1 });
    if (kind === "write") {
      const value = random.between(1, 255);
      candidates.add(from, length, value, true);
      jobs.push(Promise.resolve(device.write(from, new Uint8Array(length).fill(value))));
    } else if (kind === "zeroes") {
      candidates.add(from, length, 0, true);
      jobs.push(Promise.resolve(device.writeZeroes(from, length, { unmap: random.chance(0.5) })));
    } else if (kind === "discard") {
      candidates.add(from, length, 0, false);
      jobs.push(Promise.resolve(device.discard(from, length)));
    } else if (kind === "read") {
      jobs.push(Promise.resolve(device.read(from, new Uint8Array(length))));
    } else {
      jobs.push(Promise.resolve(device.flush()));
    }
  }
  await Promise.all(jobs);
  return candidates;
}

describe("requests that overlap in time and place", () => {
  const firstSeed = seedFromEnvironment(40);

  it.each(GEOMETRIES)("lose no byte and leave a clean image: $name", async ({ options, cacheBytes }) => {
    for (let seed = firstSeed; seed < firstSeed + 4; seed++) {
      const random = new Random(seed);
      const memory = memoryStorage(await newImage(options));
      const device = await openQcow2(
        new JitteryStorage(memory, random),
        cacheBytes === undefined ? {} : { cacheBytes },
      );
      let old = new Uint8Array(options.size);
      for (let i = 0; i < ROUNDS; i++) {
        const candidates = await round(device, random, old, options.clusterSize);
        const now = new Uint8Array(options.size);
        await device.read(0, now);
        expect(candidates.firstWrong(now), `seed ${seed}, round ${i}`).toBe(-1);
        old = now;
      }
      await device.close();
      const bytes = memory.bytes();
      expect(referenceCheck(bytes), `seed ${seed}`).toEqual({ corruptions: [], leaks: [], dirty: false });
      expect(Buffer.compare(new ReferenceImage(bytes).readGuest(0, options.size), old), `seed ${seed}`).toBe(0);
    }
  });
});
