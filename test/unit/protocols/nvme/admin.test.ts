import { afterEach, describe, expect, it } from "vitest";
import { namespacesOf } from "../../../../src/protocols/nvme/namespace.js";
import { type Completion, ioCommand, NvmeHost } from "../../../support/nvme-initiator.js";
import {
  type Bench,
  type BenchOptions,
  memoryImage,
  SUBSYSTEM_NQN,
  startTarget,
  testIdentity,
} from "../../../support/nvme-pipe.js";

const MIB = 1024 * 1024;
let bench: Bench;
let host: NvmeHost;

async function start(options: Partial<BenchOptions> = {}): Promise<void> {
  const zoned = await memoryImage({ size: 8 * MIB, zone: { mode: "host-managed", size: MIB } });
  bench = startTarget({ devices: [await memoryImage({ size: 16 * MIB }), zoned], ...options });
  host = await NvmeHost.connect(() => bench.open(), { subsystemNqn: SUBSYSTEM_NQN });
}

afterEach(async () => {
  await bench.target.close();
});

function viewOf(completion: Completion): DataView {
  expect(completion.status).toBe(0);
  return new DataView(completion.data.slice().buffer);
}

function textOf(completion: Completion, at: number, length: number): string {
  return new TextDecoder().decode(completion.data.subarray(at, at + length)).replace(/[ \0]+$/, "");
}

describe("Identify", () => {
  it("tells about the controller what hosts insist on", async () => {
    await start({ limits: { inCapsuleBytes: 16384, transferBytes: 2 * MIB, queueEntries: 256 } });
    const completion = await host.identify(1);
    const view = viewOf(completion);
    expect([textOf(completion, 4, 20), textOf(completion, 768, 256)]).toEqual(["T1", SUBSYSTEM_NQN]);
    expect(view.getUint16(78, true)).toBe(host.controllerId);
    expect({
      multipath: view.getUint8(76),
      mdts: view.getUint8(77),
      type: view.getUint8(111),
      keepAlive: view.getUint16(320, true),
      sqes: view.getUint8(512),
      cqes: view.getUint8(513),
      maxCommands: view.getUint16(514, true),
      namespaces: view.getUint32(516, true),
      oncs: view.getUint16(520, true),
      cache: view.getUint8(525) & 1,
      sgls: view.getUint32(536, true) & 3,
      capsule: view.getUint32(1792, true),
      response: view.getUint32(1796, true),
    }).toEqual({
      multipath: 0,
      mdts: 9,
      type: 1,
      keepAlive: 10,
      sqes: 0x66,
      cqes: 0x44,
      maxCommands: 256,
      namespaces: 1024,
      oncs: 0x18d,
      cache: 1,
      sgls: 1,
      capsule: (64 + 16384) / 16,
      response: 1,
    });
  });

  it("marks a subsystem that is reached through several controllers", async () => {
    await start({ subsystem: { multipath: true } });
    expect(viewOf(await host.identify(1)).getUint8(76)).toBe(2);
    expect(viewOf(await host.identify(0, 1)).getUint8(30)).toBe(1);
    expect(viewOf(await host.identify(8, 1)).getUint8(1)).toBe(1);
  });

  it("names each namespace, with its command set", async () => {
    await start();
    const plain = await host.identify(3, 1);
    expect([...plain.data.subarray(0, 4)]).toEqual([2, 16, 0, 0]);
    expect([...plain.data.subarray(20, 24)]).toEqual([3, 16, 0, 0]);
    expect([...plain.data.subarray(24, 40)]).toEqual(Array.from({ length: 16 }, () => 1));
    expect([...plain.data.subarray(40, 46)]).toEqual([4, 1, 0, 0, 0, 0]);
    expect((await host.identify(3, 2)).data[44]).toBe(2);
    expect((await host.identify(3, 9)).status).toBe(0x0b);
  });

  it("tells which commands of a command set have which limits", async () => {
    await start({ limits: { appendBytes: 64 * 1024, transferBytes: MIB } });
    expect((await host.identify(6, 0, 0)).data[0]).toBe(8);
    expect((await host.identify(6, 0, 2)).data[0]).toBe(4);
    expect((await host.identify(6, 0, 1)).status).toBe(2);
    expect(viewOf(await host.identify(0x1c)).getUint32(0, true)).toBe(5);
  });

  it("answers for namespaces that are not there, or not of that command set", async () => {
    await start();
    expect((await host.identify(0, 7)).data.every((byte) => byte === 0)).toBe(true);
    expect((await host.identify(0, 0)).status).toBe(0x0b);
    expect((await host.identify(0, 2000)).status).toBe(0x0b);
    expect((await host.identify(0, 0xffffffff)).status).toBe(0);
    expect((await host.identify(5, 1, 2)).status).toBe(2);
    expect((await host.identify(5, 2, 0)).status).toBe(2);
    expect((await host.identify(5, 1, 0)).status).toBe(0);
    expect((await host.identify(5, 7, 2)).data.every((byte) => byte === 0)).toBe(true);
    expect((await host.identify(5, 2, 1)).status).toBe(2);
    expect((await host.identify(8, 1)).data[14]).toBe(1);
    expect((await host.identify(0x55)).status).toBe(2);
    expect((await host.admin.command({ opcode: 6, dword10: 1, room: 512 })).status).toBe(0x0f);
  });

  it("lists namespaces and controllers", async () => {
    await start();
    const list = async (cns: number, nsid: number, csi = 0) => {
      const view = viewOf(await host.identify(cns, nsid, csi));
      return [view.getUint32(0, true), view.getUint32(4, true), view.getUint32(8, true)];
    };
    expect(await list(2, 0)).toEqual([1, 2, 0]);
    expect(await list(0x10, 1)).toEqual([2, 0, 0]);
    expect(await list(7, 0, 0)).toEqual([1, 0, 0]);
    expect(await list(7, 0, 2)).toEqual([2, 0, 0]);
    expect((await host.identify(2, 0xfffffffe)).status).toBe(0x0b);
    const controllers = viewOf(await host.identify(0x13));
    expect([controllers.getUint16(0, true), controllers.getUint16(2, true)]).toEqual([1, host.controllerId]);
  });
});

