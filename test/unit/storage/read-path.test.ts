import * as fs from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { nativeCalls } from "../../../src/host/native.js";
import { ReadPath } from "../../../src/storage/read-path.js";

const KIB = 1024;
const SHARED_MEMORY = "/dev/shm";
const isShared = process.platform === "linux" && fs.existsSync(SHARED_MEMORY);

afterEach(() => {
  vi.restoreAllMocks();
});

describe.skipIf(!isShared)("reads of a file in memory", () => {
  it("are made on this thread, however long they seem to take", () => {
    const path = join(SHARED_MEMORY, `zcow-read-path-${process.pid}`);
    const fd = fs.openSync(path, "w+");
    try {
      fs.writeSync(fd, Buffer.alloc(64 * KIB, 0x5a));
      let now = 0;
      vi.spyOn(performance, "now").mockImplementation(() => {
        now += 1000;
        return now;
      });
      nativeCalls();
      const reads = new ReadPath(fd);
      const into = new Uint8Array(4 * KIB);
      for (let round = 0; round < 200; round++) expect(reads.attempt((round % 16) * 4 * KIB, into)).toBe(4 * KIB);
      expect(into.every((byte) => byte === 0x5a)).toBe(true);
    } finally {
      fs.closeSync(fd);
      fs.rmSync(path);
    }
  });
});
