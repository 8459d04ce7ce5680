import { afterEach, describe, expect, it } from "vitest";
import type { CreateQcow2Options } from "../../../../src/formats/qcow2/create-options.js";
import { HOST_NQN, ioCommand, NvmeHost, parseZoneReport, type QueueOptions } from "../../../support/nvme-initiator.js";
import { type Bench, memoryImage, SUBSYSTEM_NQN, startTarget } from "../../../support/nvme-pipe.js";
import { taggedBytes } from "../../../support/random.js";
import { equalBytes as isSame } from "../../../support/sector-history.js";

const KIB = 1024;
const MIB = 1024 * KIB;

interface Geometry {
  readonly name: string;
  readonly image: CreateQcow2Options;
  readonly nsid: number;
  readonly blockSize: number;
  /** Blocks. */
  readonly zone: number;
  readonly capacity: number;
  readonly zones: number;
}

const GEOMETRIES: readonly Geometry[] = [
  {
    name: "capacity below size, small limits, conventional zones",
    image: {
      size: 16 * MIB,
      zone: {
        mode: "host-managed",
        size: MIB,
        capacity: 768 * KIB,
        conventionalZones: 3,
        maxOpenZones: 3,
        maxActiveZones: 5,
      },
    },
    nsid: 2,
    blockSize: 4096,
    zone: 256,
    capacity: 192,
    zones: 13,
  },
  {
    name: "many small zones, blocks of 512 bytes, a short last zone",
    image: {
      size: 20 * MIB + 4 * KIB,
      clusterSize: 4 * KIB,
      zone: { mode: "host-managed", size: 16 * KIB, capacity: 15 * KIB + 512 },
    },
    nsid: 1,
    blockSize: 512,
    zone: 32,
    capacity: 31,
    zones: 1280,
  },
  {
    name: "large zones without limits",
    image: { size: 256 * MIB, zone: { mode: "host-managed", size: 64 * MIB } },
    nsid: 1,
    blockSize: 4096,
    zone: 16384,
    capacity: 16384,
    zones: 4,
  },
];

const STATE = { empty: 1, implicit: 2, explicit: 3, closed: 4, readOnly: 13, full: 14, offline: 15 };
const SEND = { close: 1, finish: 2, open: 3, reset: 4, offline: 5 };

let bench: Bench;
let host: NvmeHost;

async function start(geometry: Geometry, options: QueueOptions = {}): Promise<void> {
  bench = startTarget({ devices: [await memoryImage(geometry.image)] });
  host = await NvmeHost.connect(() => bench.open(), { subsystemNqn: SUBSYSTEM_NQN }, options);
}

afterEach(async () => {
  host.close();
  await bench.target.close();
});

async function statusOf(command: Parameters<NvmeHost["io"]["command"]>[0]): Promise<number> {
  return (await host.io.command(command)).status;
}

async function stateOf(geometry: Geometry, zone: number): Promise<number> {
  const report = await host.io.command(ioCommand.zoneReport(geometry.nsid, zone * geometry.zone, 128, 0, true));
  return parseZoneReport(report.data).zones[0]?.state ?? -1;
}

