import { describe, expect, it } from "vitest";
import { faultStorage } from "../../../src/storage/fault-storage.js";
import { memoryStorage } from "../../../src/storage/memory-storage.js";
import { nullStorage } from "../../../src/storage/null-storage.js";
import { recordingStorage } from "../../../src/storage/recording-storage.js";
import { Random } from "../../support/random.js";

const S = 512;
const filled = (value: number, length = S): Uint8Array => new Uint8Array(length).fill(value);

function fraction(seed: number): () => number {
  const random = new Random(seed);
  return () => random.u32() / 2 ** 32;
}

const nothing = { random: () => 0.5, keep: 0, tear: 0 };
const everything = { random: () => 0.5, keep: 1, tear: 0 };

describe("recordingStorage", () => {
  it("keeps what was flushed and nothing else, when nothing else is kept", async () => {
    const storage = recordingStorage(memoryStorage(filled(9, 4 * S)));
    await storage.write(0, filled(1));
    await storage.flush();
    await storage.write(S, filled(2));
    await storage.truncate(3 * S);
    const image = storage.crashImage(storage.moment(), nothing).bytes();
    expect([image.length, image[0], image[S]]).toEqual([4 * S, 1, 9]);
    const whole = storage.crashImage(storage.moment(), everything).bytes();
    expect([whole.length, whole[0], whole[S]]).toEqual([3 * S, 1, 2]);
  });

  it("does not call durable what was written while the flush was under way", async () => {
    const inner = memoryStorage(S);
    const slow = faultStorage(inner, { rules: [{ fault: { type: "delay", milliseconds: 2 }, kinds: ["flush"] }] });
    const storage = recordingStorage(slow, memoryStorage(S));
    const flush = storage.flush();
    await storage.write(0, filled(1));
    await flush;
    expect(storage.crashImage(storage.moment(), nothing).bytes()[0]).toBe(0);
    expect(storage.crashImage(storage.moment(), everything).bytes()[0]).toBe(1);
  });

  it("does not call durable what was still in flight when the flush began", async () => {
    const slow = faultStorage(memoryStorage(S), {
      rules: [{ fault: { type: "delay", milliseconds: 2 }, kinds: ["write"] }],
    });
    const storage = recordingStorage(slow, memoryStorage(S));
    const write = storage.write(0, filled(1));
    await storage.flush();
    expect(storage.crashImage(storage.moment(), nothing).bytes()[0]).toBe(0);
    expect(storage.crashImage(storage.moment(), everything).bytes()[0]).toBe(1);
    await write;
    await storage.flush();
    expect(storage.crashImage(storage.moment(), nothing).bytes()[0]).toBe(1);
  });

  it("never calls a failed write durable, and may keep any part of it", async () => {
    const failing = faultStorage(memoryStorage(S), { rules: [{ fault: { type: "error" }, kinds: ["write"], nth: 1 }] });
    const storage = recordingStorage(failing, memoryStorage(S));
    await expect(storage.write(0, filled(1))).rejects.toMatchObject({ code: "IO_ERROR" });
    await storage.flush();
    expect(storage.crashImage(storage.moment(), nothing).bytes()[0]).toBe(0);
    expect(storage.crashImage(storage.moment(), everything).bytes()[0]).toBe(1);
  });

  it("shows the storage as it was at an earlier moment, asked in any order", async () => {
    const storage = recordingStorage(memoryStorage(S));
    const moments: number[] = [];
    for (let value = 1; value <= 5; value++) {
      await storage.write(0, filled(value));
      await storage.flush();
      moments.push(storage.moment());
    }
    const values = (order: number[]): (number | undefined)[] =>
      order.map((moment) => storage.crashImage(moment, nothing).bytes()[0]);
    expect(values(moments)).toEqual([1, 2, 3, 4, 5]);
    expect(values(moments.toReversed())).toEqual([5, 4, 3, 2, 1]);
    expect(storage.crashImage(0, everything).bytes()[0]).toBe(0);
  });

  it("lists the moments around every completed flush", async () => {
    const storage = recordingStorage(memoryStorage(S));
    await storage.write(0, filled(1));
    await storage.flush();
    await storage.write(0, filled(2));
    await storage.flush();
    const seen = storage.flushMoments().map((moment) => storage.crashImage(moment, nothing).bytes()[0]);
    expect(seen).toEqual([0, 1, 1, 2]);
  });

  it("keeps any set of unflushed writes", async () => {
    const storage = recordingStorage(memoryStorage(3 * S));
    for (const [index, value] of [1, 2, 3].entries()) await storage.write(index * S, filled(value));
    const seen = new Set<string>();
    for (let seed = 0; seed < 200; seed++) {
      const image = storage.crashImage(storage.moment(), { random: fraction(seed), tear: 0 }).bytes();
      seen.add([image[0], image[S], image[2 * S]].join());
    }
    expect(seen.size).toBe(8);
  });

  it("tears writes at sectors, never inside one", async () => {
    const storage = recordingStorage(memoryStorage(4 * S));
    await storage.write(100, filled(1, 3 * S));
    const seen = new Set<string>();
    for (let seed = 0; seed < 300; seed++) {
      const image = storage.crashImage(storage.moment(), { random: fraction(seed), keep: 1, tear: 1 }).bytes();
      expect(image.subarray(0, 100).every((byte) => byte === 0)).toBe(true);
      for (const [from, to] of [
        [100, S],
        [S, 2 * S],
        [2 * S, 3 * S],
        [3 * S, 3 * S + 100],
      ] as const) {
        expect(new Set(image.subarray(from, to)).size).toBe(1);
      }
      seen.add([image[100], image[S], image[2 * S], image[3 * S]].join());
    }
    expect(seen.size).toBe(16);
  });

  it("lets an older write win over a newer one in some sectors", async () => {
    const storage = recordingStorage(memoryStorage(2 * S));
    await storage.write(0, filled(1, 2 * S));
    await storage.write(0, filled(2, 2 * S));
    const seen = new Set<string>();
    for (let seed = 0; seed < 300; seed++) {
      const image = storage.crashImage(storage.moment(), { random: fraction(seed) }).bytes();
      seen.add([image[0], image[S]].join());
    }
    expect(seen).toContain("2,1");
    expect(seen).toContain("1,0");
    expect(seen.size).toBe(9);
  });

  it("tears long zeros in one place", async () => {
    const storage = recordingStorage(memoryStorage(filled(7, 1000 * S)));
    await storage.writeZeroes(0, 1000 * S);
    for (let seed = 0; seed < 20; seed++) {
      const image = storage.crashImage(storage.moment(), { random: fraction(seed), keep: 1, tear: 1 }).bytes();
      const changes = image.filter((byte, index) => index > 0 && byte !== image[index - 1]);
      expect(changes.length).toBeLessThanOrEqual(1);
    }
  });

  it("gives the same image for the same seed", async () => {
    const storage = recordingStorage(memoryStorage(100 * S));
    for (let index = 0; index < 50; index++) await storage.write(index * S, filled(index, 3 * S));
    const image = (): Uint8Array => storage.crashImage(storage.moment(), { random: fraction(42) }).bytes();
    expect(image()).toEqual(image());
  });

  it("remembers the bytes of a buffer that is used again", async () => {
    const storage = recordingStorage(memoryStorage(S));
    const buffer = filled(1);
    await storage.write(0, buffer);
    buffer.fill(2);
    expect(storage.crashImage(storage.moment(), everything).bytes()[0]).toBe(1);
  });

  it("does not change what it shows when the storage goes on", async () => {
    const storage = recordingStorage(memoryStorage(S));
    await storage.write(0, filled(1));
    await storage.flush();
    const image = storage.crashImage(storage.moment(), nothing);
    await storage.write(0, filled(2));
    await storage.flush();
    await image.write(10, filled(3, 1));
    expect(image.bytes()[0]).toBe(1);
    expect(storage.crashImage(storage.moment(), nothing).bytes()[10]).toBe(2);
  });

  it("keeps or loses a discard", async () => {
    const storage = recordingStorage(memoryStorage(filled(5)));
    await storage.discard(0, S);
    expect(storage.crashImage(storage.moment(), nothing).bytes()[0]).toBe(5);
    expect(storage.crashImage(storage.moment(), everything).bytes()[0]).toBe(0);
  });

  it("needs to know the bytes that are there already", () => {
    expect(() => recordingStorage(nullStorage(5))).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
    expect(() => recordingStorage(nullStorage(0))).not.toThrow();
  });
});
