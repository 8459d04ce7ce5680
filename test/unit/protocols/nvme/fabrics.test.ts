import { afterEach, describe, expect, it } from "vitest";
import {
  type ConnectFields,
  ConnectionEnded,
  connectCommand,
  connectQueue,
  HOST_NQN,
  HostQueue,
  ioCommand,
  NvmeHost,
} from "../../../support/nvme-initiator.js";
import { type Bench, type BenchOptions, memoryImage, SUBSYSTEM_NQN, startTarget } from "../../../support/nvme-pipe.js";

const MIB = 1024 * 1024;
const CONNECT = { subsystemNqn: SUBSYSTEM_NQN };
const OTHER_NQN = "nqn.2014-08.org.nvmexpress:uuid:6f1a2b3c-0000-4000-8000-000000000002";

let bench: Bench;

async function start(options: Partial<BenchOptions> = {}): Promise<void> {
  bench = startTarget({ devices: [await memoryImage({ size: 16 * MIB })], ...options });
}

async function connect(fields: Partial<ConnectFields>) {
  return (await connectQueue(() => bench.open(), { ...CONNECT, ...fields })).completion;
}

afterEach(async () => {
  await bench.target.close();
  expect(bench.target.connections.size).toBe(0);
});

describe("Connect", () => {
  const inData = (offset: number): number => 0x1_0000 | offset;

  it.each<[string, Partial<ConnectFields>, number, number]>([
    ["another record format", { recordFormat: 1 }, 0x180, 0],
    ["a subsystem that is not there", { subsystemNqn: "nqn.2026-01.test:none" }, 0x182, inData(256)],
    ["a subsystem name that is no NQN", { subsystemNqn: "disk" }, 0x182, inData(256)],
    ["no subsystem name", { subsystemNqn: "" }, 0x182, inData(256)],
    ["a host name that is no NQN", { hostNqn: "me" }, 0x182, inData(512)],
    ["a host name of 250 bytes", { hostNqn: `nqn.${"x".repeat(246)}` }, 0x182, inData(512)],
    ["an admin queue of one entry", { queueSize: 0 }, 0x182, 44],
    ["an admin queue of 4096 entries", { queueSize: 4095 }, 0x182, 44],
    ["a controller of its choice", { controllerId: 1 }, 0x182, inData(16)],
  ])("is refused for %s", async (_what, fields, status, result) => {
    await start();
    expect(await connect(fields)).toMatchObject({ status, low: result, doNotRetry: true });
    expect(bench.events).toMatchObject([{ kind: "connect-refused", status }]);
  });

  it("of an I/O queue may be tried again when the controller has gone since, as when the server was started anew", async () => {
    await start();
    const gone = { queueId: 1, controllerId: 9 };
    expect(await connect(gone)).toMatchObject({ status: 0x182, low: inData(16), doNotRetry: false });
    expect(bench.events).toMatchObject([{ kind: "connect-refused", status: 0x182 }]);
  });

  it("lets in the hosts on the list only", async () => {
    await start({ subsystem: { hosts: new Map([[HOST_NQN, {}]]) } });
    expect(await connect({ hostNqn: OTHER_NQN })).toMatchObject({ status: 0x184, low: inData(512) });
    expect(await connect({})).toMatchObject({ status: 0 });
  });

  it("wants proof of the names where TLS is required", async () => {
    await start({ subsystem: { hosts: new Map([[HOST_NQN, { requireTls: true }]]) } });
    expect(await connect({})).toMatchObject({ status: 0x184 });
    const wrong = { hostNqn: OTHER_NQN, subsystemNqn: SUBSYSTEM_NQN };
    const right = { hostNqn: HOST_NQN, subsystemNqn: SUBSYSTEM_NQN };
    const over = async (tls: typeof wrong) => (await connectQueue(() => bench.open({ tls }), CONNECT)).completion;
    expect(await over(wrong)).toMatchObject({ status: 0x184 });
    expect(await over(right)).toMatchObject({ status: 0 });
  });

  it("keeps a second host out while the first is there, and lets the same host in again", async () => {
    await start();
    const first = await NvmeHost.connect(() => bench.open(), CONNECT);
    expect(await connect({ hostNqn: OTHER_NQN })).toMatchObject({ status: 0x184 });
    expect(await connect({ hostId: 0x22 })).toMatchObject({ status: 0x184 });
    expect(await connect({})).toMatchObject({ status: 0 });
    first.close();
    bench.pipes.forEach((pipe) => pipe.close());
    expect(await connect({ hostNqn: OTHER_NQN })).toMatchObject({ status: 0 });
  });

  it("lets several hosts in where they share", async () => {
    await start({ subsystem: { shared: true } });
    expect(await connect({})).toMatchObject({ status: 0 });
    expect(await connect({ hostNqn: OTHER_NQN, hostId: 2 })).toMatchObject({ status: 0 });
    expect(bench.subsystem.controllers.size).toBe(2);
  });

  it("has a limit on controllers", async () => {
    await start({ limits: { controllers: 2 } });
    expect([(await connect({})).status, (await connect({})).status]).toEqual([0, 0]);
    expect(await connect({})).toMatchObject({ status: 0x181, doNotRetry: false });
  });

  it("checks I/O queues against their controller", async () => {
    await start({ limits: { ioQueues: 2, queueEntries: 64 } });
    const { queue, completion } = await connectQueue(() => bench.open(), CONNECT);
    const controllerId = completion.low & 0xffff;
    const io = { queueId: 1, controllerId };
    expect(await connect(io)).toMatchObject({ status: 0x0c, doNotRetry: false });
    await queue.command({ opcode: 0x7f, nsid: 0, dword11: 0x14, dword12: 0x0046_0061 });
    const others = { status: 0x182, low: inData(512), doNotRetry: false };
    expect(await connect({ ...io, hostNqn: OTHER_NQN })).toMatchObject(others);
    expect(await connect({ ...io, hostId: 0x33 })).toMatchObject(others);
    expect(await connect({ ...io, queueId: 3 })).toMatchObject({ status: 0x182, low: 42, doNotRetry: true });
    expect(await connect({ ...io, queueSize: 64 })).toMatchObject({ status: 0x182, low: 44 });
    expect(await connect({ ...io, queueSize: 63 })).toMatchObject({ status: 0, low: controllerId });
    expect(await connect(io)).toMatchObject({ status: 0x0c, doNotRetry: false });
  });

  it("comes before everything else, and once", async () => {
    await start();
    const queue = new HostQueue(bench.open(), { inCapsule: 1024 });
    await queue.initialize();
    expect(await queue.command({ opcode: 0x18 })).toMatchObject({ status: 0x0c });
    expect(await queue.command({ opcode: 0x7f, nsid: 4, dword11: 0x1c })).toMatchObject({ status: 0x0c });
    expect(await queue.command(connectCommand(CONNECT))).toMatchObject({ status: 0 });
    expect(await queue.command({ ...connectCommand(CONNECT) })).toMatchObject({ status: 0x02 });
    expect(await queue.command({ opcode: 0x7f, nsid: 1 })).toMatchObject({ status: 0x0c });
  });

  it("checks its data pointer", async () => {
    await start();
    const queue = new HostQueue(bench.open(), { inCapsule: 1024 });
    await queue.initialize();
    const sgl = (type: number, length: number, offset = 0): Uint8Array => {
      const bytes = new Uint8Array(16);
      new DataView(bytes.buffer).setUint32(0, offset, true);
      new DataView(bytes.buffer).setUint32(8, length, true);
      bytes[15] = type;
      return bytes;
    };
    const { data: _data, ...bare } = connectCommand(CONNECT);
    expect(await queue.command({ ...connectCommand(CONNECT), flags: 0 })).toMatchObject({ status: 0x02 });
    expect(await queue.command({ ...bare, sgl: sgl(0x01, 1023) })).toMatchObject({ status: 0x0f });
    expect(await queue.command({ ...bare, sgl: sgl(0x01, 1024) })).toMatchObject({ status: 0x0f });
    expect(await queue.command({ ...bare, sgl: sgl(0x01, 1024, 8) })).toMatchObject({ status: 0x16 });
    expect(await queue.command({ ...bare, sgl: sgl(0x40, 1024) })).toMatchObject({ status: 0x11 });
  });
});

