import { describe, expect, it } from "vitest";
import { readHeader } from "../../../../src/formats/qcow2/header-read.js";
import { encodeTail, JOURNAL_STAGE, TAIL_BYTES } from "../../../../src/formats/qcow2/journal-stages.js";
import { resumeTails } from "../../../../src/formats/qcow2/resume-tails.js";
import type { JournalRecord } from "../../../../src/storage/journal-codec.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { at, CAPACITY, CLUSTER, filled, newZonedImage, openZoned, runsOf, SIZE } from "./zones/zone-image.js";

/** Zone 2 has 512 bytes and zone 3 is full, by the table in the file; `END` is where the file gets six more clusters of 0x99. */
async function image() {
  const storage = await newZonedImage();
  const device = await openZoned(storage);
  await device.write(at(2), filled(512, 1));
  await device.write(at(3), filled(CAPACITY, 1));
  await device.close();
  const file = storage.bytes();
  const end = Math.ceil(file.length / CLUSTER) * CLUSTER;
  const longer = new Uint8Array(end + 6 * CLUSTER).fill(0x99, end);
  longer.set(file);
  return { storage: memoryStorage(longer), end };
}

const tail = (host: number, guest: number): JournalRecord => ({
  stage: JOURNAL_STAGE.tails,
  offset: host,
  bytes: encodeTail(guest, new Uint8Array(TAIL_BYTES)),
});

describe("the tails of clusters in the journal of a killed process", () => {
  it("become zeros from the write pointer on, and the records of tables are left", async () => {
    const { storage, end } = await image();
    const header = await readHeader(storage, { writable: true });
    const table = header.zoned?.tableOffset ?? 0;
    const pointer = new Uint8Array(8);
    new DataView(pointer.buffer).setBigUint64(0, BigInt(at(4) + CLUSTER + 1024));
    const other: JournalRecord = { stage: JOURNAL_STAGE.writePointers, offset: table + 4 * 8, bytes: pointer };
    const before = storage.bytes().slice(0, end);
    const left = await resumeTails(storage, header, [
      tail(end, at(2)),
      tail(end + CLUSTER, at(3)),
      tail(end + 2 * CLUSTER, at(4) + CLUSTER),
      tail(end + 3 * CLUSTER, at(5)),
      tail(end + 4 * CLUSTER, at(0)),
      other,
    ]);
    expect(left).toEqual([other]);
    expect(storage.bytes().slice(0, end)).toEqual(before);
    expect(runsOf(storage.bytes().slice(end))).toEqual([
      [512, 0x99],
      [CLUSTER - 512, 0],
      [CLUSTER + 1024, 0x99],
      [2 * CLUSTER - 1024, 0],
      // A conventional zone has none.
      [2 * CLUSTER, 0x99],
    ]);
  });

  it("end where the file ends", async () => {
    const { storage, end } = await image();
    await storage.truncate(end + CLUSTER + 1024);
    const header = await readHeader(storage, { writable: true });
    await resumeTails(storage, header, [tail(end + CLUSTER, at(2)), tail(end + 3 * CLUSTER, at(4))]);
    expect(storage.size()).toBe(end + CLUSTER + 1024);
    expect(runsOf(storage.bytes().slice(end + CLUSTER))).toEqual([
      [512, 0x99],
      [512, 0],
    ]);
  });

  it.each([
    ["no cluster", 512, at(2)],
    ["the header", 0, at(2)],
    ["a guest offset inside a cluster", CLUSTER * 64, at(2) + 512],
    ["a guest offset past the end of the disk", CLUSTER * 64, SIZE + at(2)],
  ])("are refused before anything is written when one names %s", async (_name, host, guest) => {
    const { storage, end } = await image();
    const header = await readHeader(storage, { writable: true });
    const before = storage.bytes().slice();
    await expect(resumeTails(storage, header, [tail(end, at(2)), tail(host, guest)])).rejects.toMatchObject({
      code: "IMAGE_CORRUPT",
    });
    const odd = { ...tail(end, at(2)), bytes: new Uint8Array(3) };
    await expect(resumeTails(storage, header, [tail(end, at(2)), odd])).rejects.toMatchObject({
      code: "IMAGE_CORRUPT",
    });
    expect(storage.bytes()).toEqual(before);
  });
});
