import { describe, expect, it } from "vitest";
import { ThreadTeam } from "../../../src/host/thread-team.js";

/** Runs in the threads. */
function adder(): (request: { readonly memory: SharedArrayBuffer; readonly by: number }) => number {
  const { threadId } = process.getBuiltinModule("node:worker_threads");
  return ({ memory, by }) => {
    if (by === 0) throw new Error("nothing to add");
    const bytes = new Uint8Array(memory);
    for (let at = 0; at < bytes.length; at++) bytes[at] = (bytes[at] ?? 0) + by;
    return threadId;
  };
}

describe("a team of threads", () => {
  it("has every thread at work before one has two requests", async () => {
    const team = new ThreadTeam(adder, 3, 2);
    const slots = await Promise.all(Array.from({ length: 6 }, () => team.take()));
    const threads = await Promise.all(slots.map((slot) => slot.ask({ memory: slot.memory(8), by: 1 })));
    expect(new Set(threads.slice(0, 3)).size).toBe(3);
    expect(threads.slice(3)).toEqual(threads.slice(0, 3));
    for (const slot of slots) team.give(slot);
  });

  it("gives what comes back to whoever waits longest", async () => {
    const team = new ThreadTeam(adder, 1, 1);
    const only = await team.take();
    const order: string[] = [];
    const waiting = ["first", "second"].map(async (who) => {
      const slot = await team.take();
      order.push(who);
      expect(slot).toBe(only);
      team.give(slot);
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(order).toEqual([]);
    team.give(only);
    await Promise.all(waiting);
    expect(order).toEqual(["first", "second"]);
  });

  it("keeps the memory of a slot, which the thread writes to, until more is asked for", async () => {
    const team = new ThreadTeam(adder, 1, 1);
    const slot = await team.take();
    const memory = slot.memory(16);
    await slot.ask({ memory, by: 3 });
    expect(slot.memory(4)).toBe(memory);
    expect(new Uint8Array(memory)).toEqual(new Uint8Array(16).fill(3));
    expect(slot.memory(17).byteLength).toBe(17);
    team.give(slot);
  });

  it("says what a thread failed of, to everybody who asks it from then on", async () => {
    const team = new ThreadTeam(adder, 1, 2);
    const [first, second] = [await team.take(), await team.take()];
    await expect(first.ask({ memory: first.memory(1), by: 0 })).rejects.toThrow("nothing to add");
    await expect(second.ask({ memory: second.memory(1), by: 1 })).rejects.toThrow("nothing to add");
    team.give(first);
    team.give(second);
  });
});