describe("properties", () => {
  it("tell what the controller can do", async () => {
    await start({ limits: { queueEntries: 100 } });
    const host = await NvmeHost.connect(() => bench.open(), CONNECT, {}, 0);
    const get = (offset: number, size = 0) =>
      host.admin.command({ opcode: 0x7f, nsid: 4, dword10: size, dword11: offset });
    const capabilities = await get(0, 1);
    expect(capabilities.low & 0x1ffff).toBe(0x1_0000 | 99);
    expect((capabilities.high >>> 5) & 1).toBe(1);
    expect((capabilities.high >>> 11) & 1).toBe(1);
    expect((await get(8)).low).toBe(0x2_0000);
    expect((await get(0x14)).low).toBe(0x0046_0061);
    expect((await get(0x1c)).low).toBe(1);
    expect((await get(0x68)).status).toBe(0);
    expect([(await get(0)).status, (await get(8, 1)).status, (await get(0x40)).status]).toEqual([2, 2, 2]);
    const set = (offset: number, size = 0) =>
      host.admin.command({ opcode: 0x7f, nsid: 0, dword10: size, dword11: offset, dword12: 1 });
    expect([(await set(8)).status, (await set(0x14, 1)).status, (await set(0x20)).status]).toEqual([2, 2, 2]);
  });

  it("hold back commands until the controller is ready", async () => {
    await start();
    const { queue } = await connectQueue(() => bench.open(), CONNECT);
    expect(await queue.command({ opcode: 0x06, dword10: 1, room: 4096 })).toMatchObject({ status: 0x0c });
    expect(await queue.command({ opcode: 0x18 })).toMatchObject({ status: 0 });
    const set = (value: number) => queue.command({ opcode: 0x7f, nsid: 0, dword11: 0x14, dword12: value });
    const status = async () => (await queue.command({ opcode: 0x7f, nsid: 4, dword11: 0x1c })).low;
    await set(0x0046_0081 | 0x10);
    expect(await status()).toBe(2);
    await set(0);
    await expect.poll(status).toBe(0);
    await set(0x0046_0001);
    expect(await status()).toBe(1);
  });

  it("reset: I/O queues end, event requests are aborted, and the controller can be enabled again", async () => {
    await start();
    const host = await NvmeHost.connect(() => bench.open(), CONNECT, {}, 2);
    const event = host.admin.command({ opcode: 0x0c });
    await host.setProperty(0x14, 0);
    await expect(event).resolves.toMatchObject({ status: 0x07, doNotRetry: false });
    await Promise.all(host.queues.map((queue) => queue.untilClosed()));
    await expect.poll(() => host.getProperty(0x1c)).toBe(0);
    host.queues.length = 0;
    await host.enable();
    const queue = await host.addQueue();
    expect(await queue.command(ioCommand.flush(1))).toMatchObject({ status: 0 });
  });
});

