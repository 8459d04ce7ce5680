import { expect, it } from "vitest";
import { isZonedDevice, type ZonedDevice } from "../../../../../src/block/zoned-device.js";
import { createQcow2 } from "../../../../../src/formats/qcow2/create.js";
import { openQcow2 } from "../../../../../src/formats/qcow2/open.js";
import { borrowedStorage } from "../../../../../src/storage/borrowed-storage.js";
import { ChangeJournal } from "../../../../../src/storage/change-journal.js";
import { faultStorage } from "../../../../../src/storage/fault-storage.js";
import { type MemoryStorage, memoryStorage } from "../../../../../src/storage/memory-storage.js";
import type { Storage } from "../../../../../src/storage/storage.js";
import { MemoryJournal } from "../../../../support/memory-journal.js";
import { WatchedStorage } from "../../../../support/watched-storage.js";

const KIB = 1024;

async function open(storage: Storage, journal: ChangeJournal): Promise<ZonedDevice> {
  const device = await openQcow2(borrowedStorage(storage), { journal });
  if (!isZonedDevice(device)) throw new Error("not zoned");
  return device;
}

it("keeps the write pointer of a flush that changed no tables when the process is killed after it", async () => {
  const storage = memoryStorage();
  await createQcow2(storage, { size: 256 * KIB, zone: { mode: "host-managed", size: 64 * KIB } });
  const place = new MemoryJournal();
  const journal = new ChangeJournal(place);
  const device = await open(storage, journal);
  await device.append(0, new Uint8Array(KIB).fill(1));
  await device.flush();
  // To a cluster that is mapped by now: nothing but the pointer changes.
  await device.append(0, new Uint8Array(KIB).fill(2));
  journal.commit();
  await device.append(0, new Uint8Array(KIB).fill(3));
  await device.flush();
  const killed = { file: storage.clone(), journal: place.load() };
  await device.close();
  const next = await open(killed.file, new ChangeJournal(new MemoryJournal(killed.journal)));
  expect(next.report()[0]?.writePointer).toBe(3 * KIB);
  const bytes = new Uint8Array(KIB);
  await next.read(2 * KIB, bytes);
  expect(new Set(bytes)).toEqual(new Set([3]));
  await next.close();
});

it("keeps a write pointer in the journal until it is in the table, whoever shortens the journal meanwhile", async () => {
  const file = memoryStorage();
  await createQcow2(file, { size: 256 * KIB, zone: { mode: "host-managed", size: 64 * KIB } });
  const place = new MemoryJournal();
  const journal = new ChangeJournal(place);
  const storage = new WatchedStorage(file);
  const device = await open(storage, journal);
  await device.append(0, new Uint8Array(KIB).fill(1));
  await device.flush();
  await device.append(0, new Uint8Array(KIB).fill(2));
  journal.commit();
  const killed: { readonly file: MemoryStorage; readonly journal: Uint8Array | undefined }[] = [];
  storage.onChange = () => {
    // As a write-back does that ends now. (This flush has no tables to write.)
    journal.checkpoint();
    killed.push({ file: file.clone(), journal: place.load() });
  };
  await device.flush();
  storage.onChange = () => undefined;
  await device.close();
  // Around the flush of the data, the write of the table and the flush of it.
  expect(killed).toHaveLength(6);
  for (const left of killed) {
    const next = await open(left.file, new ChangeJournal(new MemoryJournal(left.journal)));
    expect(next.report()[0]?.writePointer).toBe(2 * KIB);
    await next.close();
  }
});

// A finish flushes what was written before, too.
it.each([
  { operation: "reset", failing: 1 },
  { operation: "finish", failing: 2 },
])(
  "brings back a zone whose $operation failed after its entry was written, when the process is killed then",
  async ({ operation, failing }) => {
    const file = memoryStorage();
    await createQcow2(file, { size: 256 * KIB, zone: { mode: "host-managed", size: 64 * KIB } });
    const place = new MemoryJournal();
    const journal = new ChangeJournal(place);
    const storage = faultStorage(file);
    const device = await open(storage, journal);
    await device.append(0, new Uint8Array(KIB).fill(1));
    await device.flush();
    // With tables to write, so that the journal begins anew and knows nothing of the first zone.
    await device.append(64 * KIB, new Uint8Array(KIB).fill(2));
    await device.flush();
    const tableBefore = file.clone();
    storage.plan({ rules: [{ fault: { type: "error" }, kinds: ["flush"], nth: failing }] });
    const failed = operation === "reset" ? device.resetZones(0, 64 * KIB) : device.finishZones(0, 64 * KIB);
    await expect(failed).rejects.toThrow();
    expect(device.report()[0]?.writePointer).toBe(KIB);
    expect(Buffer.compare(tableBefore.bytes(), file.bytes())).not.toBe(0);
    journal.commit();
    const next = await open(file.clone(), new ChangeJournal(new MemoryJournal(place.load())));
    expect(next.report()[0]?.writePointer).toBe(KIB);
    const bytes = new Uint8Array(KIB);
    await next.read(0, bytes);
    expect(new Set(bytes)).toEqual(new Set([1]));
    await next.close();
    await device.close();
  },
);
