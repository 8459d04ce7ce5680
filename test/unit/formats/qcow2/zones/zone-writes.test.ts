import { describe, expect, it } from "vitest";
import { openZonedDevice } from "../../../../../src/formats/qcow2/zones/open-zones.js";
import type { ZonedQcow2Device } from "../../../../../src/formats/qcow2/zones/zoned-device.js";
import { tracingStorage } from "../../../../../src/storage/tracing-storage.js";
import { FakeEngine } from "./fake-engine.js";
import { at, CAPACITY, filled, KB, newZonedImage, openZoned, readRunsOf, ZONE, zoneOf } from "./zone-image.js";

interface Setup {
  readonly engine: FakeEngine;
  readonly device: ZonedQcow2Device;
  /** The pointer of a zone in the file, in bytes from its start. */
  readonly stored: (zone: number) => Promise<number>;
}

async function setUp(): Promise<Setup> {
  const memory = await newZonedImage();
  const log: string[] = [];
  const traced = tracingStorage(memory, ({ kind }) => {
    if (kind === "write" || kind === "flush") log.push(`storage ${kind}`);
  });
  const engine = await FakeEngine.on(traced, log);
  const device = await openZonedDevice(engine);
  return {
    engine,
    device,
    stored: async (zone) => zoneOf(await openZoned(memory.clone()), zone)[1],
  };
}

