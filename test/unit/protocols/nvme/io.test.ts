import { afterEach, describe, expect, it, vi } from "vitest";
import type { ErrorCode } from "../../../../src/base/error-codes.js";
import { ZcowError } from "../../../../src/base/errors.js";
import type { BlockDevice } from "../../../../src/block/block-device.js";
import type { FaultInjector } from "../../../../src/protocols/nvme/namespace-faults.js";
import { statusFromError } from "../../../../src/protocols/nvme/status-from-error.js";
import { type CommandFields, ioCommand, NvmeHost, type QueueOptions } from "../../../support/nvme-initiator.js";
import { type Bench, type BenchOptions, memoryImage, SUBSYSTEM_NQN, startTarget } from "../../../support/nvme-pipe.js";
import { taggedBytes } from "../../../support/random.js";
import { equalBytes } from "../../../support/sector-history.js";

const KIB = 1024;
const MIB = 1024 * KIB;
const BLOCK = 4096;

let bench: Bench;
let host: NvmeHost;
let device: BlockDevice;

async function start(options: Partial<BenchOptions> = {}, queue: QueueOptions = {}, zoned = false): Promise<void> {
  const zone = zoned ? ({ mode: "host-managed", size: MIB } as const) : undefined;
  device = await memoryImage({ size: 16 * MIB, ...(zone === undefined ? {} : { zone }) });
  bench = startTarget({ devices: [device], ...options });
  host = await NvmeHost.connect(() => bench.open(), { subsystemNqn: SUBSYSTEM_NQN }, queue);
}

afterEach(async () => {
  await bench.target.close();
});

async function statusOf(command: CommandFields): Promise<number> {
  return (await host.io.command(command)).status;
}

function inject(injector: FaultInjector): void {
  const namespace = bench.subsystem.namespaces.get(1);
  if (namespace !== undefined) namespace.faults = injector;
}

