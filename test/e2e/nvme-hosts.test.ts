import { mkdirSync } from "node:fs";
import { afterEach, describe, expect, test } from "vitest";
import {
  ConnectionEnded,
  connectCommand,
  connectQueue,
  HOST_NQN,
  HostQueue,
  icReq,
  ioCommand,
  NvmeHost,
} from "../support/nvme-initiator.js";
import { BLOCK, DISK_NQN, TestService, ZONE_BLOCKS, zonedImage } from "../support/nvme-service.js";
import { closed, rawSocket, tcpStream } from "../support/nvme-sockets.js";
import { Random } from "../support/random.js";
import { temporaryFolder } from "../support/temporary-folder.js";

const CONVENTIONAL = 1;
const SEQUENTIAL = 2;
/** Connect Invalid Parameters and Connect Invalid Host. */
const INVALID_PARAMETERS = 0x182;
const INVALID_HOST = 0x184;
const OTHER_HOST = "nqn.2026-01.test:other-host";

const inFolder = temporaryFolder();
let served: TestService;
let count = 0;

async function start(...options: Parameters<typeof TestService.start> extends [string, ...infer Rest] ? Rest : never) {
  const folder = inFolder(`test-${count++}`);
  mkdirSync(folder);
  served = await TestService.start(await zonedImage(folder), ...options);
  return served;
}

afterEach(async () => {
  await served.service.close();
});

/** A host is served from beginning to end. */
async function expectServed(host: NvmeHost): Promise<void> {
  const data = new Uint8Array(BLOCK).fill(count);
  expect((await host.io.command(ioCommand.write(CONVENTIONAL, 9, 1, data))).status).toBe(0);
  expect((await host.io.command(ioCommand.read(CONVENTIONAL, 9, 1, BLOCK))).data).toEqual(data);
}

async function connectStatus(fields: Partial<Parameters<typeof connectCommand>[0]> = {}): Promise<number> {
  const { completion } = await connectQueue(() => tcpStream(served.port), { subsystemNqn: DISK_NQN, ...fields });
  return completion.status;
}