async function turn(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

describe("writes in flight", () => {
  it("a write that the engine ends at once returns no promise", async () => {
    const { device } = await setUp();
    expect(device.write(at(2), filled(512, 1))).toBeUndefined();
    expect(device.append(at(2), filled(512, 1))).toBe(at(2) + 512);
    expect(device.read(at(2), filled(512, 0))).toBeUndefined();
  });

  it("are acknowledged in order, and readers see them only then", async () => {
    const { engine, device } = await setUp();
    engine.hold.add("write");
    const order: string[] = [];
    const first = Promise.resolve(device.write(at(2), filled(512, 1))).then(() => order.push("first"));
    const second = Promise.resolve(device.write(at(2) + 512, filled(512, 2))).then(() => order.push("second"));
    engine.take("write", at(2) + 512).end();
    await turn();
    expect(order).toEqual([]);
    expect(await readRunsOf(device, at(2), 1 * KB)).toEqual([[1 * KB, 0]]);
    engine.take("write").end();
    await Promise.all([first, second]);
    expect(order).toEqual(["first", "second"]);
    expect(await readRunsOf(device, at(2), 1 * KB)).toEqual([
      [512, 1],
      [512, 2],
    ]);
  });

  it("a failed write is reported, later ones are aborted, and the pointer is back", async () => {
    const { engine, device } = await setUp();
    engine.hold.add("write");
    const first = Promise.resolve(device.write(at(2), filled(512, 1)));
    const second = Promise.resolve(device.append(at(2), filled(512, 2)));
    const third = Promise.resolve(device.writeZeroes(at(2) + 1 * KB, 512));
    const outcomes = Promise.allSettled([first, second, third]);
    const cause = new Error("no space");
    engine.take("write", at(2) + 512).end();
    engine.take("write", at(2)).fail(cause);
    await turn();
    await expect(async () => device.write(at(2), filled(512, 4))).rejects.toMatchObject({ code: "ZONE_ABORTED" });
    engine.take("write").end();
    expect(await outcomes).toEqual([
      { status: "rejected", reason: cause },
      { status: "rejected", reason: expect.objectContaining({ code: "ZONE_ABORTED", cause }) },
      { status: "rejected", reason: expect.objectContaining({ code: "ZONE_ABORTED", cause }) },
    ]);
    expect(zoneOf(device, 2)).toEqual(["empty", 0]);
    expect(await readRunsOf(device, at(2), 2 * KB)).toEqual([[2 * KB, 0]]);
  });

  it("a write that the engine refuses at once takes the pointer back", async () => {
    const { engine, device } = await setUp();
    const refuse = (): never => {
      throw new Error("no");
    };
    engine.write = refuse;
    engine.writeZeroes = refuse;
    expect(() => device.write(at(2), filled(512, 1))).toThrow("no");
    expect(() => device.append(at(2), filled(512, 1))).toThrow("no");
    expect(() => device.writeZeroes(at(2), 512)).toThrow("no");
    expect(zoneOf(device, 2)).toEqual(["empty", 0]);
  });
});

describe("flush", () => {
  it("goes engine first, then table, then storage", async () => {
    const { engine, device, stored } = await setUp();
    await device.write(at(2), filled(512, 1));
    engine.log.length = 0;
    await device.flush();
    expect(engine.log).toEqual(["flush", "storage write", "storage flush"]);
    expect(await stored(2)).toBe(512);
  });

  it("writes the table once for many zones in one sector, and not at all when nothing moved", async () => {
    const { engine, device } = await setUp();
    for (const zone of [2, 3, 4, 5]) await device.write(at(zone), filled(512, zone));
    engine.log.length = 0;
    await device.flush();
    await device.flush();
    expect(engine.log).toEqual(["flush", "storage write", "storage flush", "flush"]);
  });

  it("does not write a pointer past a write in flight, nor past one acknowledged after the flush began", async () => {
    const { engine, device, stored } = await setUp();
    await device.write(at(2), filled(512, 1));
    engine.hold.add("write").add("flush");
    const slow = Promise.resolve(device.write(at(2) + 512, filled(512, 2)));
    const flushed = Promise.resolve(device.flush());
    await turn();
    engine.take("write").end();
    await slow;
    engine.take("flush").end();
    await flushed;
    expect(await stored(2)).toBe(512);
    engine.hold.delete("flush");
    await device.flush();
    expect(await stored(2)).toBe(1 * KB);
  });

  it("one that starts while another runs waits for the pointers which that one is about to write", async () => {
    const { engine, device, stored } = await setUp();
    await device.write(at(2), filled(512, 1));
    engine.hold.add("flush");
    const first = Promise.resolve(device.flush());
    const second = Promise.resolve(device.flush());
    const third = Promise.resolve(device.flush());
    let secondDone = false;
    void second.then(() => {
      secondDone = true;
    });
    await turn();
    expect(secondDone).toBe(false);
    engine.take("flush").end();
    await first;
    await turn();
    expect(await stored(2)).toBe(512);
    // The two that waited share one.
    engine.take("flush").end();
    await Promise.all([second, third]);
    expect(engine.held).toEqual([]);
  });

  it("an older flush never overwrites a newer reset", async () => {
    const { engine, device, stored } = await setUp();
    await device.write(at(2), filled(4 * KB, 1));
    engine.hold.add("flush");
    const flushed = Promise.resolve(device.flush());
    await turn();
    const reset = device.resetZones(at(2), ZONE);
    await turn();
    engine.take("flush").end();
    await Promise.all([flushed, reset]);
    expect(await stored(2)).toBe(0);
    expect(zoneOf(device, 2)).toEqual(["empty", 0]);
  });

  it("after it failed, the next one writes the pointers", async () => {
    const { engine, device, stored } = await setUp();
    await device.write(at(2), filled(512, 1));
    engine.hold.add("flush");
    const failed = Promise.resolve(device.flush());
    engine.take("flush").fail(new Error("no"));
    await expect(failed).rejects.toThrow("no");
    engine.hold.clear();
    await device.flush();
    expect(await stored(2)).toBe(512);
  });

  it("a FUA write is durable with its pointer", async () => {
    const { device, stored } = await setUp();
    await device.write(at(2), filled(512, 1), { fua: true });
    expect(await stored(2)).toBe(512);
    expect(await device.append(at(2), filled(512, 2), { fua: true })).toBe(at(2) + 512);
    expect(await stored(2)).toBe(1 * KB);
    await device.writeZeroes(at(2) + 1 * KB, 512, { fua: true });
    expect(await stored(2)).toBe(1536);
  });
});

describe("reset", () => {
  it("makes the pointer durable before the mapping goes", async () => {
    const { engine, device } = await setUp();
    await device.write(at(2), filled(512, 1));
    await device.flush();
    engine.log.length = 0;
    await device.resetZones(at(2), ZONE);
    expect(engine.log).toEqual(["storage write", "storage flush", "discard"]);
  });

  it("of many zones flushes once", async () => {
    const { engine, device } = await setUp();
    for (const zone of [2, 3, 4]) await device.write(at(zone), filled(512, zone), { fua: true });
    engine.log.length = 0;
    await device.resetZones(at(2), 5 * ZONE);
    expect(engine.log).toEqual(["storage write", "storage flush", "discard"]);
  });

  it("waits for the writes in flight of its zones, and those that come meanwhile wait for it", async () => {
    const { engine, device } = await setUp();
    engine.hold.add("write");
    const before = Promise.resolve(device.write(at(2), filled(512, 1)));
    const reset = device.resetZones(at(2), ZONE);
    const after = Promise.resolve(device.write(at(2), filled(1 * KB, 2)));
    const elsewhere = Promise.resolve(device.write(at(3), filled(512, 3)));
    await turn();
    expect(engine.held.map((call) => call.offset)).toEqual([at(2), at(3)]);
    engine.take("write", at(3)).end();
    await elsewhere;
    engine.take("write").end();
    await before;
    await reset;
    await turn();
    engine.take("write").end();
    await after;
    expect(zoneOf(device, 2)).toEqual(["implicitly-open", 1 * KB]);
  });

  it("hides what is still mapped when the mapping could not be dropped", async () => {
    const { engine, device } = await setUp();
    await device.write(at(2), filled(4 * KB, 1));
    engine.hold.add("discard");
    const reset = device.resetZones(at(2), ZONE);
    await turn();
    engine.take("discard").fail(new Error("no"));
    await expect(reset).rejects.toThrow("no");
    expect(zoneOf(device, 2)).toEqual(["empty", 0]);
    expect(engine.disk[at(2)]).toBe(1);
    expect(await readRunsOf(device, at(2), 4 * KB)).toEqual([[4 * KB, 0]]);
    await device.write(at(2), filled(512, 2));
    expect(await readRunsOf(device, at(2), 4 * KB)).toEqual([
      [512, 2],
      [3584, 0],
    ]);
  });
});

describe("finish", () => {
  it("makes data durable before the pointer that covers it", async () => {
    const { engine, device, stored } = await setUp();
    await device.write(at(2), filled(4 * KB, 1));
    engine.log.length = 0;
    await device.finishZones(at(2), ZONE);
    expect(engine.log.slice(-3)).toEqual(["flush", "storage write", "storage flush"]);
    expect(await stored(2)).toBe(CAPACITY);
  });

  it("drops what a failed write left past the pointer", async () => {
    const { engine, device } = await setUp();
    await device.write(at(2), filled(1 * KB, 1));
    engine.hold.add("write");
    const failed = Promise.resolve(device.write(at(2) + 1 * KB, filled(8 * KB, 2)));
    engine.take("write").fail(new Error("half written"));
    await expect(failed).rejects.toThrow("half written");
    engine.disk.fill(0x66, at(2) + 1 * KB, at(2) + 9 * KB);
    engine.hold.clear();
    expect(await readRunsOf(device, at(2), ZONE)).toEqual([
      [1 * KB, 1],
      [63 * KB, 0],
    ]);
    await device.finishZones(at(2), ZONE);
    expect(await readRunsOf(device, at(2), ZONE)).toEqual([
      [1 * KB, 1],
      [63 * KB, 0],
    ]);
  });
});