describe("log pages", () => {
  it("say what commands each command set has", async () => {
    await start();
    const supported = async (csi: number, opcode: number) => {
      const view = viewOf(await host.logPage(5, 4096, { csi }));
      return view.getUint32(1024 + opcode * 4, true) & 1;
    };
    expect([await supported(2, 0x7d), await supported(0, 0x7d), await supported(0, 0x01)]).toEqual([1, 0, 1]);
    expect(viewOf(await host.logPage(5, 4096)).getUint32(6 * 4, true) & 1).toBe(1);
    expect((await host.logPage(5, 4096, { csi: 1 })).status).toBe(2);
  });

  it("are read in parts, with zeros behind their end", async () => {
    await start();
    const whole = await host.logPage(2, 512);
    expect(viewOf(whole).getUint16(1, true)).toBe(300);
    const part = await host.logPage(2, 1024, { offset: 256 });
    expect([...part.data.subarray(0, 256)]).toEqual([...whole.data.subarray(256)]);
    expect(part.data.subarray(256).every((byte) => byte === 0)).toBe(true);
    expect((await host.logPage(2, 512, { offset: 516 })).status).toBe(2);
    expect((await host.logPage(2, 512, { offset: 2 })).status).toBe(2);
    expect((await host.logPage(0x33, 512)).status).toBe(0x109);
    expect((await host.logPage(0x70, 512)).status).toBe(0x109);
    expect((await host.logPage(0, 1024)).data[0xbf * 4]).toBe(1);
    expect((await host.logPage(3, 512)).data[0]).toBe(1);
  });

  it("keep the newest failed commands and count the work done", async () => {
    await start();
    await host.io.command(ioCommand.write(1, 0, 4, new Uint8Array(4 * 4096)));
    expect(await host.io.command(ioCommand.read(1, 1e9, 1, 4096))).toMatchObject({ status: 0x80 });
    expect(await host.io.command({ ...ioCommand.write(2, 5, 1, new Uint8Array(4096)), id: 321 })).toMatchObject({
      status: 0x1bc,
    });
    const view = viewOf(await host.logPage(1, 4096));
    expect([Number(view.getBigUint64(0, true)), Number(view.getBigUint64(64, true))]).toEqual([2, 1]);
    expect([view.getUint16(8, true), view.getUint16(10, true), view.getUint16(12, true)]).toEqual([
      1,
      321,
      (0x1bc << 1) | 0x8000,
    ]);
    expect([Number(view.getBigUint64(16, true)), view.getUint32(24, true)]).toEqual([5, 2]);
    const health = viewOf(await host.logPage(2, 512));
    expect(Number(health.getBigUint64(80, true))).toBe(2);
  });
});

