import { closeSync, openSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { ERRNO, nativeCalls, systemError } from "../../../src/host/native.js";

const loaded = nativeCalls();

describe.skipIf(loaded === undefined)("nativeCalls", () => {
  if (loaded === undefined) return;
  const calls = loaded;

  it("are the same object every time", () => {
    expect(nativeCalls()).toBe(calls);
  });

  it("read what Node.js reads", () => {
    const fd = openSync("package.json", "r");
    const into = new Uint8Array(50);
    expect(calls.pread(fd, into, 50, 10)).toBe(50);
    closeSync(fd);
    expect(Buffer.compare(into, readFileSync("package.json").subarray(10, 60))).toBe(0);
  });

  it("tell the reason of a failure", () => {
    expect(calls.pread(9999, new Uint8Array(1), 1, 0)).toBe(-1);
    expect(systemError(calls.errno(), "pread")).toMatchObject({ code: "EBADF", syscall: "pread" });
  });

  it("carry offsets above 2^32", () => {
    const fd = openSync("package.json", "r");
    expect(calls.lseek(fd, 2 ** 40 + 5, 0)).toBe(2 ** 40 + 5);
    closeSync(fd);
  });
});

describe("systemError", () => {
  it("is named as Node.js names it", () => {
    expect(systemError(ERRNO.EAGAIN, "preadv2")).toMatchObject({ code: "EAGAIN", message: "EAGAIN: preadv2" });
  });
});
