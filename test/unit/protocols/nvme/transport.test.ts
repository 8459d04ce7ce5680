import { describe, expect, it } from "vitest";
import { crc32c } from "../../../../src/codec/crc32c.js";
import {
  ConnectionEnded,
  connectQueue,
  HostQueue,
  icReq,
  ioCommand,
  NvmeHost,
  type QueueOptions,
  referenceCrc32c,
} from "../../../support/nvme-initiator.js";
import { type Bench, memoryImage, Pipe, SUBSYSTEM_NQN, startTarget } from "../../../support/nvme-pipe.js";
import { Random, taggedBytes } from "../../../support/random.js";
import { equalBytes } from "../../../support/sector-history.js";

const KIB = 1024;
const MIB = 1024 * KIB;
const BLOCK = 4096;
const CONNECT = { subsystemNqn: SUBSYSTEM_NQN };

async function plainTarget(limits: Parameters<typeof startTarget>[0]["limits"] = {}): Promise<Bench> {
  return startTarget({ devices: [await memoryImage({ size: 64 * MIB })], limits: limits ?? {} });
}

async function connected(bench: Bench, options: QueueOptions = {}): Promise<NvmeHost> {
  return NvmeHost.connect(() => bench.open(), CONNECT, options);
}

/** Sends bytes on a new connection (after ICReq when `initialized`) and returns how the target ended it. */
async function provoke(bench: Bench, bytes: Uint8Array, initialized = true, options: QueueOptions = {}) {
  const queue = new HostQueue(bench.open(), options);
  if (initialized) await queue.initialize();
  queue.stream.write(bytes);
  await queue.untilClosed();
  return queue.termination;
}

/** A PDU with some bytes changed. */
function changed(bytes: Uint8Array, changes: Readonly<Record<number, number>>): Uint8Array {
  const copy = bytes.slice();
  for (const [at, value] of Object.entries(changes)) copy[Number(at)] = value;
  return copy;
}

function pdu(
  type: number,
  headerLength: number,
  length: number,
  more: Readonly<Record<number, number>> = {},
): Uint8Array {
  const bytes = new Uint8Array(Math.max(headerLength, 8));
  bytes[0] = type;
  bytes[2] = headerLength;
  new DataView(bytes.buffer).setUint32(4, length, true);
  return changed(bytes, more);
}

describe("the checksum of digests", () => {
  it("is CRC32C", () => {
    const text = new TextEncoder().encode("123456789");
    expect(crc32c(text, 0, text.length)).toBe(0xe3069283);
    expect(crc32c(new Uint8Array(32), 0, 32)).toBe(0x8a9136aa);
    expect(crc32c(text, 3, 0)).toBe(0);
  });

  it("agrees with a plain one on any range", () => {
    const random = new Random(7);
    const bytes = Uint8Array.from({ length: 300 }, () => random.below(256));
    for (let round = 0; round < 200; round++) {
      const start = random.below(300);
      const length = random.below(301 - start);
      expect(crc32c(bytes, start, length)).toBe(referenceCrc32c(bytes.subarray(start, start + length)));
    }
  });
});

describe("the start of a connection", () => {
  it.each([
    ["a version that is not known", icReq({ pfv: 1 }), 6, 8],
    ["an alignment above 31", icReq({ hpda: 32 }), 1, 10],
    ["digest bits that do not exist", icReq({ digests: 4 }), 1, 11],
    ["another header length", changed(icReq(), { 2: 127 }), 1, 2],
    ["another length", changed(icReq(), { 4: 129 }), 1, 4],
    ["a command before ICReq", pdu(4, 72, 72), 2, 0],
  ])("is refused with %s", async (_what, bytes, fes, fei) => {
    const bench = await plainTarget();
    const termination = await provoke(bench, bytes, false);
    expect([termination?.fes, termination?.fei]).toEqual([fes, fei]);
    expect(bench.events).toMatchObject([{ kind: "protocol-error", fes }]);
    expect(bench.target.connections.size).toBe(0);
  });

  it("takes one ICReq only", async () => {
    const bench = await plainTarget();
    expect(await provoke(bench, icReq())).toMatchObject({ fes: 2 });
  });

  it("is dropped when no queue is connected in time", async () => {
    const bench = await plainTarget();
    const queue = new HostQueue(bench.open());
    await queue.initialize();
    bench.clock.advance(9_999);
    expect(queue.closed).toBe(false);
    bench.clock.advance(1);
    await queue.untilClosed();
    expect(queue.closed).toBe(true);
  });

  it("cuts off a host that does not close a connection that was ended", async () => {
    const bench = await plainTarget();
    const pipe = bench.open();
    pipe.held = true;
    pipe.write(pdu(4, 72, 72));
    expect([pipe.ended, pipe.destroyedFor]).toEqual([true, undefined]);
    bench.clock.advance(5_000);
    expect(pipe.destroyedFor).toBeInstanceOf(Error);
  });

  it("ends when the host asks for it", async () => {
    const bench = await plainTarget();
    await provoke(bench, pdu(2, 24, 24, { 8: 3 }));
    expect(bench.events).toMatchObject([{ kind: "terminated-by-host", fes: 3 }]);
  });
});