describe("features", () => {
  const get = (feature: number, select = 0) => host.admin.command({ opcode: 0x0a, dword10: feature | (select << 8) });
  const set = (feature: number, value: number, more = {}) =>
    host.admin.command({ opcode: 0x09, dword10: feature, dword11: value, ...more });

  it("tell how many queues there are", async () => {
    await start({ limits: { ioQueues: 5 } });
    expect(await set(7, 0x000f_000f)).toMatchObject({ status: 0, low: 0x0004_0004 });
    expect(await get(7)).toMatchObject({ status: 0, low: 0x0004_0004 });
    expect((await set(7, 0xffff)).status).toBe(2);
  });

  it("are kept until the controller is reset", async () => {
    await start();
    expect((await set(0x0b, 0x100)).status).toBe(0);
    expect((await get(0x0b)).low).toBe(0x100);
    expect((await get(0x0b, 1)).low).toBe(0);
    expect((await get(0x0b, 3)).low).toBe(4);
    expect((await set(1, 3)).status).toBe(0);
    expect((await get(1)).low).toBe(3);
    expect((await set(0x0f, 2500)).status).toBe(0);
    expect((await get(0x0f)).low).toBe(3000);
    await host.setProperty(0x14, 0);
    await expect.poll(() => host.getProperty(0x1c)).toBe(0);
    await host.enable();
    expect([(await get(0x0b)).low, (await get(1)).low]).toEqual([0, 0]);
  });

  it("are refused when they are unknown, fixed, to be saved or of one namespace", async () => {
    await start();
    expect([(await get(0x33)).status, (await set(0x33, 1)).status]).toEqual([2, 2]);
    expect([(await get(6)).low, (await set(6, 1)).status, (await set(6, 0)).status]).toEqual([1, 0, 0x10e]);
    expect((await host.admin.command({ opcode: 9, dword10: 0x8000_0007, dword11: 0 })).status).toBe(0x10d);
    expect((await set(1, 0, { nsid: 1 })).status).toBe(0x10f);
  });

  it("unknown admin commands are refused, and nothing unknown is aborted", async () => {
    await start();
    expect((await host.admin.command({ opcode: 0x0d })).status).toBe(1);
    expect((await host.admin.command({ opcode: 0x7f, nsid: 5 })).status).toBe(1);
    expect(await host.admin.command({ opcode: 8, dword10: 5 })).toMatchObject({ status: 0, low: 1 });
    const first = host.admin.command({ opcode: 0x0c, id: 50 });
    expect((await host.admin.command({ opcode: 0x18, id: 50 }).catch(() => undefined))?.status).toBe(3);
    first.catch(() => undefined);
    host.close();
  });
});

