import { expect, it } from "vitest";
import { openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { newImage } from "../../../support/new-image.js";

const MIB = 1024 * 1024;
const CLUSTER = 65_536;

it.each([1, 64])("sequential allocating writes at depth %i mostly finish in the turn of their call", async (depth) => {
  const storage = memoryStorage(await newImage({ size: 64 * MIB }));
  const device = await openQcow2(storage, {});
  const bytes = new Uint8Array(CLUSTER).fill(1);
  const turns = { same: 0, later: 0 };
  let next = 0;
  const sendInTurn = async (): Promise<void> => {
    while (next < device.size) {
      const offset = next;
      next += CLUSTER;
      const wait = device.write(offset, bytes);
      if (wait === undefined) {
        turns.same += 1;
      } else {
        turns.later += 1;
        await wait;
      }
    }
  };
  await Promise.all(Array.from({ length: depth }, sendInTurn));
  await device.close();
  // The first ones wait for the L2 table to be made; one that waits must not make all later ones wait for it.
  expect(turns.later).toBeLessThan(3 * depth + 10);
  expect(turns.same + turns.later).toBe((64 * MIB) / CLUSTER);
});
