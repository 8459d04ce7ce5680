import { describe, expect, it } from "vitest";
import { isZonedDevice } from "../../src/block/zoned-device.js";
import { checkQcow2 } from "../../src/formats/qcow2/check/check.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { JitteryStorage } from "../support/jittery-storage.js";
import { newImage } from "../support/new-image.js";
import { PlainWorkload } from "../support/plain-workload.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { LiveBytes } from "../support/sector-history.js";
import { ZoneHistory } from "../support/zone-history.js";
import { ZonedWorkload } from "../support/zoned-workload.js";

/** Random requests, close, reopen, and again: in every layout that keeps pointers, over cluster sizes and odd zones. */

const KIB = 1024;
const LIVES = 4;
const STEPS = 60;

const LAYOUTS = ["current", "append-limit", "v8", "v5", "v3"] as const;
const CASES = LAYOUTS.flatMap((layout) => [512, 4 * KIB, 64 * KIB].map((clusterSize) => ({ layout, clusterSize })));

describe("zones that are written, closed and opened again", () => {
  const firstSeed = seedFromEnvironment(100);

  it.each(CASES)(
    "keep pointers and bytes: layout $layout, clusters of $clusterSize",
    async ({ layout, clusterSize }) => {
      for (let seed = firstSeed; seed < firstSeed + 3; seed++) {
        const random = new Random(seed);
        const zoneSize = Math.max(32 * KIB, clusterSize * 2);
        const zoneCapacity = zoneSize - random.below(3) * 1536;
        const conventionalZones = random.below(2);
        const size = zoneSize * 7 + (random.chance(0.5) ? zoneSize / 2 + 512 : 0);
        const maxAppendBytes = layout === "current" ? {} : { maxAppendBytes: 8 * KIB };
        const zone = {
          mode: "host-managed",
          size: zoneSize,
          capacity: zoneCapacity,
          conventionalZones,
          layout,
        } as const;
        const limits = random.chance(0.4) ? { maxActiveZones: 3 } : {};
        const image = await newImage({ size, clusterSize, zone: { ...zone, ...maxAppendBytes, ...limits } });
        const zones = new ZoneHistory({ zoneSize, zoneCapacity, conventionalZones, size });
        const conventional = new LiveBytes(conventionalZones * zoneSize);
        let memory = memoryStorage(image);
        for (let life = 0; life < LIVES; life++) {
          const device = await openQcow2(random.chance(0.5) ? new JitteryStorage(memory, random) : memory, {});
          if (!isZonedDevice(device)) throw new Error("the image lost its zones");
          const common = { random, device, position: () => 0 };
          const zoned = new ZonedWorkload({ ...common, history: zones });
          const plain = new PlainWorkload({
            ...common,
            history: conventional,
            clusterSize,
            to: conventional.live.length,
          });
          await zoned.verify();
          if (conventionalZones > 0) await plain.verify();
          for (let step = 0; step < STEPS; step++) {
            if (conventionalZones > 0 && random.chance(0.2)) await plain.step();
            else await zoned.step();
          }
          await device.close();
          memory = memoryStorage(memory.bytes());
          const { corruptions, leaks, checkErrors, findings } = await checkQcow2(memory);
          const message = `seed ${seed}: ${findings.map((finding) => finding.message).join("; ")}`;
          expect({ corruptions, leaks, checkErrors }, message).toEqual({ corruptions: 0, leaks: 0, checkErrors: 0 });
        }
      }
    },
  );
});
