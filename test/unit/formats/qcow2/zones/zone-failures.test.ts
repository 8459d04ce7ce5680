import { describe, expect, it } from "vitest";
import { checkQcow2 } from "../../../../../src/formats/qcow2/check/check.js";
import { openEngine } from "../../../../../src/formats/qcow2/open.js";
import { convertZonedLayout } from "../../../../../src/formats/qcow2/zones/open-zones.js";
import { memoryStorage } from "../../../../../src/storage/memory-storage.js";
import { recordingStorage } from "../../../../../src/storage/recording-storage.js";
import {
  at,
  bench,
  CAPACITY,
  failTable,
  filled,
  KB,
  newZonedImage,
  openZoned,
  readRunsOf,
  ZONE,
  zoneOf,
} from "./zone-image.js";

describe("a table write that fails", () => {
  it("in a flush: the flush fails, the next one makes the pointer durable", async () => {
    const b = await bench();
    await b.device.write(at(2), filled(512, 1));
    failTable(b, "error");
    await expect(async () => b.device.flush()).rejects.toMatchObject({ code: "IO_ERROR" });
    expect(zoneOf(await openZoned(b.killed()), 2)).toEqual(["empty", 0]);
    b.faults.heal();
    await b.device.flush();
    expect(zoneOf(await openZoned(b.crashed()), 2)).toEqual(["closed", 512]);
  });

  it("in a flush, though it reached the file: a reset afterwards still empties the zone in the file", async () => {
    const b = await bench();
    await b.device.write(at(2), filled(512, 1));
    failTable(b, "lost");
    await expect(async () => b.device.flush()).rejects.toMatchObject({ code: "IO_ERROR" });
    expect(zoneOf(await openZoned(b.killed()), 2)).toEqual(["closed", 512]);
    b.faults.heal();
    await b.device.resetZones(at(2), ZONE);
    expect(zoneOf(await openZoned(b.killed()), 2)).toEqual(["empty", 0]);
    expect(zoneOf(await openZoned(b.crashed()), 2)).toEqual(["empty", 0]);
  });

  it.each(["error", "lost"] as const)(
    "in a reset (%s): the zone keeps its state and data, also in the file after a flush",
    async (fault) => {
      const b = await bench();
      await b.device.write(at(2), filled(4 * KB, 1));
      await b.device.flush();
      failTable(b, fault);
      await expect(b.device.resetZones(at(2), ZONE)).rejects.toMatchObject({ code: "IO_ERROR" });
      b.faults.heal();
      expect(zoneOf(b.device, 2)).toEqual(["implicitly-open", 4 * KB]);
      expect(await readRunsOf(b.device, at(2), 4 * KB)).toEqual([[4 * KB, 1]]);
      await b.device.flush();
      const after = await openZoned(b.crashed());
      expect(zoneOf(after, 2)).toEqual(["closed", 4 * KB]);
      expect(await readRunsOf(after, at(2), 4 * KB)).toEqual([[4 * KB, 1]]);
      await b.device.resetZones(at(2), ZONE);
      expect(zoneOf(await openZoned(b.crashed()), 2)).toEqual(["empty", 0]);
    },
  );

  it("in a finish that reached the file: nothing is written to the zone before its entry is right again", async () => {
    const b = await bench();
    await b.device.write(at(2), filled(4 * KB, 1));
    await b.device.flush();
    failTable(b, "lost");
    await expect(b.device.finishZones(at(2), ZONE)).rejects.toMatchObject({ code: "IO_ERROR" });
    expect(zoneOf(b.device, 2)).toEqual(["implicitly-open", 4 * KB]);
    expect(zoneOf(await openZoned(b.killed()), 2)).toEqual(["full", CAPACITY]);

    const refused = await Promise.allSettled([
      (async () => b.device.write(at(2) + 4 * KB, filled(512, 2)))(),
      (async () => b.device.append(at(2), filled(512, 3)))(),
    ]);
    expect(refused.map((result) => result.status)).toEqual(["rejected", "rejected"]);
    expect(zoneOf(b.device, 2)).toEqual(["implicitly-open", 4 * KB]);
    await b.device.write(at(3), filled(512, 4));

    b.faults.heal();
    const written = await Promise.all([
      b.device.write(at(2) + 4 * KB, filled(512, 2)),
      b.device.append(at(2), filled(512, 3)),
    ]);
    expect(written).toEqual([undefined, at(2) + 4 * KB + 512]);
    expect(zoneOf(await openZoned(b.crashed()), 2)).toEqual(["closed", 4 * KB]);
    await b.device.flush();
    expect(zoneOf(await openZoned(b.crashed()), 2)).toEqual(["closed", 5 * KB]);
  });

  it("in a finish of several zones that reached the file: the next flush puts every entry back", async () => {
    const b = await bench();
    await b.device.write(at(2), filled(4 * KB, 1));
    await b.device.write(at(4), filled(2 * KB, 1));
    await b.device.flush();
    failTable(b, "lost");
    await expect(b.device.finishZones(at(2), 4 * ZONE)).rejects.toMatchObject({ code: "IO_ERROR" });
    const inFile = await openZoned(b.killed());
    expect([2, 3, 4, 5].map((zone) => zoneOf(inFile, zone)[0])).toEqual(["full", "full", "full", "full"]);
    b.faults.heal();
    await b.device.flush();
    const after = await openZoned(b.crashed());
    expect([2, 3, 4, 5, 6].map((zone) => zoneOf(after, zone))).toEqual([
      ["closed", 4 * KB],
      ["empty", 0],
      ["closed", 2 * KB],
      ["empty", 0],
      ["empty", 0],
    ]);
  });

  it("in a finish, then a finish that succeeds: full in memory and in the file", async () => {
    const b = await bench();
    await b.device.write(at(2), filled(512, 1));
    failTable(b, "error");
    await expect(b.device.finishZones(at(2), ZONE)).rejects.toMatchObject({ code: "IO_ERROR" });
    b.faults.heal();
    await b.device.finishZones(at(2), ZONE);
    expect(zoneOf(b.device, 2)).toEqual(["full", CAPACITY]);
    expect(zoneOf(await openZoned(b.crashed()), 2)).toEqual(["full", CAPACITY]);
  });
});

