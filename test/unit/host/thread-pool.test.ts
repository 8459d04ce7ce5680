import { availableParallelism } from "node:os";
import { afterEach, describe, expect, it, vi } from "vitest";
import { copyQueue, prepareForCopies, requestThreadPool } from "../../../src/host/thread-pool.js";

describe("requestThreadPool", () => {
  afterEach(() => {
    vi.unstubAllEnvs();
  });

  it.each([
    [32, "32"],
    [0.5, "1"],
    [5000, "1024"],
    [8.9, "8"],
  ])("asks for %d threads within what Node.js takes", (threads, set) => {
    vi.stubEnv("UV_THREADPOOL_SIZE", undefined);
    expect(requestThreadPool(threads)).toBe(Number(set));
    expect(process.env["UV_THREADPOOL_SIZE"]).toBe(set);
  });

  it("leaves a size that the environment sets", () => {
    vi.stubEnv("UV_THREADPOOL_SIZE", "7");
    expect(requestThreadPool(32)).toBe(7);
    expect(process.env["UV_THREADPOOL_SIZE"]).toBe("7");
  });
});

describe("a program that only copies", () => {
  afterEach(() => {
    vi.unstubAllEnvs();
  });

  it("keeps few threads busy, or as many as the environment says when these are fewer", () => {
    vi.stubEnv("UV_THREADPOOL_SIZE", undefined);
    expect(copyQueue()).toBeUndefined();
    prepareForCopies();
    const threads = availableParallelism() + 1;
    expect(process.env["UV_THREADPOOL_SIZE"]).toBe(String(threads));
    expect(copyQueue()).toBe(3 * threads);
    vi.stubEnv("UV_THREADPOOL_SIZE", "1");
    prepareForCopies();
    expect(copyQueue()).toBe(3);
  });
});