describe("a PDU that breaks the rules ends its connection", () => {
  it.each([
    ["a type that hosts do not send", pdu(5, 24, 24), 1, 0],
    ["a type that does not exist", pdu(0x77, 24, 24), 1, 0],
    ["a capsule with a wrong header length", pdu(4, 71, 72), 1, 2],
    ["a capsule shorter than its header", pdu(4, 72, 40, { 3: 72 }), 1, 4],
    ["a capsule of 4 GiB", pdu(4, 72, 0xffff_ffff, { 3: 72 }), 1, 4],
    ["a capsule with more data than is allowed", pdu(4, 72, 72 + 8193, { 3: 72 }), 1, 4],
    ["data that does not start behind the header", pdu(4, 72, 72 + 1024, { 3: 76 }), 1, 3],
    ["a digest that was not agreed on", pdu(4, 72, 72, { 1: 1 }), 1, 1],
    ["data for nobody", new Uint8Array([...pdu(6, 24, 28, { 3: 24, 16: 4 }), 0, 0, 0, 0]), 1, 10],
    ["H2CData without data", pdu(6, 24, 24, { 3: 24 }), 1, 4],
    ["H2CData above MAXH2CDATA", pdu(6, 24, 24 + 0x20001, { 3: 24 }), 5, 0],
    ["H2CData that contradicts itself", pdu(6, 24, 28, { 3: 24, 16: 5 }), 1, 16],
    ["H2CTermReq with a wrong length", pdu(2, 24, 153), 1, 4],
  ])("%s", async (_what, bytes, fes, fei) => {
    const bench = await plainTarget();
    const termination = await provoke(bench, bytes);
    expect([termination?.fes, termination?.fei]).toEqual([fes, fei]);
    expect(termination?.header[0]).toBe(bytes[0]);
  });

  it("a wrong header digest, which it gets back", async () => {
    const bench = await plainTarget();
    const queue = new HostQueue(new Pipe(), { headerDigest: true });
    const capsule = queue.encodeCapsule(1, { opcode: 0x18 });
    const termination = await provoke(bench, changed(capsule, { 20: 9 }), true, { headerDigest: true });
    const stored = new DataView(capsule.buffer).getUint32(72, true);
    expect([termination?.fes, termination?.fei]).toEqual([3, stored]);
  });

  it("a missing digest flag", async () => {
    const bench = await plainTarget();
    const queue = new HostQueue(new Pipe(), { headerDigest: true });
    const capsule = changed(queue.encodeCapsule(1, { opcode: 0x18 }), { 1: 0 });
    expect(await provoke(bench, capsule, true, { headerDigest: true })).toMatchObject({ fes: 1, fei: 1 });
  });

  it("more commands than the queue has entries", async () => {
    const bench = await plainTarget();
    const { queue } = await connectQueue(() => bench.open(), { ...CONNECT, queueSize: 3 });
    await expect(NvmeHost.prototype.setProperty.call({ admin: queue }, 0x14, 0x0046_0061)).resolves.toBeUndefined();
    const requests = Array.from({ length: 6 }, () => queue.command({ opcode: 0x0c }).catch((error: unknown) => error));
    const results = await Promise.all(requests);
    expect(results[5]).toBeInstanceOf(ConnectionEnded);
    expect(queue.termination).toMatchObject({ fes: 2 });
  });
});

