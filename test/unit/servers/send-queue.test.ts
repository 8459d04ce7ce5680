import type { Socket } from "node:net";
import { Writable } from "node:stream";
import { describe, expect, it } from "vitest";
import { DataBuffers } from "../../../src/protocols/nvme/data-buffers.js";
import { SendQueue } from "../../../src/servers/send-queue.js";

/** A socket that takes what is written at once, or when `take` is called. */
function socketThatTakes(how: "at once" | "when told") {
  const writes: string[] = [];
  const pending: (() => void)[] = [];
  const accept = (chunks: readonly Uint8Array[], done: () => void): void => {
    writes.push(Buffer.concat(chunks).toString());
    if (how === "at once") done();
    else pending.push(done);
  };
  const socket = new Writable({
    write: (chunk: Uint8Array, _encoding, done) => accept([chunk], done),
    writev: (chunks, done) =>
      accept(
        chunks.map(({ chunk }) => chunk as Uint8Array),
        done,
      ),
  });
  const take = async (): Promise<void> => {
    for (const done of pending.splice(0)) done();
    await new Promise((resolve) => setImmediate(resolve));
  };
  return { socket: socket as unknown as Socket, writes, take };
}

const text = (value: string): Uint8Array => Buffer.from(value);
const poolOf = (): DataBuffers => new DataBuffers((bytes) => new Uint8Array(bytes));

describe("SendQueue", () => {
  it("sends what waits in one write, in order", () => {
    const { socket, writes } = socketThatTakes("at once");
    const queue = new SendQueue(socket, poolOf());
    for (const piece of ["one ", "two ", "three"]) queue.put(text(piece));
    expect(queue.backlog).toBe(13);
    queue.flush();
    expect(writes).toEqual(["one two three"]);
    expect([queue.backlog, queue.bytesSent]).toEqual([0, 13]);
  });

  it("joins pieces that lie behind each other in memory, and no others", () => {
    const { socket, writes } = socketThatTakes("at once");
    const queue = new SendQueue(socket, poolOf());
    const block = text("abcdefgh");
    for (const [from, to] of [
      [0, 2],
      [2, 4],
      [6, 8],
      [4, 6],
    ] as const)
      queue.put(block.subarray(from, to));
    queue.flush();
    expect(writes.join("")).toBe("abcdghef");
  });

  it("gives memory back at once when the kernel took everything", () => {
    const { socket } = socketThatTakes("at once");
    const pool = poolOf();
    const queue = new SendQueue(socket, pool);
    const block = pool.take(4096);
    queue.put(block);
    queue.release(block);
    queue.flush();
    expect(pool.take(4096)).toBe(block);
    expect(pool.take(4096)).not.toBe(block);
  });

  it("gives memory back once, when what it holds has left, and never before", async () => {
    const { socket, take } = socketThatTakes("when told");
    const pool = poolOf();
    const queue = new SendQueue(socket, pool);
    const block = pool.take(4096);
    queue.put(block.subarray(0, 10));
    queue.release(block);
    queue.flush();
    queue.put(text("more"));
    queue.flush();
    expect(pool.freeBytes).toBe(0);
    await take();
    expect(pool.freeBytes).toBe(4096);
    await take();
    expect(pool.freeBytes).toBe(4096);
  });

  it("keeps memory from use whose socket broke while it was being sent", async () => {
    const { socket } = socketThatTakes("when told");
    const pool = poolOf();
    const queue = new SendQueue(socket, pool);
    const block = pool.take(4096);
    queue.put(block);
    queue.release(block);
    queue.flush();
    socket.on("error", () => undefined);
    socket.destroy(new Error("gone"));
    await new Promise((resolve) => setImmediate(resolve));
    expect(pool.freeBytes).toBe(0);
  });
});
