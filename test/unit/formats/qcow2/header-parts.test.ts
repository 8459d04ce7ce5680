import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeFeatureNames,
  encodeFeatureNames,
  extensionAreaEnd,
  extensionRecords,
  withExtension,
  writeExtensions,
} from "../../../../src/formats/qcow2/extensions.js";
import {
  autoclearBitsToClear,
  NO_FEATURES,
  nameIncompatibleBits,
  ZONED_FEATURE_NAMES,
} from "../../../../src/formats/qcow2/features.js";
import { decodeFileName, encodeFileName } from "../../../../src/formats/qcow2/file-name.js";

describe("names of files", () => {
  test("any bytes come back as they were", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        expect([...encodeFileName(decodeFileName(bytes))]).toEqual([...bytes]);
      }),
    );
  });

  test("UTF-8 is read as UTF-8", () => {
    expect(decodeFileName(new TextEncoder().encode("диск-é-😀.qcow2"))).toBe("диск-é-😀.qcow2");
    expect(encodeFileName("é")).toEqual(Uint8Array.of(0xc3, 0xa9));
  });
});

describe("extensions", () => {
  const list = fc.array(
    fc.record({ type: fc.integer({ min: 1, max: 0xffff_ffff }), data: fc.uint8Array({ maxLength: 40 }) }),
    { maxLength: 6 },
  );

  test("come back in order, data and all", () => {
    fc.assert(
      fc.property(list, (extensions) => {
        const bytes = new Uint8Array(4096);
        writeExtensions(bytes, 112, extensions);
        expect([...extensionRecords(bytes, 112, 4096)]).toEqual(extensions);
      }),
    );
  });

  test("any bytes are split or refused, and the area looked at stays inside the cluster", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 512, maxLength: 512 }),
        fc.integer({ min: 0, max: 512 }),
        (bytes, start) => {
          expect(extensionAreaEnd(bytes, start, 512)).toBeLessThanOrEqual(512);
          try {
            Array.from(extensionRecords(bytes, start, 512));
          } catch (error) {
            expect(error).toMatchObject({ code: "QCOW2_EXTENSION_LENGTH" });
          }
        },
      ),
    );
  });

  test("one is replaced in its place, added at the end, or taken out", () => {
    const one = { type: 1, data: Uint8Array.of(1) };
    const two = { type: 2, data: Uint8Array.of(2) };
    expect(withExtension([one, two], 1, Uint8Array.of(9))).toEqual([{ type: 1, data: Uint8Array.of(9) }, two]);
    expect(withExtension([one], 2, two.data)).toEqual([one, two]);
    expect(withExtension([one, two], 1, undefined)).toEqual([two]);
    expect(withExtension([one], 2, undefined)).toEqual([one]);
  });
});

describe("feature names", () => {
  test("fill 48 bytes each, and may use all 46 of the name", () => {
    const long = { type: "compatible", bit: 7, name: "x".repeat(46) } as const;
    const names = [...ZONED_FEATURE_NAMES, long];
    const data = encodeFeatureNames(names);
    expect(data.length).toBe(48 * names.length);
    expect(decodeFeatureNames(data)).toEqual(names);
  });

  test("name the bits that are not known; those without a name are shown as one word", () => {
    const names = [
      { type: "incompatible", bit: 9, name: "funny" },
      { type: "compatible", bit: 6, name: "another word" },
    ] as const;
    expect(nameIncompatibleBits((1n << 9n) | (1n << 6n) | (1n << 40n), names)).toBe(
      "funny, Unknown incompatible feature: 10000000040",
    );
    expect(nameIncompatibleBits(1n << 9n, names)).toBe("funny");
  });

  test("of a hostile table, with bits far out of range, do no harm", () => {
    expect(nameIncompatibleBits(1n << 63n, [{ type: "incompatible", bit: 255, name: "far" }])).toBe(
      "Unknown incompatible feature: 8000000000000000",
    );
  });
});

test("autoclear bits whose promise is not kept are cleared before writing", () => {
  expect(autoclearBitsToClear(NO_FEATURES)).toBe(0n);
  expect(autoclearBitsToClear({ ...NO_FEATURES, autoclear: (1n << 40n) | 1n })).toBe((1n << 40n) | 1n);
});