describe("an ordinary namespace", () => {
  it("stores blocks, zeros, copies, compares and forgets", async () => {
    await start();
    const data = taggedBytes(1, 0, 8 * BLOCK);
    expect(await statusOf(ioCommand.write(1, 100, 8, data))).toBe(0);
    expect(await statusOf(ioCommand.write(1, 104, 8, data, true))).toBe(0);
    const { data: found } = await host.io.command(ioCommand.read(1, 100, 12, BLOCK, true));
    expect(equalBytes(found.subarray(0, 4 * BLOCK), data.subarray(0, 4 * BLOCK))).toBe(true);
    expect(equalBytes(found.subarray(4 * BLOCK), data)).toBe(true);
    expect(await statusOf(ioCommand.writeZeroes(1, 104, 4))).toBe(0);
    expect(await statusOf({ ...ioCommand.writeZeroes(1, 108, 1), dword12: 0x0200_0000 })).toBe(0);
    expect(await statusOf(ioCommand.compare(1, 104, 5, new Uint8Array(5 * BLOCK)))).toBe(0);
    expect(
      await statusOf(
        ioCommand.copy(1, 200, [
          { lba: 100, blocks: 2 },
          { lba: 104, blocks: 1 },
        ]),
      ),
    ).toBe(0);
    const { data: copied } = await host.io.command(ioCommand.read(1, 200, 3, BLOCK));
    expect(equalBytes(copied.subarray(0, 2 * BLOCK), data.subarray(0, 2 * BLOCK))).toBe(true);
    expect(copied.subarray(2 * BLOCK).every((byte) => byte === 0)).toBe(true);
    const ranges = [
      { lba: 100, blocks: 4 },
      { lba: 4, blocks: 0 },
    ];
    expect(await statusOf(ioCommand.deallocate(1, ranges))).toBe(0);
    expect(await statusOf({ ...ioCommand.deallocate(1, ranges), dword11: 0 })).toBe(0);
    expect(await statusOf(ioCommand.verify(1, 0, 256))).toBe(0);
    expect([await statusOf(ioCommand.flush(1)), await statusOf(ioCommand.flush(0xffffffff))]).toEqual([0, 0]);
    expect(bench.subsystem.namespaces.get(1)?.counters).toMatchObject({ reads: 2, writes: 4, flushes: 2, errors: 0 });
  });

  it("a deallocation may send the list of ranges at full length; only those that it names count", async () => {
    await start();
    // One whole cluster, and a block behind it.
    const written = taggedBytes(1, 0, 17 * BLOCK);
    await statusOf(ioCommand.write(1, 112, 17, written));
    const named = ioCommand.deallocate(1, [{ lba: 112, blocks: 16 }]);
    const list = new Uint8Array(4096).fill(0xff);
    list.set(named.data as Uint8Array);
    expect(await statusOf({ ...named, data: list })).toBe(0);
    const { data: left } = await host.io.command(ioCommand.read(1, 112, 17, BLOCK));
    expect(left.subarray(0, 16 * BLOCK).every((byte) => byte === 0)).toBe(true);
    expect(equalBytes(left.subarray(16 * BLOCK), written.subarray(16 * BLOCK))).toBe(true);
    expect(await statusOf({ ...named, data: new Uint8Array(4112) })).toBe(0x0f);
  });

  it("writes with FUA are durable before they end", async () => {
    await start();
    const flush = vi.spyOn(device, "write");
    await host.io.command(ioCommand.write(1, 0, 1, new Uint8Array(BLOCK), true));
    await host.io.command(ioCommand.write(1, 0, 1, new Uint8Array(BLOCK)));
    expect(flush.mock.calls.map((call) => call[2])).toEqual([{ fua: true }, undefined]);
  });

  it.each<[string, CommandFields, number]>([
    ["a read past the end", ioCommand.read(1, 4095, 2, BLOCK), 0x80],
    ["a read at a block above 2^53", { ...ioCommand.read(1, 0, 1, BLOCK), dword11: 0xffffffff }, 0x80],
    ["a write past the end", ioCommand.write(1, 4096, 1, new Uint8Array(BLOCK)), 0x80],
    ["zeros past the end", ioCommand.writeZeroes(1, 4095, 2), 0x80],
    ["a comparison past the end", ioCommand.compare(1, 4096, 1, new Uint8Array(BLOCK)), 0x80],
    ["a verification past the end", ioCommand.verify(1, 4096, 1), 0x80],
    ["a deallocation past the end", ioCommand.deallocate(1, [{ lba: 4090, blocks: 7 }]), 0x80],
    ["a copy from past the end", ioCommand.copy(1, 0, [{ lba: 4096, blocks: 1 }]), 0x80],
    ["a copy to past the end", ioCommand.copy(1, 4095, [{ lba: 0, blocks: 2 }]), 0x80],
    ["a copy that is too long", ioCommand.copy(1, 0, [{ lba: 0, blocks: 257 }]), 0x183],
    [
      "a copy of too many ranges",
      ioCommand.copy(
        1,
        0,
        Array.from({ length: 129 }, () => ({ lba: 0, blocks: 1 })),
      ),
      0x183,
    ],
    ["a copy of another format", { ...ioCommand.copy(1, 0, [{ lba: 0, blocks: 1 }]), dword12: 0x100 }, 0x02],
    ["a read longer than MDTS", ioCommand.read(1, 0, 257, BLOCK), 0x02],
    ["a write longer than MDTS", ioCommand.write(1, 0, 257, new Uint8Array(257 * BLOCK)), 0x02],
    ["a namespace that is not there", ioCommand.read(2, 0, 1, BLOCK), 0x0b],
    ["all namespaces at once", ioCommand.read(0xffffffff, 0, 1, BLOCK), 0x0b],
    ["an opcode that does not exist", { opcode: 0x33, nsid: 1 }, 0x01],
    ["a zone report of no zones", ioCommand.zoneReport(1, 0, 4096), 0x01],
    ["a zone reset of no zones", ioCommand.zoneSend(1, 0, 4), 0x01],
    ["a fused command", { ...ioCommand.flush(1), flags: 0x41 }, 0x02],
    ["too little room", { ...ioCommand.read(1, 0, 2, BLOCK), room: BLOCK }, 0x0f],
    ["too much data", { ...ioCommand.write(1, 0, 1, new Uint8Array(2 * BLOCK)) }, 0x0f],
    ["a pointer that is no SGL", { ...ioCommand.read(1, 0, 1, BLOCK), flags: 0 }, 0x02],
    ["an SGL of another kind", { ...ioCommand.read(1, 0, 1, BLOCK), sgl: new Uint8Array(16).fill(0x40) }, 0x11],
    ["a Fabrics command it does not take", { opcode: 0x7f, nsid: 4 }, 0x01],
  ])("refuses %s", async (_what, command, status) => {
    await start();
    expect(await host.io.command(command)).toMatchObject({ status, doNotRetry: true });
    expect(await statusOf(ioCommand.flush(1))).toBe(0);
  });

  it("refuses data that no command takes", async () => {
    await start({}, { inCapsule: 8192 });
    expect(await statusOf({ ...ioCommand.flush(1), data: new Uint8Array(64) })).toBe(0x02);
    expect(await statusOf(ioCommand.flush(1))).toBe(0);
  });

  it("refuses all changes when it is read-only", async () => {
    await start({ namespaces: { readOnly: true } });
    const data = new Uint8Array(BLOCK);
    expect(await statusOf(ioCommand.write(1, 0, 1, data))).toBe(0x20);
    expect(await statusOf(ioCommand.writeZeroes(1, 0, 1))).toBe(0x20);
    expect(await statusOf(ioCommand.copy(1, 0, [{ lba: 0, blocks: 1 }]))).toBe(0x20);
    expect(await statusOf(ioCommand.deallocate(1, [{ lba: 0, blocks: 1 }]))).toBe(0x20);
    expect(await statusOf(ioCommand.read(1, 0, 1, BLOCK))).toBe(0);
    expect((await host.identify(0, 1)).data[99]).toBe(1);
  });

  it("tells why a device failed, and goes on", async () => {
    await start();
    const failure = new ZcowError("IO_ERROR", "the disk is broken");
    const read = vi.spyOn(device, "read").mockImplementationOnce(() => Promise.reject(failure));
    expect(await statusOf(ioCommand.read(1, 0, 1, BLOCK))).toBe(0x281);
    read.mockImplementationOnce(() => {
      throw failure;
    });
    expect(await statusOf(ioCommand.read(1, 0, 1, BLOCK))).toBe(0x281);
    vi.spyOn(device, "write").mockImplementationOnce(() => Promise.reject(new ZcowError("NO_SPACE", "full")));
    expect(await statusOf(ioCommand.write(1, 0, 1, new Uint8Array(BLOCK)))).toBe(0x81);
    vi.spyOn(device, "flush").mockImplementationOnce(() => Promise.reject(new TypeError("a mistake")));
    expect(await statusOf(ioCommand.flush(1))).toBe(0x06);
    expect(bench.events.filter((event) => event.kind === "command-failed").length).toBe(4);
    expect(await statusOf(ioCommand.read(1, 0, 1, BLOCK))).toBe(0);
  });

  it.each<[ErrorCode, number]>([
    ["OUT_OF_RANGE", 0x80],
    ["READ_ONLY", 0x20],
    ["CLOSED", 0x82],
    ["NO_SPACE", 0x81],
    ["IO_ERROR", 0x280],
    ["IMAGE_CORRUPT", 0x280],
    ["ZONE_INVALID_WRITE", 0x1bc],
    ["ZONE_BOUNDARY", 0x1b8],
    ["ZONE_FULL", 0x1b9],
    ["ZONE_READ_ONLY", 0x1ba],
    ["ZONE_OFFLINE", 0x1bb],
    ["ZONE_TOO_MANY_ACTIVE", 0x1bd],
    ["ZONE_TOO_MANY_OPEN", 0x1be],
    ["ZONE_INVALID_TRANSITION", 0x1bf],
    ["ZONE_ABORTED", 0x280],
    ["COMPRESSED_DATA", 0x280],
    ["UNSUPPORTED_COMPRESSION", 0x06],
  ])("maps %s to a status", (code, status) => {
    expect(statusFromError(new ZcowError(code, "x"), "write")).toBe(status);
  });
});

