import { closeSync, fstatSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type ImageUse, lockImage, parseLockList } from "../../../src/host/image-lock.js";
import { nativeCalls } from "../../../src/host/native.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const calls = nativeCalls();
const path = temporaryFolder();

describe.skipIf(calls === undefined)("lockImage", () => {
  let first: number;
  let second: number;

  beforeEach(() => {
    writeFileSync(path("disk"), "x");
    first = openSync(path("disk"), "r+");
    second = openSync(path("disk"), "r+");
  });

  afterEach(() => {
    closeSync(first);
    closeSync(second);
  });

  it.each<[ImageUse, ImageUse, string]>([
    ["write", "write", 'Failed to get "write" lock'],
    ["read", "write", 'Failed to get "write" lock'],
    ["write", "read", 'Failed to get shared "write" lock'],
    ["write", "inspect", 'Failed to get shared "write" lock'],
  ])("after %s refuses %s as stock does", (held, asked, text) => {
    expect(lockImage(calls, first, "disk", held)).toBe("held");
    expect(() => lockImage(calls, second, "disk", asked)).toThrow(
      expect.objectContaining({
        code: "LOCKED",
        errno: "EAGAIN",
        stockText: `${text}\nIs another process using the image [disk]?`,
      }),
    );
  });

  it.each<[ImageUse, ImageUse]>([
    ["read", "read"],
    ["read", "inspect"],
    ["read", "shared"],
    ["write", "shared"],
    ["shared", "write"],
    ["shared", "shared"],
  ])("after %s allows %s", (held, asked) => {
    lockImage(calls, first, "disk", held);
    expect(() => lockImage(calls, second, "disk", asked)).not.toThrow();
  });

  it("leaves no lock behind when it only inspects", () => {
    expect(lockImage(calls, first, "disk", "inspect")).toBe("checked");
    expect(lockImage(calls, second, "disk", "write")).toBe("held");
  });

  it("lets go when the descriptor is closed", () => {
    const third = openSync(path("disk"), "r+");
    lockImage(calls, third, "disk", "write");
    closeSync(third);
    expect(lockImage(calls, first, "disk", "write")).toBe("held");
  });

  it("sees the locks of others without the native helper", () => {
    lockImage(calls, first, "disk", "write");
    expect(() => lockImage(undefined, second, "disk", "inspect")).toThrow(expect.objectContaining({ code: "LOCKED" }));
    expect(() => lockImage(undefined, second, "disk", "write")).toThrow(expect.objectContaining({ code: "LOCKED" }));
  });

  it("sees no locks where there are none, without the native helper", () => {
    expect(lockImage(undefined, second, "disk", "write")).toBe("checked");
  });

  it("finds its bytes in the kernel's list", () => {
    lockImage(calls, first, "disk", "write");
    const { dev, ino } = fstatSync(second, { bigint: true });
    const found = parseLockList(readFileSync("/proc/locks", "latin1"), dev, ino);
    const bytes = found.flatMap(([from, to]) => Array.from({ length: to - from + 1 }, (_, index) => from + index));
    expect(bytes.toSorted((a, b) => a - b)).toEqual([100, 101, 103, 201, 203]);
  });
});

describe("parseLockList", () => {
  const list = [
    "1: OFDLCK ADVISORY  READ -1 fe:00:1234 100 101",
    "2: POSIX  ADVISORY  WRITE 77 fe:00:1234 0 EOF",
    "3: OFDLCK ADVISORY  READ -1 fe:01:1234 203 203",
    "3: -> OFDLCK ADVISORY  READ -1 fe:00:1234 5 5",
    "4: OFDLCK ADVISORY  WRITE -1 fe:00:1234 300 EOF",
    "5: OFDLCK ADVISORY  READ -1 fe:00:99 7 7",
    "",
  ].join("\n");

  it("takes the locks of open file descriptions on that file", () => {
    expect(parseLockList(list, 0xfe00n, 1234n)).toEqual([
      [100, 101],
      [300, Number.POSITIVE_INFINITY],
    ]);
  });

  it("goes by the inode alone where the device has no major number", () => {
    expect(parseLockList(list, 0x1bn, 1234n).map(([from]) => from)).toEqual([100, 203, 300]);
  });

  it("finds nothing in an empty list", () => {
    expect(parseLockList("", 0xfe00n, 1234n)).toEqual([]);
  });
});