describe("an association", () => {
  it("ends when nothing is heard from the host for too long", async () => {
    await start();
    const host = await NvmeHost.connect(() => bench.open(), { ...CONNECT, keepAlive: 4500 });
    bench.clock.advance(4_900);
    await host.admin.command({ opcode: 0x18 });
    bench.clock.advance(5_000);
    expect(await host.io.command(ioCommand.flush(1))).toMatchObject({ status: 0 });
    bench.clock.advance(5_000);
    expect(host.admin.closed).toBe(false);
    bench.clock.advance(5_000);
    await Promise.all([host.admin.untilClosed(), host.io.untilClosed()]);
    expect(bench.events.at(-1)).toMatchObject({ kind: "controller-gone", reason: "the keep-alive timer expired" });
    expect(bench.subsystem.controllers.size).toBe(0);
  });

  it("lasts for ever without a keep-alive timeout", async () => {
    await start();
    const host = await NvmeHost.connect(() => bench.open(), CONNECT);
    bench.clock.advance(1e9);
    expect(await host.io.command(ioCommand.flush(1))).toMatchObject({ status: 0 });
    expect(bench.clock.pending).toBe(0);
  });

  it("ends with its admin connection, and survives the loss of an I/O connection", async () => {
    await start();
    const host = await NvmeHost.connect(() => bench.open(), CONNECT, {}, 2);
    host.io.close();
    expect(await host.admin.command({ opcode: 0x18 })).toMatchObject({ status: 0 });
    const again = { ...CONNECT, queueId: 1, controllerId: host.controllerId };
    const { queue, completion } = await connectQueue(() => bench.open(), again);
    expect(completion.status).toBe(0);
    host.admin.close();
    await Promise.all([queue.untilClosed(), host.queues[1]?.untilClosed()]);
    expect(bench.subsystem.controllers.size).toBe(0);
  });

  it("loses a queue by Disconnect", async () => {
    await start();
    const host = await NvmeHost.connect(() => bench.open(), CONNECT);
    expect(await host.io.command({ opcode: 0x7f, nsid: 8 })).toMatchObject({ status: 0 });
    await host.io.untilClosed();
    expect(await host.admin.command({ opcode: 0x18 })).toMatchObject({ status: 0 });
    await expect(host.io.command(ioCommand.flush(1))).rejects.toBeInstanceOf(ConnectionEnded);
  });

  it("ends when its subsystem is removed or the target closes", async () => {
    await start();
    const host = await NvmeHost.connect(() => bench.open(), CONNECT);
    await bench.target.removeSubsystem(SUBSYSTEM_NQN);
    await host.admin.untilClosed();
    expect(await connect({})).toMatchObject({ status: 0x182 });
    await bench.target.close();
    const late = new HostQueue(bench.open());
    await late.untilClosed();
  });
});