describe("who gets in", () => {
  test("a second host is refused while the first is there, and let in afterwards", async () => {
    await start();
    const first = await served.host();
    expect(await connectStatus({ hostNqn: OTHER_HOST, hostId: 0x22 })).toBe(INVALID_HOST);
    await expectServed(first);
    first.close();
    await served.logged("controller-gone");
    expect(await connectStatus({ hostNqn: OTHER_HOST, hostId: 0x22 })).toBe(0);
  });

  test("several hosts share a disk when told to", async () => {
    await start({ shared: true });
    const first = await served.host();
    const second = await served.host({}, 1, OTHER_HOST);
    await expectServed(first);
    await expectServed(second);
  });

  test("only listed hosts get in, and the wrong name of a disk gets nobody in", async () => {
    await start({ hosts: new Map([[HOST_NQN, {}]]) });
    expect(await connectStatus({ hostNqn: OTHER_HOST })).toBe(INVALID_HOST);
    expect(await connectStatus({ subsystemNqn: `${DISK_NQN}2` })).toBe(INVALID_PARAMETERS);
    await served.logged("connect-refused");
    await expectServed(await served.host());
  });

  test("connections above the limits are dropped, and count no more when they have gone", async () => {
    await start({}, { serverLimits: { connections: 3 } });
    const sockets = [await rawSocket(served.port), await rawSocket(served.port), await rawSocket(served.port)];
    await closed(await rawSocket(served.port));
    await served.logged("connection-limit");
    for (const socket of sockets) socket.destroy();
    while (served.service.server.connections > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await expectServed(await served.host());
    expect(served.service.server.counters().connectionsRefused).toBe(1);
  });

  test("one address cannot take all connections", async () => {
    await start({}, { serverLimits: { connections: 10, connectionsPerAddress: 2 } });
    const first = await rawSocket(served.port);
    await rawSocket(served.port);
    await closed(await rawSocket(served.port));
    first.destroy();
  });

  test("who does not connect a queue in time is cut off", async () => {
    await start({}, { limits: { handshakeMilliseconds: 50 } });
    const silent = await rawSocket(served.port);
    const slow = await rawSocket(served.port);
    slow.write(icReq());
    await Promise.all([closed(silent), closed(slow)]);
  });

  test("a host that falls silent is given up when its keep-alive time is over, and its disk is free", async () => {
    await start();
    const { queue } = await connectQueue(() => tcpStream(served.port), { subsystemNqn: DISK_NQN, keepAlive: 100 });
    await queue.untilClosed();
    await served.logged("keep-alive timer expired");
    expect(await connectStatus({ hostNqn: OTHER_HOST, hostId: 0x22 })).toBe(0);
  });
});

describe("peers that misbehave", () => {
  test("garbage ends the connection that sent it and no other", async () => {
    await start();
    const host = await served.host();
    const random = new Random(20260101);
    for (let round = 0; round < 200; round++) {
      const socket = await rawSocket(served.port);
      const gone = closed(socket);
      if (round % 2 === 1) socket.write(icReq());
      socket.end(Uint8Array.from({ length: 1 + (random.u32() % 600) }, () => random.u32() % 256));
      await gone;
    }
    await expectServed(host);
    expect(served.log.join("")).not.toContain("internal-error");
  });

  test("a host that leaves in the middle of its data harms nobody", async () => {
    await start({ shared: true });
    const host = await served.host();
    for (let round = 0; round < 20; round++) {
      const other = await served.host({}, 1, OTHER_HOST);
      other.io.answerDataRequests = false;
      const write = other.io.command(ioCommand.write(SEQUENTIAL, 0, 8, new Uint8Array(8 * BLOCK)));
      while (other.io.dataRequests.length === 0) await new Promise((resolve) => setImmediate(resolve));
      const [request] = other.io.dataRequests;
      if (request !== undefined) other.io.stream.write(other.io.encodeData(request, 0, new Uint8Array(100), false));
      other.close();
      await expect(write).rejects.toThrow(ConnectionEnded);
    }
    await expectServed(host);
    // Nothing of it was written: the zone is where it was.
    const data = new Uint8Array(BLOCK).fill(1);
    expect((await host.io.command(ioCommand.append(SEQUENTIAL, 0, 1, data))).low).toBe(0);
  });

  test("a host that does not read its data occupies a bounded amount of memory, and others go on", async () => {
    await start({ shared: true });
    const host = await served.host();
    const greedy = await NvmeHost.connect(
      async () => tcpStream(served.port),
      { subsystemNqn: DISK_NQN, hostNqn: OTHER_HOST },
      {},
      0,
    );
    const socket = await rawSocket(served.port);
    // A queue of the greedy host by hand, so that nothing reads from it.
    const capsules = new HostQueue(
      { write: () => {}, onData: () => {}, onClose: () => {}, close: () => {} },
      { inCapsule: 8192 },
    );
    socket.write(icReq());
    const fields = {
      subsystemNqn: DISK_NQN,
      hostNqn: OTHER_HOST,
      queueId: 1,
      queueSize: 127,
      controllerId: greedy.controllerId,
    };
    socket.write(capsules.encodeCapsule(0, connectCommand(fields)));
    await served.logged("queue-connected");
    const before = process.memoryUsage().arrayBuffers;
    for (let id = 1; id <= 120; id++) {
      socket.write(capsules.encodeCapsule(id, ioCommand.read(CONVENTIONAL, 0, 256, BLOCK)));
    }
    for (let round = 0; round < 50; round++) await expectServed(host);
    const { limits } = served.service.target;
    // 120 MiB were asked for; the replies of two commands may be above the limit when it is reached.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(limits.backlogBytes + 8 * 1024 * 1024);
    socket.resume();
    const arrived = await new Promise<number>((resolve) => {
      let bytes = 0;
      socket.on("data", (chunk: Uint8Array) => {
        bytes += chunk.length;
        if (bytes > 120 * 1024 * 1024) resolve(bytes);
      });
    });
    expect(arrived).toBeGreaterThan(120 * 1024 * 1024);
    socket.destroy();
  });

  test("zones that a host opened are closed when it has gone", async () => {
    await start();
    const host = await served.host();
    for (let zone = 0; zone < 6; zone++) {
      const open = ioCommand.zoneSend(SEQUENTIAL, zone * ZONE_BLOCKS, 3);
      expect((await host.io.command(open)).status).toBe(0);
    }
    expect((await host.io.command(ioCommand.zoneSend(SEQUENTIAL, 6 * ZONE_BLOCKS, 3))).status).toBe(0x1be);
    host.close();
    await served.logged("controller-gone");
    const again = await served.host();
    expect((await again.io.command(ioCommand.zoneSend(SEQUENTIAL, 6 * ZONE_BLOCKS, 3))).status).toBe(0);
  });
});

describe("discovery", () => {
  test("lists the disk and where it is", async () => {
    await start();
    const nqn = "nqn.2014-08.org.nvmexpress.discovery";
    const { queue } = await connectQueue(() => tcpStream(served.port), { subsystemNqn: nqn });
    await queue.command({ opcode: 0x7f, nsid: 0, dword11: 0x14, dword12: 0x0046_0001 });
    const { status, data } = await queue.command({ opcode: 2, dword10: 0x70 | ((512 - 1) << 16), room: 2048 });
    expect(status).toBe(0);
    const text = Buffer.from(data).toString("latin1");
    expect(text).toContain(DISK_NQN);
    expect(text).toContain("127.0.0.1");
    expect(text).toContain(String(served.port));
  });
});
