import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { BlockDevice } from "../../src/block/block-device.js";
import { collect } from "../support/collect.js";
import { contentsOf, expectSameBytes } from "../support/disk-bytes.js";
import { Random } from "../support/random.js";

/** A fresh device of {@link BLOCK_DEVICE_SIZE} zeros that takes writes anywhere, and the way to open it again. */
export interface BlockDeviceFixture {
  /** Opens the image; again after the device was closed. */
  readonly open: (options: { readonly readOnly: boolean }) => Promise<BlockDevice>;
  /** The bytes of the image file now. */
  readonly imageBytes: () => Uint8Array;
}

export type BlockDeviceFactory = () => Promise<BlockDeviceFixture>;

/** Bytes: a bit more than two clusters of 64 KiB, and no multiple of a cluster. */
export const BLOCK_DEVICE_SIZE = 150 * 1024 + 512;

const STEPS = 400;

function pattern(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => 1 + ((index * 13 + seed * 57) % 255));
}

/** The promises of the block device contract, for any disk that takes random writes. `grows`: it can get larger while it is open. */
export function describeBlockDevice(name: string, make: BlockDeviceFactory, { grows = true } = {}): void {
  describe(`${name} keeps the block device contract`, () => {
    let fixture: BlockDeviceFixture;
    let device: BlockDevice;

    beforeEach(async () => {
      fixture = await make();
      device = await fixture.open({ readOnly: false });
    });

    afterEach(async () => {
      await device.close();
    });

    it("has the size it was made with and reads as zeros", async () => {
      expect(device.size).toBe(BLOCK_DEVICE_SIZE);
      expect(device.readOnly).toBe(false);
      expectSameBytes(await contentsOf(device), new Uint8Array(BLOCK_DEVICE_SIZE));
    });

    it.each([
      [0, 512],
      [512, 4096],
      [65536 - 512, 1024],
      [4096, 130_048],
      [BLOCK_DEVICE_SIZE - 512, 512],
      [0, BLOCK_DEVICE_SIZE],
    ])("gives back what was written at %d, %d bytes of it, and nothing else", async (offset, length) => {
      const expected = new Uint8Array(BLOCK_DEVICE_SIZE);
      expected.set(pattern(length, 3), offset);
      await device.write(offset, pattern(length, 3));
      expectSameBytes(await contentsOf(device), expected);
    });

    it("keeps what was written over close and reopen", async () => {
      await device.write(1024, pattern(70_000 - (70_000 % 512), 5));
      const before = await contentsOf(device);
      await device.close();
      device = await fixture.open({ readOnly: false });
      expectSameBytes(await contentsOf(device), before);
    });

    it.each([true, false])("reads zeros after writing zeroes (unmap %s)", async (unmap) => {
      await device.write(0, pattern(BLOCK_DEVICE_SIZE, 7));
      await device.writeZeroes(512, 100 * 1024, { unmap });
      const expected = pattern(BLOCK_DEVICE_SIZE, 7).fill(0, 512, 512 + 100 * 1024);
      expectSameBytes(await contentsOf(device), expected);
    });

    it("keeps everything outside a discarded range", async () => {
      await device.write(0, pattern(BLOCK_DEVICE_SIZE, 9));
      await device.discard(65536, 65536);
      const found = await contentsOf(device);
      const expected = pattern(BLOCK_DEVICE_SIZE, 9);
      expectSameBytes(found.subarray(0, 65536), expected.subarray(0, 65536));
      expectSameBytes(found.subarray(131_072), expected.subarray(131_072));
    });

    it("agrees with a plain array over many random requests", async () => {
      const random = new Random(20_260_001);
      const shadow = new Uint8Array(BLOCK_DEVICE_SIZE);
      const sectors = BLOCK_DEVICE_SIZE / 512;
      for (let step = 0; step < STEPS; step++) {
        const first = random.below(sectors);
        const count = 1 + random.below(Math.min(64, sectors - first));
        const [offset, length] = [first * 512, count * 512];
        const kind = random.below(4);
        if (kind === 0) {
          await device.writeZeroes(offset, length, { unmap: random.chance(0.5) });
          shadow.fill(0, offset, offset + length);
        } else if (kind < 3) {
          await device.write(offset, pattern(length, step));
          shadow.set(pattern(length, step), offset);
        } else {
          const bytes = new Uint8Array(length);
          await device.read(offset, bytes);
          expectSameBytes(bytes, shadow.subarray(offset, offset + length));
        }
      }
      expectSameBytes(await contentsOf(device), shadow);
    });

    it("serves many requests at once", async () => {
      const pieces = Array.from({ length: 37 }, (_, index) => index * 4096);
      await Promise.all(pieces.map((offset, index) => device.write(offset, pattern(4096, index))));
      const found = await Promise.all(
        pieces.map(async (offset) => {
          const bytes = new Uint8Array(4096);
          await device.read(offset, bytes);
          return bytes;
        }),
      );
      for (const [index, bytes] of found.entries()) expectSameBytes(bytes, pattern(4096, index));
    });

    it("covers exactly the range that is asked for with its extents, in order", async () => {
      await device.write(4096, pattern(512, 1));
      await device.write(140_288, pattern(512, 1));
      for (const [offset, length] of [
        [0, BLOCK_DEVICE_SIZE],
        [512, 1024],
        [100_352, 50_000 - (50_000 % 512)],
      ] as const) {
        let at = offset;
        for (const extent of await collect(device.extents(offset, length))) {
          expect(extent.offset).toBe(at);
          expect(extent.length).toBeGreaterThan(0);
          at += extent.length;
        }
        expect(at).toBe(offset + length);
      }
    });

    it("says 'zero' only of extents that read as zeros", async () => {
      await device.write(4096, pattern(66_048, 1));
      for (const extent of await collect(device.extents(0, BLOCK_DEVICE_SIZE))) {
        if (!extent.zero) continue;
        const bytes = new Uint8Array(extent.length).fill(0xee);
        await device.read(extent.offset, bytes);
        expectSameBytes(bytes, new Uint8Array(extent.length));
      }
    });

    it("maps data extents to the bytes of the storage", async () => {
      await device.write(0, pattern(BLOCK_DEVICE_SIZE, 11));
      await device.flush();
      const expected = pattern(BLOCK_DEVICE_SIZE, 11);
      for (const extent of await collect(device.extents(0, BLOCK_DEVICE_SIZE))) {
        expect(extent.kind).toBe("data");
        const at = extent.hostOffset ?? Number.NaN;
        const stored = fixture.imageBytes().subarray(at, at + extent.length);
        expectSameBytes(stored, expected.subarray(extent.offset, extent.offset + extent.length));
      }
    });

    it("refuses requests that reach past the end, and changes nothing", async () => {
      const call = async (action: () => unknown): Promise<unknown> => action();
      for (const [offset, length] of [
        [BLOCK_DEVICE_SIZE, 512],
        [BLOCK_DEVICE_SIZE - 512, 1024],
        [0, BLOCK_DEVICE_SIZE + 512],
      ] as const) {
        const refused = { code: "OUT_OF_RANGE" };
        await expect(call(() => device.read(offset, new Uint8Array(length)))).rejects.toMatchObject(refused);
        await expect(call(() => device.write(offset, pattern(length, 1)))).rejects.toMatchObject(refused);
        await expect(call(() => device.writeZeroes(offset, length))).rejects.toMatchObject(refused);
        await expect(call(() => device.discard(offset, length))).rejects.toMatchObject(refused);
      }
      expectSameBytes(await contentsOf(device), new Uint8Array(BLOCK_DEVICE_SIZE));
    });

    it("answers requests of length zero anywhere on the disk", async () => {
      await device.read(BLOCK_DEVICE_SIZE, new Uint8Array(0));
      await device.write(BLOCK_DEVICE_SIZE, new Uint8Array(0));
      await device.writeZeroes(0, 0);
      await device.discard(512, 0);
    });

    it("refuses changes when opened read-only, and reads", async () => {
      await device.write(0, pattern(512, 1));
      await device.close();
      device = await fixture.open({ readOnly: true });
      expect(device.readOnly).toBe(true);
      const call = async (action: () => unknown): Promise<unknown> => action();
      await expect(call(() => device.write(0, pattern(512, 2)))).rejects.toMatchObject({ code: "READ_ONLY" });
      await expect(call(() => device.writeZeroes(0, 512))).rejects.toMatchObject({ code: "READ_ONLY" });
      await expect(call(() => device.discard(0, 512))).rejects.toMatchObject({ code: "READ_ONLY" });
      await device.flush();
      expectSameBytes((await contentsOf(device)).subarray(0, 512), pattern(512, 1));
    });

    it("grows while it is used, where it can, and reads as zeros behind its old end", async () => {
      if (device.grow === undefined) return expect(grows).toBe(false);
      expect(grows).toBe(true);
      const [first, second] = [BLOCK_DEVICE_SIZE + 1024, 3 * 1024 * 1024];
      const expected = new Uint8Array(second);
      expected.set(pattern(BLOCK_DEVICE_SIZE, 4));
      await device.write(0, pattern(BLOCK_DEVICE_SIZE, 4));
      await device.grow(first);
      expect(device.size).toBe(first);
      expectSameBytes(await contentsOf(device), expected.subarray(0, first));
      expected.set(pattern(1536, 8), first - 1024);
      await Promise.all([device.write(first - 1024, pattern(1024, 8)), device.grow(second), device.grow(second)]);
      await device.write(first, pattern(1536, 8).subarray(1024));
      await device.write(second - 512, pattern(512, 2));
      expected.set(pattern(512, 2), second - 512);
      expectSameBytes(await contentsOf(device), expected);
      await device.close();
      device = await fixture.open({ readOnly: false });
      expect(device.size).toBe(second);
      expectSameBytes(await contentsOf(device), expected);
    });

    it("refuses sizes that it cannot have, and keeps its own", async () => {
      if (device.grow === undefined) return expect(grows).toBe(false);
      await device.write(0, pattern(512, 1));
      await expect(device.grow(BLOCK_DEVICE_SIZE - 512)).rejects.toMatchObject({ code: "SHRINK_NOT_ALLOWED" });
      await expect(device.grow(BLOCK_DEVICE_SIZE + 1)).rejects.toMatchObject({ code: "MISALIGNED" });
      await expect(device.grow(Number.NaN)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
      await device.grow(BLOCK_DEVICE_SIZE);
      expect(device.size).toBe(BLOCK_DEVICE_SIZE);
      await device.close();
      const readOnly = await fixture.open({ readOnly: true });
      expect(() => readOnly.grow?.(BLOCK_DEVICE_SIZE + 512)).toThrowError(
        expect.objectContaining({ code: "READ_ONLY" }),
      );
      await readOnly.close();
      device = await fixture.open({ readOnly: false });
      expect(device.size).toBe(BLOCK_DEVICE_SIZE);
    });

    it("closes more than once and refuses requests afterwards", async () => {
      await device.close();
      await device.close();
      await device[Symbol.asyncDispose]();
      const call = async (action: () => unknown): Promise<unknown> => action();
      await expect(call(() => device.read(0, new Uint8Array(512)))).rejects.toMatchObject({ code: "CLOSED" });
      await expect(call(() => device.flush())).rejects.toMatchObject({ code: "CLOSED" });
    });
  });
}
