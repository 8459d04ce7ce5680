import { afterEach, describe, expect, it, vi } from "vitest";
import { requestThreadPool } from "../../../src/host/thread-pool.js";

describe("requestThreadPool", () => {
  afterEach(() => {
    vi.unstubAllEnvs();
  });

  it.each([
    [32, "32"],
    [1, "4"],
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