describe("data on its way to the target", () => {
  async function withOpenRequest(): Promise<{ bench: Bench; host: NvmeHost; write: Promise<unknown> }> {
    const bench = await plainTarget({ h2cDataBytes: 4096 });
    const host = await connected(bench);
    host.io.answerDataRequests = false;
    const data = taggedBytes(1, 0, 4 * BLOCK);
    const write = host.io.command(ioCommand.write(1, 0, 4, data)).catch((error: unknown) => error);
    await expect.poll(() => host.io.dataRequests.length).toBe(1);
    return { bench, host, write };
  }

  it("is asked for in one piece, and comes in pieces of MAXH2CDATA", async () => {
    const { host, write } = await withOpenRequest();
    const request = host.io.dataRequests[0];
    expect(request).toMatchObject({ offset: 0, length: 4 * BLOCK });
    if (request !== undefined) host.io.answer(request);
    expect(await write).toMatchObject({ status: 0 });
    const { data } = await host.io.command(ioCommand.read(1, 0, 4, BLOCK));
    expect(equalBytes(data, taggedBytes(1, 0, 4 * BLOCK))).toBe(true);
  });

  it.each([
    ["for another command", { command: 1 }, 0, 4096, false, 1],
    ["for another tag", { tag: 1 }, 0, 4096, false, 1],
    ["out of order", {}, 4096, 4096, false, 4],
    ["past the end", {}, 0, 4096, true, 1],
    ["twice", {}, 0, 4096, false, 4],
  ] as const)("ends the connection when it comes %s", async (what, change, offset, length, last, fes) => {
    const { host, write } = await withOpenRequest();
    const request = host.io.dataRequests[0];
    if (request === undefined) throw new Error("no R2T");
    const commandId = request.commandId + ("command" in change ? change.command : 0);
    const wrong = { commandId, tag: request.tag + ("tag" in change ? change.tag : 0) };
    if (what === "twice") host.io.stream.write(host.io.encodeData(request, 0, new Uint8Array(length), false));
    host.io.stream.write(host.io.encodeData(wrong, offset, new Uint8Array(length), last));
    expect(await write).toBeInstanceOf(ConnectionEnded);
    expect(host.io.termination).toMatchObject({ fes });
  });

  it("waits for its turn when there is too much of it, and all of it comes", async () => {
    const bench = await plainTarget({ transferBytes: MIB, writeBytesInFlight: MIB });
    const host = await connected(bench);
    host.io.answerDataRequests = false;
    const size = 256 * KIB;
    const writes = Array.from({ length: 10 }, (_, index) =>
      host.io.command(ioCommand.write(1, index * 64, 64, taggedBytes(index, 0, size))),
    );
    await expect.poll(() => host.io.dataRequests.length).toBe(4);
    host.io.answerDataRequests = true;
    for (const request of host.io.dataRequests.splice(0)) host.io.answer(request);
    expect((await Promise.all(writes)).map((one) => one.status)).toEqual(writes.map(() => 0));
    const { data } = await host.io.command(ioCommand.read(1, 9 * 64, 64, BLOCK));
    expect(equalBytes(data, taggedBytes(9, 0, size))).toBe(true);
  });

  it("fails the command alone when its digest is wrong", async () => {
    const bench = await plainTarget();
    const options = { headerDigest: true, dataDigest: true };
    const host = await connected(bench, options);
    host.io.answerDataRequests = false;
    const data = taggedBytes(1, 0, BLOCK);
    const write = host.io.command(ioCommand.write(1, 0, 1, data));
    await expect.poll(() => host.io.dataRequests.length).toBe(1);
    const request = host.io.dataRequests[0];
    if (request === undefined) throw new Error("no R2T");
    const good = host.io.encodeData(request, 0, data, true);
    host.io.stream.write(changed(good, { 100: (good[100] as number) ^ 1 }));
    expect(await write).toMatchObject({ status: 0x22, doNotRetry: false });
    host.io.options = { ...options, inCapsule: 8192 };
    const pipe = host.io.stream as Pipe;
    const send = pipe.write.bind(pipe);
    pipe.write = (bytes) => send(changed(bytes, { 100: (bytes[100] as number) ^ 1 }));
    expect(await host.io.command(ioCommand.write(1, 0, 1, data))).toMatchObject({ status: 0x22 });
    pipe.write = send;
    const { data: found } = await host.io.command(ioCommand.read(1, 0, 1, BLOCK));
    expect(found.every((byte) => byte === 0)).toBe(true);
  });
});