describe.each(GEOMETRIES)("a zoned namespace: $name", (geometry) => {
  const { nsid, blockSize, zone, capacity, zones } = geometry;
  const write = (lba: number, blocks: number) =>
    statusOf(ioCommand.write(nsid, lba, blocks, taggedBytes(lba, lba * blockSize, blocks * blockSize)));

  it("tells its size, zones and limits", async () => {
    await start(geometry);
    const namespace = new DataView((await host.identify(0x00, nsid)).data.slice().buffer);
    expect(Number(namespace.getBigUint64(0, true))).toBe(zone * zones);
    expect(2 ** namespace.getUint8(130)).toBe(blockSize);
    const zns = new DataView((await host.identify(0x05, nsid, 2)).data.slice().buffer);
    expect(zns.getUint16(0, true)).toBe(0);
    expect(Number(zns.getBigUint64(2816, true))).toBe(zone);
    const { maxActiveZones = 0, maxOpenZones = 0 } = geometry.image.zone ?? {};
    expect(zns.getUint32(4, true)).toBe((maxActiveZones - 1) >>> 0);
    expect(zns.getUint32(8, true)).toBe((maxOpenZones - 1) >>> 0);
  });

  it("reports all zones, from any start, in pieces", async () => {
    await start(geometry);
    const whole = parseZoneReport((await host.io.command(ioCommand.zoneReport(nsid, 0, 64 + 64 * zones))).data);
    expect(whole.count).toBe(zones);
    expect(whole.zones.map((one) => one.start)).toEqual(Array.from({ length: zones }, (_, index) => index * zone));
    expect(new Set(whole.zones.map((one) => `${one.type}/${one.state}/${one.capacity}`))).toEqual(
      new Set([`2/1/${capacity}`]),
    );
    const full = parseZoneReport((await host.io.command(ioCommand.zoneReport(nsid, zone + 5, 192))).data);
    expect([full.count, full.zones[0]?.start]).toEqual([zones - 1, zone]);
    const partial = parseZoneReport((await host.io.command(ioCommand.zoneReport(nsid, zone, 192, 0, true))).data);
    expect([partial.count, partial.zones.length]).toEqual([2, 2]);
  });

  it("takes writes at the write pointer only, and gives them back", async () => {
    await start(geometry);
    expect(await write(0, 4)).toBe(0);
    expect(await write(0, 4)).toBe(0x1bc);
    expect(await write(8, 1)).toBe(0x1bc);
    expect(await write(4, 3)).toBe(0);
    const { status, data } = await host.io.command(ioCommand.read(nsid, 0, 8, blockSize));
    expect(status).toBe(0);
    expect(isSame(data.subarray(0, 4 * blockSize), taggedBytes(0, 0, 4 * blockSize))).toBe(true);
    expect(isSame(data.subarray(4 * blockSize, 7 * blockSize), taggedBytes(4, 4 * blockSize, 3 * blockSize))).toBe(
      true,
    );
    expect(isSame(data.subarray(7 * blockSize), new Uint8Array(blockSize))).toBe(true);
  });

  it("refuses writes across the capacity and to a full zone, and reads there as zeros", async () => {
    await start(geometry);
    const half = 16;
    for (let at = 0; at + half <= Math.min(capacity, 64); at += half) expect(await write(at, half)).toBe(0);
    expect(await statusOf(ioCommand.zoneSend(nsid, zone, SEND.finish))).toBe(0);
    expect(await write(zone, 1)).toBe(0x1b9);
    expect(await statusOf(ioCommand.append(nsid, zone, 1, new Uint8Array(blockSize)))).toBe(0x1b9);
    expect(await stateOf(geometry, 1)).toBe(STATE.full);
    if (capacity < 64) expect(await write(16, capacity - 15)).toBe(0x1b8);
    const { data, status } = await host.io.command(ioCommand.read(nsid, 2 * zone - 1, 2, blockSize));
    expect([status, data.every((byte) => byte === 0)]).toEqual([0, true]);
  });

  it("appends at the write pointer and tells where, with many in flight", async () => {
    await start(geometry);
    const blocks = 2;
    const count = Math.min(15, Math.floor(capacity / blocks));
    const sent = Array.from({ length: count }, (_, index) => taggedBytes(index, 0, blocks * blockSize));
    const done = await Promise.all(sent.map((data) => host.io.command(ioCommand.append(nsid, 2 * zone, blocks, data))));
    expect(done.map((one) => one.status)).toEqual(sent.map(() => 0));
    const places = done.map((one) => one.high * 2 ** 32 + one.low);
    expect([...places].sort((a, b) => a - b)).toEqual(sent.map((_, index) => 2 * zone + index * blocks));
    for (const [index, place] of places.entries()) {
      const { data } = await host.io.command(ioCommand.read(nsid, place, blocks, blockSize));
      expect(isSame(data, sent[index] ?? new Uint8Array(0))).toBe(true);
    }
    expect(await statusOf(ioCommand.append(nsid, 2 * zone + 1, 1, new Uint8Array(blockSize)))).toBe(0x02);
  });

  it("goes through the states of a zone", async () => {
    await start(geometry);
    const send = (action: number) => statusOf(ioCommand.zoneSend(nsid, zone, action));
    expect([await send(SEND.close), await stateOf(geometry, 1)]).toEqual([0x1bf, STATE.empty]);
    expect([await send(SEND.open), await stateOf(geometry, 1)]).toEqual([0, STATE.explicit]);
    expect([await send(SEND.open), await stateOf(geometry, 1)]).toEqual([0, STATE.explicit]);
    expect([await send(SEND.close), await stateOf(geometry, 1)]).toEqual([0, STATE.empty]);
    expect([await write(zone, 1), await stateOf(geometry, 1)]).toEqual([0, STATE.implicit]);
    expect([await send(SEND.close), await stateOf(geometry, 1)]).toEqual([0, STATE.closed]);
    expect([await send(SEND.close), await stateOf(geometry, 1)]).toEqual([0, STATE.closed]);
    expect([await send(SEND.open), await stateOf(geometry, 1)]).toEqual([0, STATE.explicit]);
    expect([await send(SEND.finish), await stateOf(geometry, 1)]).toEqual([0, STATE.full]);
    expect([await send(SEND.finish), await stateOf(geometry, 1)]).toEqual([0, STATE.full]);
    expect([await send(SEND.open), await stateOf(geometry, 1)]).toEqual([0x1bf, STATE.full]);
    expect([await send(SEND.close), await stateOf(geometry, 1)]).toEqual([0x1bf, STATE.full]);
    expect([await send(SEND.reset), await stateOf(geometry, 1)]).toEqual([0, STATE.empty]);
    expect([await send(SEND.offline), await stateOf(geometry, 1)]).toEqual([0x1bf, STATE.empty]);
    expect([await send(0x10), await send(0x11), await send(0), await send(6)]).toEqual([2, 2, 2, 2]);
    expect(await statusOf(ioCommand.zoneSend(nsid, zone + 1, SEND.reset))).toBe(0x02);
    expect(await statusOf(ioCommand.zoneSend(nsid, zone * zones, SEND.reset))).toBe(0x80);
  });

  it("changes all zones at once, those that the action is meant for", async () => {
    await start(geometry);
    const all = (action: number) => statusOf(ioCommand.zoneSend(nsid, 0, action, true));
    expect(await write(0, 1)).toBe(0);
    expect(await write(zone, 1)).toBe(0);
    const states = async () => [await stateOf(geometry, 0), await stateOf(geometry, 1), await stateOf(geometry, 2)];
    expect([await all(SEND.close), ...(await states())]).toEqual([0, STATE.closed, STATE.closed, STATE.empty]);
    expect([await all(SEND.open), ...(await states())]).toEqual([0, STATE.explicit, STATE.explicit, STATE.empty]);
    expect([await all(SEND.finish), ...(await states())]).toEqual([0, STATE.full, STATE.full, STATE.empty]);
    expect([await all(SEND.reset), ...(await states())]).toEqual([0, STATE.empty, STATE.empty, STATE.empty]);
  });

  it("filters reports by state", async () => {
    await start(geometry);
    expect(await write(0, 1)).toBe(0);
    expect(await statusOf(ioCommand.zoneSend(nsid, zone, SEND.open))).toBe(0);
    expect(await statusOf(ioCommand.zoneSend(nsid, 3 * zone, SEND.finish))).toBe(0);
    const namespace = bench.subsystem.namespaces.get(nsid);
    await bench.subsystem.setZoneState(nsid, 2, "read-only");
    const found = async (filter: number) => {
      const { data } = await host.io.command(ioCommand.zoneReport(nsid, 0, 4096, filter));
      const { count, zones: listed } = parseZoneReport(data);
      return [count, listed[0]?.start];
    };
    expect(await found(2)).toEqual([1, 0]);
    expect(await found(3)).toEqual([1, zone]);
    expect(await found(5)).toEqual([1, 3 * zone]);
    expect(await found(6)).toEqual([1, 2 * zone]);
    expect((await found(1))[0]).toBe(zones - 4);
    expect((await found(7))[0]).toBe(0);
    expect(namespace?.zones?.zoneCount).toBe(zones);
    expect(await statusOf(ioCommand.zoneReport(nsid, 0, 4096, 8))).toBe(0x02);
    expect(await statusOf(ioCommand.zoneReport(nsid, 0, 4096, 0, false, 1))).toBe(0x02);
    expect(await statusOf(ioCommand.zoneReport(nsid, 0, 60))).toBe(0x02);
    expect(await statusOf(ioCommand.zoneReport(nsid, zone * zones, 4096))).toBe(0x80);
  });

  it("fails writes to read-only zones and every access to offline ones", async () => {
    await start(geometry);
    expect(await write(0, 1)).toBe(0);
    await bench.subsystem.setZoneState(nsid, 0, "read-only");
    expect(await write(1, 1)).toBe(0x1ba);
    expect(await statusOf(ioCommand.zoneSend(nsid, 0, SEND.reset))).toBe(0x1bf);
    expect(await statusOf(ioCommand.read(nsid, 0, 1, blockSize))).toBe(0);
    expect(await statusOf(ioCommand.zoneSend(nsid, 0, SEND.offline))).toBe(0);
    expect(await stateOf(geometry, 0)).toBe(STATE.offline);
    expect(await statusOf(ioCommand.zoneSend(nsid, 0, SEND.offline))).toBe(0);
    expect(await statusOf(ioCommand.read(nsid, 0, 1, blockSize))).toBe(0x1bb);
    expect(await write(1, 1)).toBe(0x1bb);
    await bench.subsystem.setZoneState(nsid, 0, "online");
    expect(await write(1, 1)).toBe(0);
  });

  it("writes zeros and copies as writes, at the write pointer", async () => {
    await start(geometry);
    expect(await write(0, 4)).toBe(0);
    expect(await statusOf(ioCommand.writeZeroes(nsid, 4, 2))).toBe(0);
    expect(await statusOf(ioCommand.writeZeroes(nsid, 4, 2))).toBe(0x1bc);
    expect(
      await statusOf(
        ioCommand.copy(nsid, 6, [
          { lba: 0, blocks: 3 },
          { lba: 2, blocks: 1 },
        ]),
      ),
    ).toBe(0);
    expect(await statusOf(ioCommand.copy(nsid, 6, [{ lba: 0, blocks: 1 }]))).toBe(0x1bc);
    const { data } = await host.io.command(ioCommand.read(nsid, 0, 11, blockSize));
    const first = taggedBytes(0, 0, 4 * blockSize);
    expect(isSame(data.subarray(4 * blockSize, 6 * blockSize), new Uint8Array(2 * blockSize))).toBe(true);
    expect(isSame(data.subarray(6 * blockSize, 9 * blockSize), first.subarray(0, 3 * blockSize))).toBe(true);
    expect(isSame(data.subarray(9 * blockSize, 10 * blockSize), first.subarray(2 * blockSize, 3 * blockSize))).toBe(
      true,
    );
    expect(await statusOf(ioCommand.deallocate(nsid, [{ lba: 0, blocks: 4 }]))).toBe(0);
    expect(await statusOf(ioCommand.compare(nsid, 0, 4, first))).toBe(0);
    expect(await statusOf(ioCommand.compare(nsid, 1, 4, first))).toBe(0x285);
    expect(await statusOf(ioCommand.verify(nsid, 0, 8))).toBe(0);
  });

  it("closes open zones when the host shuts the controller down", async () => {
    await start(geometry);
    expect(await write(0, 1)).toBe(0);
    expect(await statusOf(ioCommand.zoneSend(nsid, zone, SEND.open))).toBe(0);
    await host.setProperty(0x14, 0x0046_4061);
    await expect.poll(() => host.getProperty(0x1c)).toBe(1 | 8);
    expect([await stateOf(geometry, 0), await stateOf(geometry, 1)]).toEqual([STATE.closed, STATE.empty]);
  });
});

