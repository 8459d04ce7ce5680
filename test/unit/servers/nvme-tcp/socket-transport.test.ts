import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { afterEach, describe, expect, it, vi } from "vitest";
import { DataBuffers } from "../../../../src/protocols/nvme/data-buffers.js";
import { DirectSocket } from "../../../../src/servers/direct-socket.js";
import { SocketTransport } from "../../../../src/servers/nvme-tcp/socket-transport.js";
import { taggedBytes } from "../../../support/random.js";

const KIB = 1024;
const MIB = 1024 * KIB;
const ends: (() => void)[] = [];

afterEach(() => {
  for (const end of ends.splice(0)) end();
});

async function connectedPair(): Promise<{ near: Socket; received: (length: number) => Promise<Buffer> }> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const near = connect((server.address() as AddressInfo).port, "127.0.0.1");
  const [far] = (await once(server, "connection")) as [Socket];
  ends.push(() => {
    near.destroy();
    far.destroy();
    server.close();
  });
  const received = async (length: number): Promise<Buffer> => {
    const chunks: Buffer[] = [];
    let got = 0;
    for await (const chunk of far.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      got += chunk.length;
      if (got >= length) break;
    }
    return Buffer.concat(chunks);
  };
  return { near, received };
}

/** Whatever comes, `answer` is sent. */
function answerWith(transport: SocketTransport, answer: Uint8Array): void {
  transport.attach({
    receive: () => transport.send(answer),
    drained: () => undefined,
    disconnected: () => undefined,
  });
}

describe("what is sent over a socket", () => {
  it("leaves in one write when it lies in one piece of memory", async () => {
    const { near, received } = await connectedPair();
    const transport = new SocketTransport(near, new DataBuffers((bytes) => new Uint8Array(bytes)));
    const write = vi.spyOn(near, "write");
    const bytes = taggedBytes(1, 0, 12 * KIB);
    for (let at = 0; at < bytes.length; at += 1000) transport.send(bytes.subarray(at, at + 1000));
    expect(write).not.toHaveBeenCalled();
    expect(transport.backlog).toBe(bytes.length);
    expect((await received(bytes.length)).equals(bytes)).toBe(true);
    expect(write).toHaveBeenCalledTimes(1);
    expect(transport.bytesSent).toBe(bytes.length);
  });

  it("leaves at once when it is much, in order with what waited", async () => {
    const { near, received } = await connectedPair();
    const before = vi.fn();
    const transport = new SocketTransport(near, new DataBuffers((bytes) => new Uint8Array(bytes)), {
      beforeSending: before,
    });
    const small = taggedBytes(1, 0, KIB);
    const large = taggedBytes(2, 0, 128 * KIB);
    transport.send(small);
    expect(before).not.toHaveBeenCalled();
    transport.send(large);
    transport.release(large);
    expect(before).toHaveBeenCalledTimes(1);
    expect(transport.bytesSent).toBe(small.length + large.length);
    transport.send(small);
    expect(before).toHaveBeenCalledTimes(1);
    const all = Buffer.concat([small, large, small]);
    expect((await received(all.length)).equals(all)).toBe(true);
    expect(before).toHaveBeenCalledTimes(2);
  });

  it("leaves with the last bytes that the socket held, and not with those before them", async () => {
    const { near, received } = await connectedPair();
    const before = vi.fn();
    const transport = new SocketTransport(near, new DataBuffers((bytes) => new Uint8Array(bytes)), {
      beforeSending: before,
    });
    const answer = taggedBytes(1, 0, 24);
    answerWith(transport, answer);
    transport.receive(new Uint8Array(72), false);
    expect([before.mock.calls.length, transport.bytesSent]).toEqual([0, 0]);
    transport.receive(new Uint8Array(72), true);
    expect([before.mock.calls.length, transport.bytesSent]).toEqual([1, 2 * answer.length]);
    expect((await received(2 * answer.length)).equals(Buffer.concat([answer, answer]))).toBe(true);
    expect(before).toHaveBeenCalledTimes(1);
  });

  it("leaves at the end of the turn when more was to be read and it never came", async () => {
    const { near, received } = await connectedPair();
    const transport = new SocketTransport(near, new DataBuffers((bytes) => new Uint8Array(bytes)));
    const answer = taggedBytes(1, 0, 24);
    answerWith(transport, answer);
    transport.receive(new Uint8Array(72), false);
    expect((await received(answer.length)).equals(Buffer.from(answer))).toBe(true);
  });

  it("is not sent, large or small, when what must come before it fails", async () => {
    const { near } = await connectedPair();
    const gone = vi.fn();
    const transport = new SocketTransport(near, new DataBuffers((bytes) => new Uint8Array(bytes)), {
      beforeSending: () => {
        throw new Error("the journal cannot be written");
      },
    });
    transport.attach({ receive: () => undefined, drained: () => undefined, disconnected: gone });
    const large = taggedBytes(2, 0, 128 * KIB);
    transport.send(large);
    transport.release(large);
    await once(near, "close");
    expect(transport.bytesSent).toBe(0);
    expect(gone).toHaveBeenCalledWith(expect.objectContaining({ message: "the journal cannot be written" }));
  });

  it("stays in order, and in memory until it has left, when the kernel takes only the first part of it", async () => {
    const { near, received } = await connectedPair();
    const direct = DirectSocket.over(near);
    expect(direct).toBeDefined();
    const pool = new DataBuffers((bytes) => new Uint8Array(bytes));
    const transport = new SocketTransport(near, pool, { direct });
    const sent: Uint8Array[] = [];
    for (let index = 0; transport.backlog < 2 * MIB; index++) {
      const block = pool.take(128 * KIB + 8);
      const bytes = taggedBytes(index, 0, block.length);
      block.set(bytes);
      transport.send(block);
      transport.release(block);
      sent.push(bytes);
    }
    const all = Buffer.concat(sent);
    expect((await received(all.length)).equals(all)).toBe(true);
    expect(transport.backlog).toBe(0);
  });
});
