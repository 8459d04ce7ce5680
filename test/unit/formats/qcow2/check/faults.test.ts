import { describe, expect, test } from "vitest";
import { isZcowError } from "../../../../../src/base/errors.js";
import { MiB } from "../../../../../src/base/units.js";
import { checkQcow2 } from "../../../../../src/formats/qcow2/check/check.js";
import { checkExitCode } from "../../../../../src/formats/qcow2/check/check-result.js";
import { openQcow2 } from "../../../../../src/formats/qcow2/open.js";
import { faultStorage } from "../../../../../src/storage/fault-storage.js";
import type { MemoryStorage } from "../../../../../src/storage/memory-storage.js";
import { memoryStorage } from "../../../../../src/storage/memory-storage.js";
import { recordingStorage } from "../../../../../src/storage/recording-storage.js";
import { Random, seedFromEnvironment } from "../../../../support/random.js";
import { COPIED, MappedImage } from "./mapped-image.js";

type Damage = [name: string, damage: (image: MappedImage) => void];

const DAMAGES: Damage[] = [
  [
    "leaks, low counts and wrong flags",
    (image) => {
      image.setL2(4, image.l2(0));
      image.setL2(1, image.l2(1) & ~COPIED);
      image.setL2(2, 0n);
      image.setWord(72, 1n);
    },
  ],
  ["counts of 0", (image) => image.setRefcount(image.firstData, 0)],
  ["a refcount block in guest data", (image) => image.setReftable(0, BigInt(image.firstData * 512))],
  [
    "reserved bits in the refcount table",
    (image) => image.setReftable(0, image.word(image.header.refcountTableOffset) | 1n),
  ],
];

async function damaged(damage: Damage[1]): Promise<MappedImage> {
  const image = await MappedImage.make({ size: MiB, clusterSize: 512 }, 6);
  damage(image);
  return image;
}

/** Where each guest cluster lies, without flags: what a repair must not change. */
function mapping(image: MappedImage, storage: MemoryStorage): bigint[] {
  const view = new MappedImage(storage, image.header);
  return Array.from({ length: 64 }, (_, index) => view.l2(index) & ~COPIED);
}

describe("when storage fails", () => {
  test("each read in turn: the check is never called clean", async () => {
    const image = await damaged(() => undefined);
    const bytes = image.storage.bytes();
    for (let nth = 1; ; nth++) {
      const storage = faultStorage(memoryStorage(bytes), {
        rules: [{ kinds: ["read"], nth, fault: { type: "error" } }],
      });
      const outcome = await checkQcow2(storage).then(checkExitCode, (error: unknown) => {
        expect(isZcowError(error, "IO_ERROR")).toBe(true);
        return 1;
      });
      if (storage.faults.length === 0) {
        expect(outcome).toBe(0);
        expect(nth).toBeGreaterThan(5);
        return;
      }
      expect(outcome, `read ${nth}`).toBe(1);
    }
  });

  test("each read of a repair of tables in turn: an image that is called sound can be written", async () => {
    const image = await damaged(() => undefined);
    image.setL2(3, image.l2(3) | (1n << 58n));
    const bytes = image.storage.bytes();
    let sound = 0;
    for (let nth = 1; ; nth++) {
      const inner = memoryStorage(bytes);
      const storage = faultStorage(inner, { rules: [{ kinds: ["read"], nth, fault: { type: "error" } }] });
      const outcome = await checkQcow2(storage, { repair: "all" }).then(checkExitCode, () => 1);
      if (storage.faults.length === 0) break;
      if (outcome !== 0) continue;
      sound++;
      await (await openQcow2(inner)).close();
    }
    expect(sound).toBeGreaterThan(0);
  });

  test.each(DAMAGES)(
    "each write of a repair in turn, %s: the next repair makes the image sound",
    async (_name, damage) => {
      const image = await damaged(damage);
      const bytes = image.storage.bytes();
      const before = mapping(image, image.storage);
      for (let nth = 1; nth < 100; nth++) {
        const inner = memoryStorage(bytes);
        const rules = [
          { kinds: ["write", "flush"] as const, from: nth, fault: { type: "error", code: "NO_SPACE" } as const },
        ];
        const storage = faultStorage(inner, { rules });
        const outcome = await checkQcow2(storage, { repair: "all" });
        if (storage.faults.length === 0) {
          expect(outcome).toMatchObject({ corruptions: 0, leaks: 0, failure: undefined });
          expect(nth).toBeGreaterThan(2);
          return;
        }
        expect(mapping(image, inner)).toEqual(before);
        const again = await checkQcow2(inner, { repair: "all" });
        expect(again, `write ${nth}`).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0, failure: undefined });
        expect(mapping(image, inner)).toEqual(before);
      }
      expect.unreachable();
    },
  );
});

describe("when power fails during a repair", () => {
  test.each(DAMAGES)("%s: nothing is lost, and the next repair makes the image sound", async (_name, damage) => {
    const random = new Random(seedFromEnvironment(7));
    const image = await damaged(damage);
    const before = mapping(image, image.storage);
    const corruptionsBefore = (await checkQcow2(image.storage)).corruptions;
    const recording = recordingStorage(image.storage);
    await checkQcow2(recording, { repair: "all" });
    const end = recording.moment();
    expect(end).toBeGreaterThan(4);
    for (let moment = 0; moment <= end; moment++) {
      for (let variant = 0; variant < 4; variant++) {
        const left = recording.crashImage(moment, { random: () => random.u32() / 2 ** 32 });
        const text = `seed ${random.seed} moment ${moment}`;
        expect(mapping(image, left), text).toEqual(before);
        const found = await checkQcow2(left);
        expect(found.corruptions, text).toBeLessThanOrEqual(corruptionsBefore + 6);
        expect(await checkQcow2(left, { repair: "all" }), text).toMatchObject({
          corruptions: 0,
          leaks: 0,
          checkErrors: 0,
        });
        expect(mapping(image, left), text).toEqual(before);
      }
    }
  });
});