describe("injected faults", () => {
  it("fail commands of a kind and range without touching the device", async () => {
    await start();
    const write = vi.spyOn(device, "write");
    inject(({ opcode, lba, blocks }) => (opcode === 1 && lba <= 5 && lba + blocks > 5 ? { status: 0x281 } : undefined));
    expect(await statusOf(ioCommand.write(1, 4, 2, new Uint8Array(2 * BLOCK)))).toBe(0x281);
    expect(write).not.toHaveBeenCalled();
    expect(await statusOf(ioCommand.write(1, 6, 2, new Uint8Array(2 * BLOCK)))).toBe(0);
    expect(await statusOf(ioCommand.read(1, 4, 2, BLOCK))).toBe(0);
  });

  it("delay commands by the clock", async () => {
    await start();
    inject(({ opcode }) => (opcode === 2 ? { delay: 100 } : opcode === 1 ? { delay: 50, status: 0x06 } : undefined));
    const read = host.io.command(ioCommand.read(1, 0, 1, BLOCK));
    const write = host.io.command(ioCommand.write(1, 0, 1, new Uint8Array(BLOCK)));
    expect(await statusOf(ioCommand.flush(1))).toBe(0);
    await expect.poll(() => bench.clock.pending).toBe(2);
    expect(host.io.outstanding).toBe(2);
    bench.clock.advance(50);
    expect((await write).status).toBe(0x06);
    bench.clock.advance(50);
    expect((await read).status).toBe(0);
  });

  it("are forgotten with the connection", async () => {
    await start();
    inject(() => ({ delay: 100 }));
    const read = host.io.command(ioCommand.read(1, 0, 1, BLOCK)).catch(() => "ended");
    expect(bench.clock.pending).toBe(1);
    host.close();
    expect(await read).toBe("ended");
    expect(bench.clock.pending).toBe(0);
  });
});

