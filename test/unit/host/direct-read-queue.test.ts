import { closeSync, constants, openSync, readSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { alignedBuffer } from "../../../src/host/direct-io.js";
import { directReadQueue, NOT_READ } from "../../../src/host/direct-read-queue.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const path = temporaryFolder();
const BLOCK = 4096;
const content = Uint8Array.from({ length: 600 * BLOCK + 100 }, (_, index) => (index * 13 + (index >> 12)) % 256);

/** A descriptor for direct I/O on the file, or undefined where the file system has none. */
function openDirect(): number | undefined {
  try {
    const fd = openSync(path("disk"), constants.O_RDONLY | constants.O_DIRECT);
    readSync(fd, alignedBuffer(BLOCK), 0, BLOCK, 0);
    return fd;
  } catch {
    return undefined;
  }
}

describe("DirectReadQueue", () => {
  const queue = directReadQueue();
  let fd: number | undefined;

  beforeAll(() => {
    writeFileSync(path("disk"), content);
    fd = openDirect();
  });

  afterAll(() => {
    if (fd !== undefined) closeSync(fd);
  });

  it.skipIf(queue === undefined)("is one for the whole program", () => {
    expect(directReadQueue()).toBe(queue);
  });

  it.skipIf(queue === undefined)("reads many blocks at once, each into its own buffer", async () => {
    if (queue === undefined || fd === undefined) return;
    const file = fd;
    for (let round = 0; round < 5; round++) {
      const offsets = Array.from({ length: 200 }, (_, index) => ((index * 37 + round * 11) % 600) * BLOCK);
      const buffers = offsets.map(() => alignedBuffer(BLOCK));
      const counts = await Promise.all(offsets.map((at, index) => queue.read(file, at, buffers[index] as Uint8Array)));
      for (const [index, count] of counts.entries()) {
        if (count === NOT_READ) continue;
        const at = offsets[index] ?? 0;
        expect(count).toBe(BLOCK);
        expect(Buffer.compare(buffers[index] as Uint8Array, content.subarray(at, at + BLOCK))).toBe(0);
      }
      // The kernel may pass on a few; if it passed on all, nothing was tested.
      expect(counts.filter((count) => count === BLOCK).length).toBeGreaterThan(0);
    }
  });

  it.skipIf(queue === undefined)("passes on what does not fit into it, and takes new reads afterwards", async () => {
    if (queue === undefined || fd === undefined) return;
    const file = fd;
    const buffer = alignedBuffer(BLOCK);
    const counts = await Promise.all(Array.from({ length: 400 }, () => queue.read(file, 0, buffer)));
    expect(counts.filter((count) => count === NOT_READ).length).toBeGreaterThanOrEqual(144);
    const later = await Promise.all(Array.from({ length: 100 }, () => queue.read(file, 0, buffer)));
    expect(later.some((count) => count === BLOCK)).toBe(true);
  });

  it.skipIf(queue === undefined)("is short at the end of the file", async () => {
    if (queue === undefined || fd === undefined) return;
    const counts = [
      await queue.read(fd, 600 * BLOCK, alignedBuffer(BLOCK)),
      await queue.read(fd, 700 * BLOCK, alignedBuffer(BLOCK)),
    ];
    expect([100, NOT_READ]).toContain(counts[0]);
    expect([0, NOT_READ]).toContain(counts[1]);
  });

  it.skipIf(queue === undefined)("passes on what cannot be read, and nothing else", async () => {
    if (queue === undefined || fd === undefined) return;
    const good = alignedBuffer(BLOCK);
    const counts = await Promise.all([
      queue.read(9999, 0, alignedBuffer(BLOCK)),
      queue.read(fd, 1, alignedBuffer(BLOCK)),
      queue.read(fd, BLOCK, good),
    ]);
    expect(counts.slice(0, 2)).toEqual([NOT_READ, NOT_READ]);
    if (counts[2] === BLOCK) expect(Buffer.compare(good, content.subarray(BLOCK, 2 * BLOCK))).toBe(0);
  });
});
