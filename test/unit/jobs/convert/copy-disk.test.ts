import { describe, expect, it } from "vitest";
import { ZcowError } from "../../../../src/base/errors.js";
import { createImage } from "../../../../src/formats/create-image.js";
import { openImage } from "../../../../src/formats/open-image.js";
import { openRaw } from "../../../../src/formats/raw/device.js";
import { convertDisks } from "../../../../src/jobs/convert/convert.js";
import { dataSpans } from "../../../../src/jobs/convert/zero-scan.js";
import { faultStorage } from "../../../../src/storage/fault-storage.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { taggedBytes } from "../../../support/random.js";

const MiB = 1024 * 1024;

describe("zeros in a buffer", () => {
  it("are found in units that are aligned on the disk", () => {
    const bytes = new Uint8Array(4096);
    bytes[600] = 1;
    bytes[4095] = 1;
    expect(dataSpans(bytes, 0, 512)).toEqual([
      { start: 512, end: 1024 },
      { start: 3584, end: 4096 },
    ]);
    expect(dataSpans(bytes, 256, 1024)).toEqual([
      { start: 0, end: 768 },
      { start: 3840, end: 4096 },
    ]);
  });

  it("give nothing when there is nothing else, and all when there is none", () => {
    expect(dataSpans(new Uint8Array(1000), 0, 512)).toEqual([]);
    expect(dataSpans(new Uint8Array(1000).fill(1), 0, 512)).toEqual([{ start: 0, end: 1000 }]);
  });
});

describe("copying a disk", () => {
  it("joins sources of any size", async () => {
    const parts = [taggedBytes(1, 0, 3 * MiB + 512), new Uint8Array(512), taggedBytes(2, 0, MiB)];
    const target = memoryStorage(new Uint8Array(5 * MiB));
    const sources = parts.map((bytes) => openRaw(memoryStorage(bytes), { readOnly: true }));
    await convertDisks(sources, openRaw(target), { targetIsZero: true });
    const whole = Buffer.concat(parts);
    expect(Buffer.compare(target.bytes().subarray(0, whole.length), whole)).toBe(0);
  });

  it("writes zeros over what a target holds", async () => {
    const source = taggedBytes(1, 0, 2 * MiB);
    source.fill(0, 100_000, 900_000);
    const target = memoryStorage(new Uint8Array(2 * MiB).fill(255));
    await convertDisks([openRaw(memoryStorage(source), { readOnly: true })], openRaw(target), { targetIsZero: false });
    expect(Buffer.compare(target.bytes(), source)).toBe(0);
  });

  it("refuses a target that is too small before it writes", async () => {
    const target = memoryStorage(new Uint8Array(MiB).fill(7));
    const source = openRaw(memoryStorage(new Uint8Array(2 * MiB)), { readOnly: true });
    const copy = async (): Promise<void> => convertDisks([source], openRaw(target), { targetIsZero: false });
    await expect(copy()).rejects.toMatchObject({ code: "TARGET_TOO_SMALL" });
    expect(target.bytes().every((byte) => byte === 7)).toBe(true);
  });

  it("turns exactly the sectors that cannot be read into zeros, when told to salvage", async () => {
    const bytes = taggedBytes(3, 0, MiB);
    const bad = 300 * 512;
    const inner = openRaw(memoryStorage(bytes), { readOnly: true });
    const source = Object.create(inner, {
      read: {
        value: (offset: number, into: Uint8Array) => {
          if (offset <= bad && offset + into.length > bad) throw new ZcowError("IO_ERROR", "bad sector");
          return inner.read(offset, into);
        },
      },
      extents: { value: (offset: number, length: number) => inner.extents(offset, length) },
      size: { value: inner.size },
    });
    const target = memoryStorage(new Uint8Array(MiB));
    const lost: number[] = [];
    const onUnreadable = (offset: number, length: number): void => {
      lost.push(offset, length);
    };
    await convertDisks([source], openRaw(target), { targetIsZero: true, onUnreadable });
    expect(lost).toEqual([bad, 512]);
    bytes.fill(0, bad, bad + 512);
    expect(Buffer.compare(target.bytes(), bytes)).toBe(0);
  });

  it("ends with the first failure of the target, and nothing in flight", async () => {
    const target = faultStorage(memoryStorage(new Uint8Array(8 * MiB)), {
      rules: [{ fault: { type: "error" }, kinds: ["write"], nth: 3 }],
    });
    const source = openRaw(memoryStorage(taggedBytes(4, 0, 8 * MiB)), { readOnly: true });
    await expect(convertDisks([source], openRaw(target), { targetIsZero: true })).rejects.toMatchObject({
      code: "IO_ERROR",
    });
  });

  it("stores clusters compressed, once each, however the source is cut", async () => {
    const source = new Uint8Array(3 * MiB + 1024);
    source.fill(7, 60_000, 70_000);
    source.fill(9, 2 * MiB, 2 * MiB + 5);
    source[source.length - 1] = 1;
    const image = memoryStorage();
    await createImage(image, { format: "qcow2", size: source.length });
    const target = await openImage(image, { format: "qcow2" });
    const reports: number[] = [];
    await convertDisks([openRaw(memoryStorage(source), { readOnly: true })], target, {
      targetIsZero: true,
      compressed: true,
      onProgress: (done) => reports.push(done),
    });
    const copy = new Uint8Array(source.length);
    await target.read(0, copy);
    expect(Buffer.compare(copy, source)).toBe(0);
    expect(reports.at(-1)).toBe(source.length);
    expect(image.size()).toBeLessThan(1024 * 1024);
    await target.close();
  });
});