describe("commands that change one zone", () => {
  it("keep their order when the data of the first comes last", async () => {
    await start({}, { inCapsule: 8192 }, true);
    host.io.answerDataRequests = false;
    const late = host.io.command(ioCommand.write(1, 0, 4, taggedBytes(1, 0, 4 * BLOCK)));
    const next = host.io.command(ioCommand.write(1, 4, 1, taggedBytes(2, 0, BLOCK)));
    const append = host.io.command(ioCommand.append(1, 0, 1, taggedBytes(3, 0, BLOCK)));
    const finish = host.io.command(ioCommand.zoneSend(1, 0, 2));
    expect(await statusOf(ioCommand.write(1, 256, 1, taggedBytes(4, 0, BLOCK)))).toBe(0);
    expect(host.io.outstanding).toBe(4);
    for (const request of host.io.dataRequests.splice(0)) host.io.answer(request);
    expect([(await late).status, (await next).status, (await append).low, (await finish).status]).toEqual([0, 0, 5, 0]);
    const { data } = await host.io.command(ioCommand.read(1, 4, 2, BLOCK));
    expect(equalBytes(data.subarray(0, BLOCK), taggedBytes(2, 0, BLOCK))).toBe(true);
    expect(equalBytes(data.subarray(BLOCK), taggedBytes(3, 0, BLOCK))).toBe(true);
  });

  it("are sent in order while their data comes in any order", async () => {
    await start({}, {}, true);
    host.io.answerDataRequests = false;
    const writes = [0, 1, 2, 3, 4].map((lba) =>
      host.io.command(ioCommand.write(1, lba, 1, taggedBytes(lba, 0, BLOCK))),
    );
    await expect.poll(() => host.io.dataRequests.length).toBe(5);
    for (const request of host.io.dataRequests.splice(0).toReversed()) host.io.answer(request);
    expect((await Promise.all(writes)).map((one) => one.status)).toEqual([0, 0, 0, 0, 0]);
  });

  it("go on when one of them loses its data", async () => {
    await start({}, { headerDigest: true, dataDigest: true }, true);
    host.io.answerDataRequests = false;
    const bad = host.io.command(ioCommand.write(1, 0, 1, taggedBytes(1, 0, BLOCK)));
    const good = host.io.command(ioCommand.append(1, 0, 1, taggedBytes(2, 0, BLOCK)));
    await expect.poll(() => host.io.dataRequests.length).toBe(2);
    const [first, second] = host.io.dataRequests;
    if (first === undefined || second === undefined) throw new Error("no R2T");
    host.io.answer(second);
    const bytes = host.io.encodeData(first, 0, taggedBytes(1, 0, BLOCK), true);
    bytes[60] = (bytes[60] as number) ^ 0xff;
    host.io.stream.write(bytes);
    expect((await bad).status).toBe(0x22);
    expect(await good).toMatchObject({ status: 0, low: 0 });
  });

  it("keep their order when a delay is put on one, and with a copy among them", async () => {
    await start({}, { inCapsule: 8192 }, true);
    expect(await statusOf(ioCommand.write(1, 256, 2, taggedBytes(9, 0, 2 * BLOCK)))).toBe(0);
    inject(({ lba, opcode }) => (opcode === 1 && lba === 0 ? { delay: 10 } : undefined));
    const first = host.io.command(ioCommand.write(1, 0, 1, taggedBytes(1, 0, BLOCK)));
    const copy = host.io.command(ioCommand.copy(1, 1, [{ lba: 256, blocks: 2 }]));
    const last = host.io.command(ioCommand.write(1, 3, 1, taggedBytes(3, 0, BLOCK)));
    await expect.poll(() => bench.clock.pending).toBe(1);
    bench.clock.advance(10);
    expect([(await first).status, (await copy).status, (await last).status]).toEqual([0, 0, 0]);
    const { data } = await host.io.command(ioCommand.read(1, 1, 2, BLOCK));
    expect(equalBytes(data, taggedBytes(9, 0, 2 * BLOCK))).toBe(true);
  });

  it("copy in order even when the lists of their sources come in another", async () => {
    await start({}, {}, true);
    for (const lba of [0, 1]) {
      expect(await statusOf(ioCommand.write(1, 256 + lba, 1, taggedBytes(lba, 0, BLOCK)))).toBe(0);
    }
    host.io.answerDataRequests = false;
    const copies = [0, 1].map((lba) => host.io.command(ioCommand.copy(1, lba, [{ lba: 256 + lba, blocks: 1 }])));
    const write = host.io.command(ioCommand.write(1, 2, 1, taggedBytes(2, 0, BLOCK)));
    const wrong = host.io.command(ioCommand.copy(1, 3, [{ lba: 1e6, blocks: 1 }]));
    const last = host.io.command(ioCommand.writeZeroes(1, 3, 1));
    await expect.poll(() => host.io.dataRequests.length).toBe(4);
    for (const request of host.io.dataRequests.splice(0).toReversed()) host.io.answer(request);
    const done = await Promise.all([...copies, write, wrong, last]);
    expect(done.map((one) => one.status)).toEqual([0, 0, 0, 0x80, 0]);
    const { data } = await host.io.command(ioCommand.read(1, 0, 4, BLOCK));
    const expected = [0, 1, 2].map((number) => taggedBytes(number, 0, BLOCK));
    expect(equalBytes(data, Buffer.concat([...expected, new Uint8Array(BLOCK)]))).toBe(true);
  });

  it("do not wait for another queue that withholds its data", async () => {
    await start({}, {}, true);
    const other = await host.addQueue();
    host.io.answerDataRequests = false;
    const stuck = host.io.command(ioCommand.write(1, 0, 1, new Uint8Array(BLOCK))).catch(() => "ended");
    expect((await other.command(ioCommand.append(1, 0, 1, taggedBytes(1, 0, BLOCK)))).status).toBe(0);
    expect((await other.command(ioCommand.zoneSend(1, 0, 4))).status).toBe(0);
    host.io.close();
    expect(await stuck).toBe("ended");
  });
});

