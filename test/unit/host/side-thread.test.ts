import { afterEach, describe, expect, it } from "vitest";
import { SideThread } from "../../../src/host/side-thread.js";

let thread: { close(): Promise<void> } | undefined;

afterEach(async () => {
  await thread?.close();
  thread = undefined;
});

describe("a function in a thread of its own", () => {
  it("answers in order, and keeps what it has made for itself", async () => {
    const counting = new SideThread<number, number[]>(() => {
      let calls = 0;
      return (number) => [++calls, number * 2];
    });
    thread = counting;
    const answers = [5, 6, 7].map((number) => counting.ask(number));
    expect(counting.pending).toBe(3);
    expect(await Promise.all(answers)).toEqual([
      [1, 10],
      [2, 12],
      [3, 14],
    ]);
    expect(counting.pending).toBe(0);
  });

  it("works in another thread, on memory that both share", async () => {
    const shared = new Uint8Array(new SharedArrayBuffer(8));
    const filling = new SideThread<Uint8Array, boolean>(() => (bytes) => {
      bytes.fill(7);
      return process.getBuiltinModule("node:worker_threads").isMainThread;
    });
    thread = filling;
    expect(await filling.ask(shared)).toBe(false);
    expect([...shared]).toEqual([7, 7, 7, 7, 7, 7, 7, 7]);
  });

  it("fails what is asked when the function throws, and everything after", async () => {
    const failing = new SideThread<number, number>(() => (number) => {
      if (number === 2) throw new Error("two is too many");
      return number;
    });
    thread = failing;
    // Waited for: what a thread says last may be lost with it.
    await failing.ask(1);
    const results = await Promise.allSettled([2, 3].map((number) => failing.ask(number)));
    expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    await expect(failing.ask(4)).rejects.toThrow("two is too many");
  });

  it("fails what is asked when the thread ends by itself, or is ended", async () => {
    const leaving = new SideThread<number, number>(() => () => process.exit(0));
    thread = leaving;
    await expect(leaving.ask(1)).rejects.toThrow("the thread has ended");
    const endless = new SideThread<number, number>(() => () => {
      for (;;);
    });
    const asked = endless.ask(1);
    const refused = expect(asked).rejects.toThrow("the thread was ended");
    await endless.close();
    await refused;
  });
});
