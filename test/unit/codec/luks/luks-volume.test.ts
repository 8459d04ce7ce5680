import { describe, expect, test } from "vitest";
import { mergeStripes, splitStripes } from "../../../../src/codec/luks/af-splitter.js";
import { iterationsFor } from "../../../../src/codec/luks/key-derivation.js";
import type { LuksCipherSpec } from "../../../../src/codec/luks/luks-cipher.js";
import { decodeLuksHeader, encodeLuksHeader, type LuksHeader } from "../../../../src/codec/luks/luks-header.js";
import { MAX_LUKS_ITERATIONS } from "../../../../src/codec/luks/luks-limits.js";
import { fillSlot, newVolume, unlock } from "../../../../src/codec/luks/luks-volume.js";

const SPEC: LuksCipherSpec = { algorithm: "aes-256", mode: "xts", iv: "plain64", ivHash: undefined, hash: "sha256" };
const text = (passphrase: string): Uint8Array => new TextEncoder().encode(passphrase);

async function withKey(spec: LuksCipherSpec, slot: number, passphrase: string) {
  const { header, key } = await newVolume(spec, 0);
  const area = new Uint8Array(header.payloadOffset);
  const old = header.slots[slot];
  if (old === undefined) throw new Error("no such slot");
  const filled = await fillSlot(header, old, key, text(passphrase), 0);
  area.set(filled.material, filled.slot.offset);
  area.set(encodeLuksHeader({ ...header, slots: header.slots.with(slot, filled.slot) }));
  return { area, key };
}

const reader =
  (area: Uint8Array) =>
  (offset: number, into: Uint8Array): void =>
    into.set(area.subarray(offset, offset + into.length));

describe("a LUKS volume", () => {
  test.each([
    SPEC,
    { ...SPEC, algorithm: "aes-128", hash: "sha1" },
    { ...SPEC, algorithm: "aes-192", hash: "ripemd160" },
    { ...SPEC, mode: "cbc", iv: "essiv", ivHash: "sha256", hash: "sha512" },
    { ...SPEC, mode: "cbc", algorithm: "aes-192", iv: "plain", hash: "md5" },
  ] as const)("is opened by the passphrase of any slot, and by no other: %o", async (spec) => {
    for (const slot of spec.hash === "sha256" ? [0, 7] : [3]) {
      const { area, key } = await withKey(spec, slot, "correct horse");
      const header = decodeLuksHeader(area, area.length);
      const opened = await unlock(header, text("correct horse"), reader(area));
      expect(opened?.slot).toBe(slot);
      expect(opened?.key).toEqual(new Uint8Array(key));
      expect(await unlock(header, text("correct house"), reader(area))).toBeUndefined();
    }
  });

  test("a single changed bit of the key material closes the slot", async () => {
    const { area } = await withKey(SPEC, 0, "x");
    const header = decodeLuksHeader(area, area.length);
    const at = (header.slots[0]?.offset ?? 0) + 100_000;
    area[at] = (area[at] ?? 0) ^ 1;
    expect(await unlock(header, text("x"), reader(area))).toBeUndefined();
  });

  test("the splitter gives back what was split, whatever the length of hash and key", () => {
    for (const hash of ["sha1", "sha256", "sha512"]) {
      for (const length of [16, 24, 32, 48, 64]) {
        const key = new Uint8Array(length).map((_, at) => at * 7);
        const material = new Uint8Array(length * 10);
        splitStripes(key, material, 10, hash);
        expect(mergeStripes(material, length, 10, hash)).toEqual(key);
      }
    }
  });

  test("more iterations than would be read back are not written", () => {
    expect(iterationsFor(1_000_000, 0)).toBe(1000);
    expect(() => iterationsFor(1e6, 1e9)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
  });
});

describe("a LUKS header that breaks its rules is refused before anything is read or derived", async () => {
  const { area } = await withKey(SPEC, 0, "x");
  const header = decodeLuksHeader(area, area.length);
  const put32 = (at: number, value: number) => (bytes: Uint8Array) => new DataView(bytes.buffer).setUint32(at, value);
  const slot = (index: number, field: number, value: number) => put32(208 + index * 48 + field, value);
  const CASES: readonly (readonly [what: string, spoil: (bytes: Uint8Array) => void, code: string, says: string])[] = [
    ["no mark", put32(0, 0), "LUKS_HEADER", "mark"],
    ["version 2", (bytes) => new DataView(bytes.buffer).setUint16(6, 2), "LUKS_HEADER", "version 2"],
    ["no key", put32(108, 0), "LUKS_HEADER", "0 bytes"],
    ["a key of 4 GiB", put32(108, 0xffff_ffff), "LUKS_HEADER", "4294967295 bytes"],
    ["a payload in the header", put32(104, 1), "LUKS_HEADER", "payload"],
    ["a cipher name without end", (bytes) => bytes.fill(0x61, 8, 40), "LUKS_HEADER", "cipher-name"],
    ["no digest iterations", put32(164, 0), "LUKS_HEADER", "no iterations"],
    ["an hour of digest iterations", put32(164, 0xffff_ffff), "LUKS_LIMIT", "4294967295"],
    ["a slot in no state", slot(3, 0, 1), "LUKS_HEADER", "key slot 3"],
    ["other stripes", slot(2, 44, 4_000_000), "LUKS_HEADER", "4000000 stripes"],
    ["a slot in the header", slot(0, 40, 1), "LUKS_HEADER", "overlaps the header"],
    ["a slot in the payload", slot(7, 40, header.payloadOffset / 512 - 1), "LUKS_HEADER", "payload"],
    ["a slot far away", slot(7, 40, 0xffff_ffff), "LUKS_HEADER", "payload"],
    ["two slots in one place", slot(7, 40, (header.slots[6]?.offset ?? 0) / 512), "LUKS_HEADER", "share"],
    ["an hour of slot iterations", slot(0, 4, MAX_LUKS_ITERATIONS + 1), "LUKS_LIMIT", "key slot 0"],
    [
      "a digest that takes an hour for all slots together",
      (bytes) => {
        put32(164, MAX_LUKS_ITERATIONS)(bytes);
        for (let index = 0; index < 8; index++) {
          slot(index, 0, 0x00ac71f3)(bytes);
          slot(index, 4, 1000)(bytes);
        }
      },
      "LUKS_LIMIT",
      "key slots",
    ],
    [
      "slots that take an hour together",
      (bytes) => {
        for (let index = 0; index < 8; index++) {
          slot(index, 0, 0x00ac71f3)(bytes);
          slot(index, 4, MAX_LUKS_ITERATIONS)(bytes);
        }
      },
      "LUKS_LIMIT",
      "key slots",
    ],
  ];

  test.each(CASES)("%s", (_what, spoil, code, says) => {
    const bytes = area.slice(0, 592);
    spoil(bytes);
    expect(() => decodeLuksHeader(bytes, area.length)).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(says) }),
    );
  });

  test("an area that ends before its key material does", () => {
    expect(() => decodeLuksHeader(area, 100_000)).toThrow(expect.objectContaining({ code: "LUKS_HEADER" }));
  });

  test("a header that is cut short", () => {
    expect(() => decodeLuksHeader(area.subarray(0, 591), area.length)).toThrow(
      expect.objectContaining({ code: "LUKS_HEADER" }),
    );
  });

  test("what was decoded is encoded to the same bytes", () => {
    const decoded: LuksHeader = decodeLuksHeader(area, area.length);
    expect(encodeLuksHeader(decoded)).toEqual(area.slice(0, 592));
  });
});