describe("after a crash", () => {
  it("finish and reset that returned are durable, without a flush", async () => {
    const b = await bench();
    await b.device.write(at(2), filled(4 * KB, 1));
    await b.device.write(at(3), filled(4 * KB, 2), { fua: true });
    await b.device.finishZones(at(2), ZONE);
    await b.device.resetZones(at(3), ZONE);
    const after = await openZoned(b.crashed());
    expect(zoneOf(after, 2)).toEqual(["full", CAPACITY]);
    expect(zoneOf(after, 3)).toEqual(["empty", 0]);
    expect(await readRunsOf(after, at(2), 2 * ZONE)).toEqual([
      [4 * KB, 1],
      [2 * ZONE - 4 * KB, 0],
    ]);
  });

  it("data of a zone that was reset never comes back, whatever is done to the zone then", async () => {
    const b = await bench();
    await b.device.write(at(2), filled(CAPACITY, 0x99), { fua: true });
    await b.device.resetZones(at(2), ZONE);
    // The mapping is still in the file: dropping it was not flushed.
    const leftover = b.crashed();
    const extents: string[] = [];
    const engine = await openEngine(leftover.clone());
    for await (const extent of engine.extents(at(2), CAPACITY)) extents.push(extent.kind);
    expect(extents).toEqual(["data"]);

    const written = await openZoned(leftover.clone());
    await written.write(at(2), filled(512, 1));
    expect(await readRunsOf(written, at(2), ZONE)).toEqual([
      [512, 1],
      [ZONE - 512, 0],
    ]);
    const kinds: (readonly [string, number])[] = [];
    for await (const extent of written.extents(at(2), ZONE)) kinds.push([extent.zero ? "zero" : "data", extent.length]);
    expect(kinds.filter(([kind]) => kind === "data")).toEqual([["data", 512]]);
    await written.finishZones(at(2), ZONE);
    expect(await readRunsOf(written, at(2), ZONE)).toEqual([
      [512, 1],
      [ZONE - 512, 0],
    ]);

    const finished = await openZoned(leftover.clone());
    await finished.finishZones(at(2), ZONE);
    expect(await readRunsOf(finished, at(2), ZONE)).toEqual([[ZONE, 0]]);

    const memory = memoryStorage(leftover.bytes());
    const reset = await openZoned(memory);
    await reset.resetZones(at(2), ZONE);
    await reset.close();
    expect(await checkQcow2(memoryStorage(memory.bytes()))).toMatchObject({ corruptions: 0, allocatedClusters: 0 });
  });

  it("writes that were acknowledged but not flushed are gone, zeros in their place", async () => {
    const b = await bench();
    await b.device.write(at(2), filled(4 * KB, 1), { fua: true });
    await b.device.write(at(2) + 4 * KB, filled(4 * KB, 2));
    for (const file of [b.crashed(), b.killed()]) {
      const after = await openZoned(file);
      expect(zoneOf(after, 2)).toEqual(["closed", 4 * KB]);
      expect(await readRunsOf(after, at(2), 8 * KB)).toEqual([
        [4 * KB, 1],
        [4 * KB, 0],
      ]);
    }
  });
});

describe("conversion to the current layout", () => {
  it.each(["append-limit", "v8", "v5", "v3", "seed"] as const)(
    "of %s: a crash at any moment leaves the disk as it was",
    async (layout) => {
      const memory = await newZonedImage({ zone: { layout } });
      if (layout !== "seed") {
        const device = await openZoned(memory);
        await device.write(at(2), filled(6 * KB, 2));
        await device.finishZones(at(4), ZONE);
        await device.close();
      }
      const recorder = recordingStorage(memoryStorage(memory.bytes()));
      const engine = await openEngine(recorder);
      await convertZonedLayout(engine);
      await engine.close();
      const expected = layout === "seed" ? ["empty", 0] : ["closed", 6 * KB];
      const layouts = new Set<string | undefined>();
      let seed = 1;
      const random = (): number => {
        seed = (seed * 48_271) % 2_147_483_647;
        return seed / 2_147_483_647;
      };
      for (let moment = 0; moment <= recorder.moment(); moment += 1) {
        for (const keep of [0, 0.5, 1]) {
          const file = recorder.crashImage(moment, { random, keep });
          const bytes = file.bytes();
          const device = await openZoned(file, { readOnly: true });
          layouts.add(device.header.zoned?.layout);
          expect(zoneOf(device, 2)).toEqual(expected);
          if (layout !== "seed") expect(zoneOf(device, 4)).toEqual(["full", CAPACITY]);
          expect(await checkQcow2(memoryStorage(bytes))).toMatchObject({ corruptions: 0, checkErrors: 0 });
        }
      }
      expect([...layouts]).toEqual([layout, "current"]);
      expect(await checkQcow2(recorder.crashImage(recorder.moment(), { random, keep: 1 }))).toMatchObject({ leaks: 0 });
    },
  );
});
