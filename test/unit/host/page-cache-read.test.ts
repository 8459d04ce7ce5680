import { execFileSync } from "node:child_process";
import { closeSync, existsSync, fsyncSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { nativeCalls } from "../../../src/host/native.js";
import { CANNOT_TELL, NOT_CACHED, PageCacheReader } from "../../../src/host/page-cache-read.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const calls = nativeCalls();

describe.skipIf(calls === undefined)("PageCacheReader", () => {
  const path = temporaryFolder();
  const content = Uint8Array.from({ length: 300_000 }, (_, index) => (index * 31 + (index >> 8)) % 256);
  const reader = calls === undefined ? undefined : new PageCacheReader(calls);

  function withFile(use: (fd: number, read: PageCacheReader["read"]) => void): void {
    writeFileSync(path("cached"), content);
    const fd = openSync(path("cached"), "r");
    try {
      use(fd, (...asked) => reader?.read(...asked) ?? Number.NaN);
    } finally {
      closeSync(fd);
    }
  }

  it("reads cached bytes into exactly the view given, whichever buffer it is in", () => {
    withFile((fd, read) => {
      const views = [
        new Uint8Array(4096),
        new Uint8Array(70_000).subarray(123, 66_123),
        new Uint8Array(16),
        new Uint8Array(new SharedArrayBuffer(8192), 100, 5000),
        Buffer.from("0123456789"),
      ];
      for (let round = 0; round < 10; round++) {
        for (const view of views) {
          view.fill(0);
          const at = round * 1111 + view.length;
          if (read(fd, at, view) === CANNOT_TELL) return;
          expect(Buffer.compare(view, content.subarray(at, at + view.length))).toBe(0);
        }
      }
    });
  });

  it("says how much there was at the end of the file", () => {
    withFile((fd, read) => {
      const view = new Uint8Array(1000);
      const count = read(fd, content.length - 10, view);
      if (count === CANNOT_TELL) return;
      expect(count).toBe(10);
      expect(read(fd, content.length, view)).toBe(0);
    });
  });

  it("reads nothing into an empty or detached view", () => {
    withFile((fd, read) => {
      expect(read(fd, 0, new Uint8Array())).toBe(0);
      const view = new Uint8Array(4096);
      read(fd, 0, view);
      structuredClone(view.buffer, { transfer: [view.buffer] });
      expect(read(fd, 0, view)).toBe(0);
    });
  });

  it("does not read from the disk what is not cached", () => {
    const file = path("cold");
    writeFileSync(file, content);
    const fd = openSync(file, "r+");
    try {
      writeSync(fd, content, 0, content.length, 0);
      fsyncSync(fd);
      execFileSync("dd", [`if=${file}`, "iflag=nocache", "count=0", "status=none"]);
      const count = reader?.read(fd, 0, new Uint8Array(4096)) ?? Number.NaN;
      // tmpfs cannot tell; a kernel under pressure may have kept the page.
      expect([NOT_CACHED, CANNOT_TELL, 4096]).toContain(count);
    } finally {
      closeSync(fd);
    }
  });

  it.skipIf(!existsSync("/dev/shm"))("gives the bytes or says that it cannot tell, in a file system in memory", () => {
    const folder = mkdtempSync(join("/dev/shm", "zcow-test-"));
    writeFileSync(join(folder, "x"), content);
    const fd = openSync(join(folder, "x"), "r");
    try {
      expect([CANNOT_TELL, 4096]).toContain(reader?.read(fd, 0, new Uint8Array(4096)));
    } finally {
      closeSync(fd);
      rmSync(folder, { recursive: true });
    }
  });
});