describe("commands that need memory of their own", () => {
  it("run a few at a time, and all of them end", async () => {
    await start({ limits: { backlogBytes: 64 * KIB, transferBytes: MIB, appendBytes: MIB } });
    let running = 0;
    let most = 0;
    vi.spyOn(device, "read").mockImplementation(async () => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
      running -= 1;
    });
    const commands = Array.from({ length: 60 }, (_, index) =>
      index % 2 === 0 ? ioCommand.verify(1, 0, 256) : ioCommand.copy(1, 512, [{ lba: 0, blocks: 256 }]),
    );
    const done = await Promise.all(commands.map((command) => host.io.command(command)));
    expect(done.map((one) => one.status)).toEqual(commands.map(() => 0));
    expect(most).toBeLessThanOrEqual(4);
    expect(most).toBeGreaterThan(0);
  });
});

describe("Abort", () => {
  const ABORTED = 7;
  /** Dword 0 of its completion: 0 when command `id` of `queue` was aborted. */
  const abort = async (id: number, queue = 1): Promise<number> => {
    const { status, low } = await host.admin.command({ opcode: 8, dword10: id * 0x1_0000 + queue });
    expect(status).toBe(0);
    return low;
  };

  it("takes back what waits for the end of a delay, and the zone's line goes on", async () => {
    await start({}, { inCapsule: 8192 }, true);
    inject(({ lba, opcode }) => (opcode === 1 && lba === 0 ? { delay: 10 } : undefined));
    const late = host.io.command({ ...ioCommand.write(1, 0, 1, taggedBytes(1, 0, BLOCK)), id: 70 });
    const append = host.io.command(ioCommand.append(1, 0, 1, taggedBytes(2, 0, BLOCK)));
    await expect.poll(() => bench.clock.pending).toBe(1);
    expect(await abort(70)).toBe(0);
    expect((await late).status).toBe(ABORTED);
    expect(await append).toMatchObject({ status: 0, low: 0 });
    expect(bench.clock.pending).toBe(0);
  });

  it("takes back what waits for its turn in a zone", async () => {
    await start({}, { inCapsule: 8192 }, true);
    inject(({ lba, opcode }) => (opcode === 1 && lba === 0 ? { delay: 10 } : undefined));
    const first = host.io.command(ioCommand.write(1, 0, 1, taggedBytes(1, 0, BLOCK)));
    const second = host.io.command({ ...ioCommand.append(1, 0, 1, taggedBytes(2, 0, BLOCK)), id: 71 });
    const third = host.io.command(ioCommand.append(1, 0, 1, taggedBytes(3, 0, BLOCK)));
    expect(await abort(71)).toBe(0);
    expect((await second).status).toBe(ABORTED);
    bench.clock.advance(10);
    expect((await first).status).toBe(0);
    expect(await third).toMatchObject({ status: 0, low: 1 });
  });

  it("leaves alone what the host is sending data for, and what does not exist", async () => {
    await start({}, {}, true);
    host.io.answerDataRequests = false;
    const write = host.io.command({ ...ioCommand.write(1, 0, 1, taggedBytes(1, 0, BLOCK)), id: 72 });
    const copy = host.io.command({ ...ioCommand.copy(1, 1, [{ lba: 0, blocks: 1 }]), id: 73 });
    await expect.poll(() => host.io.dataRequests.length).toBe(2);
    expect(await abort(72)).toBe(1);
    expect(await abort(73)).toBe(1);
    expect(await abort(999)).toBe(1);
    expect(await abort(72, 9)).toBe(1);
    for (const request of host.io.dataRequests.splice(0)) host.io.answer(request);
    expect([(await write).status, (await copy).status]).toEqual([0, 0]);
  });

  it("takes back what has not been asked for its data", async () => {
    await start({ limits: { writeBytesInFlight: MIB } });
    host.io.answerDataRequests = false;
    const first = host.io.command(ioCommand.write(1, 0, 256, taggedBytes(1, 0, MIB)));
    const second = host.io.command({ ...ioCommand.write(1, 300, 1, taggedBytes(2, 0, BLOCK)), id: 74 });
    await expect.poll(() => host.io.dataRequests.length).toBe(1);
    expect(await abort(74)).toBe(0);
    expect((await second).status).toBe(ABORTED);
    for (const request of host.io.dataRequests.splice(0)) host.io.answer(request);
    expect((await first).status).toBe(0);
    expect(await statusOf(ioCommand.flush(1))).toBe(0);
  });

  it("takes back requests for events", async () => {
    await start();
    const event = host.admin.command({ opcode: 0x0c, id: 75 });
    expect(await abort(75, 0)).toBe(0);
    expect((await event).status).toBe(ABORTED);
  });
});
