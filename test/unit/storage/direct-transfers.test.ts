import { closeSync, constants, openSync, readSync, writeFileSync } from "node:fs";
import { afterEach, describe, expect, it, vi } from "vitest";
import { alignedBuffer, DIRECT_ALIGNMENT } from "../../../src/host/direct-io.js";
import { directReadQueue } from "../../../src/host/direct-read-queue.js";
import { DirectTransfers } from "../../../src/storage/direct-transfers.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const path = temporaryFolder();
const content = Uint8Array.from({ length: 64 * DIRECT_ALIGNMENT }, (_, index) => (index * 7 + (index >> 12)) % 256);
const queue = directReadQueue();

/** Two descriptors of one file, the first for direct I/O; undefined where the file system has none. */
function openTwice(): readonly [number, number] | undefined {
  writeFileSync(path("disk"), content);
  try {
    const direct = openSync(path("disk"), constants.O_RDWR | constants.O_DIRECT);
    readSync(direct, alignedBuffer(DIRECT_ALIGNMENT), 0, DIRECT_ALIGNMENT, 0);
    return [direct, openSync(path("disk"), "r+")];
  } catch {
    return undefined;
  }
}

describe.skipIf(queue === undefined)("DirectTransfers", () => {
  afterEach(() => vi.restoreAllMocks());

  it("still hand reads into aligned memory to the kernel's queue after one into memory that the disk refused", async () => {
    const files = openTwice();
    if (queue === undefined || files === undefined) return;
    const transfers = new DirectTransfers(...files);
    const read = vi.spyOn(queue, "read");
    const crooked = alignedBuffer(3 * DIRECT_ALIGNMENT).subarray(1, DIRECT_ALIGNMENT + 1);
    const even = alignedBuffer(DIRECT_ALIGNMENT);
    for (const at of [0, 5, 9]) {
      await transfers.read(at * DIRECT_ALIGNMENT, crooked);
      await transfers.read((at + 1) * DIRECT_ALIGNMENT, even);
      const expected = (block: number) => content.subarray(block * DIRECT_ALIGNMENT, (block + 1) * DIRECT_ALIGNMENT);
      expect(Buffer.compare(crooked, expected(at))).toBe(0);
      expect(Buffer.compare(even, expected(at + 1))).toBe(0);
    }
    expect(read.mock.calls.filter(([, , into]) => into === even).length).toBe(3);
    // Tried once; from then on it is known to be in vain, and other memory is queued in its place.
    expect(read.mock.calls.filter(([, , into]) => into === crooked).length).toBe(1);
    expect(read.mock.calls.length).toBe(6);
    for (const file of files) closeSync(file);
  });

  it("write from memory of any alignment", async () => {
    const files = openTwice();
    if (files === undefined) return;
    const transfers = new DirectTransfers(...files);
    const crooked = alignedBuffer(3 * DIRECT_ALIGNMENT)
      .subarray(1, DIRECT_ALIGNMENT + 1)
      .fill(1);
    const even = alignedBuffer(DIRECT_ALIGNMENT).fill(2);
    await transfers.write(0, crooked);
    await transfers.write(DIRECT_ALIGNMENT, even);
    await transfers.write(2 * DIRECT_ALIGNMENT, crooked);
    const found = new Uint8Array(3 * DIRECT_ALIGNMENT);
    await transfers.read(0, found);
    expect([0, 1, 2].map((block) => found[block * DIRECT_ALIGNMENT])).toEqual([1, 2, 1]);
    expect(new Set(found)).toEqual(new Set([1, 2]));
    for (const file of files) closeSync(file);
  });
});