describe.each<QueueOptions & { readonly name: string }>([
  { name: "plain" },
  { name: "data in capsules", inCapsule: 8192 },
  { name: "header digests", headerDigest: true },
  { name: "data digests", dataDigest: true, inCapsule: 4096 },
  { name: "both digests, wide alignment", headerDigest: true, dataDigest: true, hpda: 31 },
  { name: "without flow control", disableFlowControl: true },
  { name: "without flow control, digests", disableFlowControl: true, headerDigest: true, dataDigest: true },
])("transfers: $name", (options) => {
  it.each([Number.POSITIVE_INFINITY, 1, 7, 4099])("arrive whole, in pieces of %s bytes", async (pieces) => {
    const bench = await plainTarget();
    const open = (): Pipe => Object.assign(bench.open(), { pieces });
    const host = await NvmeHost.connect(open, CONNECT, options);
    const sizes = [1, 2, 3, 17, 1];
    const writes = sizes.map((blocks, index) =>
      host.io.command(ioCommand.write(1, index * 32, blocks, taggedBytes(index, 0, blocks * BLOCK))),
    );
    expect((await Promise.all(writes)).map((one) => one.status)).toEqual([0, 0, 0, 0, 0]);
    const reads = await Promise.all(
      sizes.map((blocks, index) => host.io.command(ioCommand.read(1, index * 32, blocks, BLOCK))),
    );
    reads.forEach((read, index) => {
      const length = (sizes[index] as number) * BLOCK;
      expect([read.status, equalBytes(read.data, taggedBytes(index, 0, length))]).toEqual([0, true]);
      expect(read.onData).toBe(options.disableFlowControl === true);
    });
    host.close();
  });

  it("count the completions in SQHD", async () => {
    const bench = await plainTarget();
    const host = await connected(bench, options);
    const queue = await host.addQueue(3);
    const heads: number[] = [];
    for (let round = 0; round < 5; round++) heads.push((await queue.command(ioCommand.flush(1))).sqHead);
    const expected = options.disableFlowControl === true ? [0xffff, 0xffff, 0xffff, 0xffff, 0xffff] : [2, 3, 0, 1, 2];
    expect(heads).toEqual(expected);
    expect((await queue.command(ioCommand.flush(1))).sqId).toBe(2);
  });
});

describe("a host that does not read its replies", () => {
  it("occupies a bounded amount of memory, and loses nothing", async () => {
    const limits = { backlogBytes: 128 * KIB, transferBytes: 64 * KIB, appendBytes: 64 * KIB };
    const bench = await plainTarget(limits);
    const host = await connected(bench);
    const pipe = bench.pipes.at(-1) as Pipe;
    expect(await host.io.command(ioCommand.write(1, 0, 16, taggedBytes(3, 0, 64 * KIB)))).toMatchObject({ status: 0 });
    pipe.held = true;
    const reads = Array.from({ length: 100 }, () => host.io.command(ioCommand.read(1, 0, 16, BLOCK)));
    expect(pipe.paused).toBe(true);
    expect(pipe.largestBacklog).toBeLessThan(128 * KIB + 2 * 65 * KIB);
    pipe.letGo();
    const done = await Promise.all(reads);
    expect(done.every((one) => one.status === 0 && equalBytes(one.data, taggedBytes(3, 0, 64 * KIB)))).toBe(true);
    expect(pipe.paused).toBe(false);
  });

  it("is dropped when the transport goes on delivering", async () => {
    const bench = await plainTarget({ backlogBytes: 64 * KIB });
    const host = await connected(bench);
    const pipe = bench.pipes.at(-1) as Pipe;
    pipe.held = true;
    const reads = Array.from({ length: 100 }, () => host.io.command(ioCommand.read(1, 0, 16, BLOCK)).catch(() => 0));
    for (let round = 0; round < 20; round++) pipe.connection?.receive(new Uint8Array(64 * KIB));
    expect(pipe.destroyedFor).toBeInstanceOf(Error);
    host.close();
    await Promise.all(reads);
  });
});