describe("a report of very many zones", () => {
  const image: CreateQcow2Options = {
    size: 40_000 * 4 * KIB,
    clusterSize: 4 * KIB,
    zone: { mode: "host-managed", size: 4 * KIB },
  };

  it("is made in parts, between which others get their turn", async () => {
    await start({ ...(GEOMETRIES[0] as Geometry), image });
    expect(await statusOf(ioCommand.zoneSend(1, 39_999, SEND.finish))).toBe(0);
    const report = host.io.command(ioCommand.zoneReport(1, 0, 4096, 5));
    const ended = report.then(() => "ended");
    expect(await Promise.race([ended, statusOf(ioCommand.flush(1))])).toBe(0);
    bench.clock.advance(0);
    const { count, zones } = parseZoneReport((await report).data);
    expect([count, zones[0]?.start]).toEqual([1, 39_999]);
  });
});

describe("limits on zones", () => {
  const geometry = GEOMETRIES[0] as Geometry;
  const { nsid, blockSize, zone } = geometry;

  it("keeps to the open and active limits with their own statuses", async () => {
    await start(geometry);
    const open = (index: number) => statusOf(ioCommand.zoneSend(nsid, index * zone, SEND.open));
    expect([await open(0), await open(1), await open(2), await open(3)]).toEqual([0, 0, 0, 0x1be]);
    const write = (index: number) => statusOf(ioCommand.write(nsid, index * zone, 1, new Uint8Array(blockSize)));
    expect(await write(3)).toBe(0x1be);
    expect(await statusOf(ioCommand.zoneSend(nsid, 0, SEND.close))).toBe(0);
    expect([await write(3), await write(4), await write(5), await write(6)]).toEqual([0, 0, 0, 0x1bd]);
  });

  it("shows conventional zones as a namespace of their own", async () => {
    await start(geometry);
    expect(HOST_NQN).toContain("uuid");
    const list = new DataView((await host.identify(0x02)).data.slice().buffer);
    expect([list.getUint32(0, true), list.getUint32(4, true), list.getUint32(8, true)]).toEqual([1, 2, 0]);
    const zoned = new DataView((await host.identify(0x07, 0, 2)).data.slice().buffer);
    expect([zoned.getUint32(0, true), zoned.getUint32(4, true)]).toEqual([2, 0]);
    const data = taggedBytes(1, 0, 8 * blockSize);
    expect(await statusOf(ioCommand.write(1, 500, 8, data))).toBe(0);
    expect(await statusOf(ioCommand.write(1, 100, 8, data))).toBe(0);
    expect(isSame((await host.io.command(ioCommand.read(1, 500, 8, blockSize))).data, data)).toBe(true);
    expect(await statusOf(ioCommand.write(1, 3 * zone - 4, 8, data))).toBe(0x80);
    expect(await statusOf(ioCommand.zoneReport(1, 0, 4096))).toBe(0x01);
    expect(await statusOf(ioCommand.append(1, 0, 1, new Uint8Array(blockSize)))).toBe(0x01);
    expect(await statusOf(ioCommand.deallocate(1, [{ lba: 500, blocks: 8 }]))).toBe(0);
    expect(await statusOf(ioCommand.write(2, 0, 1, new Uint8Array(blockSize)))).toBe(0);
  });
});
