import { describe, expect, test } from "vitest";
import { AesXts } from "../../../../../src/codec/cipher/aes-xts.js";
import { plain64Iv } from "../../../../../src/codec/cipher/sector-iv.js";
import { EncryptedData } from "../../../../../src/formats/qcow2/encryption/encrypted-data.js";
import { ImageFileData } from "../../../../../src/formats/qcow2/guest-data.js";
import { memoryStorage } from "../../../../../src/storage/memory-storage.js";
import { JitteryStorage } from "../../../../support/jittery-storage.js";
import { Random, seedFromEnvironment } from "../../../../support/random.js";

const SIZE = 16 * 1024;
const key = new Uint8Array(64).map((_, at) => at * 5);

function encrypted(random: Random, late: boolean) {
  const memory = memoryStorage(new Uint8Array(SIZE));
  const storage = late ? new JitteryStorage(memory, random) : memory;
  const data = new EncryptedData(new ImageFileData(storage), new AesXts(key, plain64Iv()), "host");
  return { data, memory };
}

describe("encrypted guest data", () => {
  test.each([false, true])(
    "requests of any alignment, many at a time, lose no byte (late answers: %s)",
    async (late) => {
      const first = seedFromEnvironment(1);
      for (let seed = first; seed < first + 6; seed++) {
        const random = new Random(seed);
        const { data } = encrypted(random, late);
        const model = new Uint8Array(SIZE);
        await data.writeZeroes(0, 0, SIZE);
        for (let round = 0; round < 12; round++) {
          // Disjoint ranges that share sectors: whoever writes one must leave the others alone.
          const cuts = [0, SIZE, ...Array.from({ length: 12 }, () => random.below(SIZE))].toSorted((a, b) => a - b);
          const work = cuts.slice(1).map(async (end, index) => {
            const start = cuts[index] ?? 0;
            if (start === end) return;
            if (random.chance(0.3)) {
              const into = new Uint8Array(end - start);
              const expected = model.slice(start, end);
              await data.read(start, start, into);
              expect(Buffer.compare(into, expected), `seed ${seed}`).toBe(0);
            } else if (random.chance(0.2)) {
              model.fill(0, start, end);
              await data.writeZeroes(start, start, end - start);
            } else {
              const from = new Uint8Array(end - start).fill(random.between(1, 255));
              model.set(from, start);
              await data.write(start, start, from);
            }
          });
          await Promise.all(work);
        }
        const all = new Uint8Array(SIZE);
        await data.read(0, 0, all);
        expect(Buffer.compare(all, model), `seed ${seed}`).toBe(0);
      }
    },
  );

  test("nothing of what is written is in the file", async () => {
    const { data, memory } = encrypted(new Random(1), false);
    await data.write(0, 0, new Uint8Array(SIZE).fill(0x41));
    const runs = new TextDecoder("latin1").decode(memory.bytes());
    expect(runs).not.toContain("AAAA");
  });

  test("requests of whole sectors are over when the call returns, if the storage is that fast", () => {
    const { data } = encrypted(new Random(1), false);
    expect(data.write(512, 512, new Uint8Array(1024))).toBeUndefined();
    expect(data.read(512, 512, new Uint8Array(1024))).toBeUndefined();
  });
});