describe("asynchronous events", () => {
  const request = () => host.admin.command({ opcode: 0x0c });
  const enable = (bits: number) => host.admin.command({ opcode: 9, dword10: 0x0b, dword11: bits });

  it("tell of namespaces that come and go", async () => {
    await start();
    await enable(0x100);
    const event = request();
    bench.subsystem.removeNamespace(1);
    expect(await event).toMatchObject({ status: 0, low: 0x0004_0002 });
    const [added] = namespacesOf(await memoryImage({ size: MIB }), { firstNsid: 5, identity: testIdentity });
    if (added !== undefined) bench.subsystem.addNamespace(added);
    const second = request();
    const changed = viewOf(await host.logPage(4, 4096));
    expect([changed.getUint32(0, true), changed.getUint32(4, true), changed.getUint32(8, true)]).toEqual([1, 5, 0]);
    expect(viewOf(await host.logPage(4, 4096)).getUint32(0, true)).toBe(0);
    bench.subsystem.removeNamespace(5);
    expect(await second).toMatchObject({ low: 0x0004_0002 });
    expect((await host.io.command(ioCommand.flush(5))).status).toBe(0x0b);
  });

  it("tell of zones that an administrator changed, once until the log is read", async () => {
    await start();
    await enable(2 ** 27);
    await bench.subsystem.setZoneState(2, 3, "read-only");
    await bench.subsystem.setZoneState(2, 1, "offline");
    expect(await request()).toMatchObject({ low: 0x00bf_ef02, high: 2 });
    const second = request();
    const kept = viewOf(await host.logPage(0xbf, 4096, { nsid: 2, retain: true }));
    expect(kept.getUint16(0, true)).toBe(2);
    const log = viewOf(await host.logPage(0xbf, 4096, { nsid: 2 }));
    expect([log.getUint16(0, true), Number(log.getBigUint64(8, true)), Number(log.getBigUint64(16, true))]).toEqual([
      2, 256, 768,
    ]);
    await bench.subsystem.setZoneState(2, 1, "online");
    expect(await second).toMatchObject({ low: 0x00bf_ef02 });
    expect((await host.logPage(0xbf, 4096, { nsid: 1 })).status).toBe(0x0b);
    await expect(bench.subsystem.setZoneState(2, 99, "offline")).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    await expect(bench.subsystem.setZoneState(1, 0, "offline")).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  it("are not sent to hosts that did not ask for them, and requests have a limit", async () => {
    await start();
    const requests = Array.from({ length: 5 }, () => request().catch(() => undefined));
    expect((await requests[4])?.status).toBe(0x105);
    bench.subsystem.removeNamespace(1);
    expect((await host.admin.command({ opcode: 0x18 })).status).toBe(0);
    expect(host.admin.outstanding).toBe(4);
  });
});

describe("the discovery service", () => {
  const DISCOVERY = "nqn.2014-08.org.nvmexpress.discovery";
  const ports = [
    { address: "192.0.2.1", service: 4420, portId: 1 },
    { service: 8009, portId: 2, tls: true },
  ];

  it("lists the subsystems and how to reach them", async () => {
    await start({ target: { ports } });
    const open = () => bench.open({ localAddress: "2001:db8::1" });
    const discovery = await NvmeHost.connect(open, { subsystemNqn: DISCOVERY }, {}, 0);
    const identify = viewOf(await discovery.identify(1));
    expect([identify.getUint8(111), identify.getUint16(320, true)]).toEqual([2, 10]);
    const header = viewOf(await discovery.logPage(0x70, 1024));
    expect(Number(header.getBigUint64(8, true))).toBe(2);
    const log = await discovery.logPage(0x70, 3072);
    const record = (index: number) => ({
      kinds: [...log.data.subarray(1024 * (index + 1), 1024 * (index + 1) + 4)],
      service: textOf(log, 1024 * (index + 1) + 32, 32),
      nqn: textOf(log, 1024 * (index + 1) + 256, 256),
      address: textOf(log, 1024 * (index + 1) + 512, 256),
      security: log.data[1024 * (index + 1) + 768],
    });
    const nqn = SUBSYSTEM_NQN;
    expect(record(0)).toEqual({ kinds: [3, 1, 2, 6], service: "4420", nqn, address: "192.0.2.1", security: 0 });
    expect(record(1)).toEqual({ kinds: [3, 2, 2, 5], service: "8009", nqn, address: "2001:db8::1", security: 2 });
    const tail = await discovery.logPage(0x70, 1024, { offset: 2048 });
    expect(Buffer.compare(tail.data, log.data.subarray(2048))).toBe(0);
  });

  it("shows hosts only what they may use, tells of changes, and does nothing else", async () => {
    await start({ target: { ports }, subsystem: { hosts: new Map([["nqn.2026-01.test:someone", {}]]) } }).catch(
      () => undefined,
    );
    const discovery = await NvmeHost.connect(() => bench.open(), { subsystemNqn: DISCOVERY }, {}, 0);
    const log = viewOf(await discovery.logPage(0x70, 1024));
    expect(Number(log.getBigUint64(8, true))).toBe(0);
    await discovery.admin.command({ opcode: 9, dword10: 0x0b, dword11: 0x8000_0000 });
    const event = discovery.admin.command({ opcode: 0x0c });
    await bench.target.removeSubsystem(SUBSYSTEM_NQN);
    expect(await event).toMatchObject({ low: 0x0070_f002 });
    expect(viewOf(await discovery.logPage(0x70, 1024)).getBigUint64(0, true)).toBeGreaterThan(
      log.getBigUint64(0, true),
    );
    expect((await discovery.identify(2)).status).toBe(2);
    expect((await discovery.logPage(2, 512)).status).toBe(0x109);
    expect((await discovery.admin.command({ opcode: 9, dword10: 7, dword11: 0 })).status).toBe(2);
    expect((await discovery.admin.command({ opcode: 8 })).status).toBe(1);
    await expect(discovery.addQueue()).rejects.toThrow("0x182");
  });
});
