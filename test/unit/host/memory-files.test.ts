import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { isInMemory } from "../../../src/host/memory-files.js";

function withFile<T>(path: string, use: (fd: number) => T): T {
  const fd = fs.openSync(path, "w+");
  try {
    return use(fd);
  } finally {
    fs.closeSync(fd);
    fs.rmSync(path);
  }
}

describe.skipIf(process.platform !== "linux")("a file in memory", () => {
  it.skipIf(!fs.existsSync("/dev/shm"))("is told from one on a disk as stat(1) does", () => {
    for (const directory of ["/dev/shm", tmpdir()]) {
      const kind = execFileSync("stat", ["-f", "-c", "%T", directory], { encoding: "utf8" }).trim();
      const path = join(directory, `zcow-memory-files-${process.pid}`);
      expect(withFile(path, isInMemory)).toBe(kind === "tmpfs" || kind === "ramfs");
    }
  });

  it("is none when nothing is known", () => {
    expect(isInMemory(1_000_000)).toBe(false);
  });
});
