import { describe, expect, it } from "vitest";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { EXTENDED_GEOMETRIES, PLAIN_GEOMETRIES } from "../support/crash-geometries.js";
import { newImage } from "../support/new-image.js";
import { PlainWorkload } from "../support/plain-workload.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { ReferenceImage } from "../support/reference-image.js";
import { LiveBytes } from "../support/sector-history.js";

describe("the extents of a randomly written disk", () => {
  const seed = seedFromEnvironment(11);

  it.each([...PLAIN_GEOMETRIES, ...EXTENDED_GEOMETRIES])(
    "cover it in order and say what a naive reader finds: $name",
    async ({ options }) => {
      const memory = memoryStorage(await newImage(options));
      const device = await openQcow2(memory, {});
      const { size } = device;
      const clusterSize = device.limits.optimalAlignment;
      const random = new Random(seed);
      const workload = new PlainWorkload({
        random,
        device,
        history: new LiveBytes(size),
        position: () => 0,
        clusterSize,
      });
      await workload.run(200);
      await device.flush();
      const reference = new ReferenceImage(memory.bytes());
      let end = 0;
      for await (const extent of device.extents(0, size)) {
        expect(extent.offset).toBe(end);
        end += extent.length;
        for (let at = extent.offset; at < end; at += reference.unit) {
          const { kind, hostOffset } = reference.mappingAt(at);
          const host = extent.hostOffset === undefined ? undefined : extent.hostOffset + at - extent.offset;
          const expected = { kind, zero: kind !== "data", host: kind === "data" ? hostOffset : host };
          expect({ kind: extent.kind, zero: extent.zero, host }, `guest offset ${at}, seed ${seed}`).toEqual(expected);
        }
      }
      expect(end).toBe(size);
      await device.close();
    },
  );
});
