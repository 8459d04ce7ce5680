import { expect, it } from "vitest";
import type { ZonedDevice } from "../../../../../src/block/zoned-device.js";
import { createQcow2 } from "../../../../../src/formats/qcow2/create.js";
import { ChangeJournal } from "../../../../../src/storage/change-journal.js";
import { faultStorage } from "../../../../../src/storage/fault-storage.js";
import { type MemoryStorage, memoryStorage } from "../../../../../src/storage/memory-storage.js";
import { MemoryJournal } from "../../../../support/memory-journal.js";
import { openZoned } from "../../../../support/open-zoned.js";
import { WatchedStorage } from "../../../../support/watched-storage.js";

const KIB = 1024;

interface Files {
  readonly file: MemoryStorage;
  readonly journal: Uint8Array | undefined;
}

/** A zoned image, a journal for it, and what a process that is killed now leaves of both. */
async function newImage(): Promise<{ file: MemoryStorage; journal: ChangeJournal; kill: () => Files }> {
  const file = memoryStorage();
  await createQcow2(file, { size: 256 * KIB, zone: { mode: "host-managed", size: 64 * KIB } });
  const place = new MemoryJournal();
  return { file, journal: new ChangeJournal(place), kill: () => ({ file: file.clone(), journal: place.load() }) };
}

/** As the next process has it. */
function reopen({ file, journal }: Files): Promise<ZonedDevice> {
  return openZoned(file, { journal: new ChangeJournal(new MemoryJournal(journal)) });
}

async function expectKilobyteOf(value: number, device: ZonedDevice, offset: number): Promise<void> {
  const bytes = new Uint8Array(KIB);
  await device.read(offset, bytes);
  expect(new Set(bytes)).toEqual(new Set([value]));
}

it("keeps the write pointer of a flush that changed no tables when the process is killed after it", async () => {
  const { file, journal, kill } = await newImage();
  const device = await openZoned(file, { journal });
  await device.append(0, new Uint8Array(KIB).fill(1));
  await device.flush();
  // To a cluster that is mapped by now: nothing but the pointer changes.
  await device.append(0, new Uint8Array(KIB).fill(2));
  journal.commit();
  await device.append(0, new Uint8Array(KIB).fill(3));
  await device.flush();
  const killed = kill();
  await device.close();
  const next = await reopen(killed);
  expect(next.report()[0]?.writePointer).toBe(3 * KIB);
  await expectKilobyteOf(3, next, 2 * KIB);
  await next.close();
});

it("keeps a write pointer in the journal until it is in the table, whoever shortens the journal meanwhile", async () => {
  const { file, journal, kill } = await newImage();
  const storage = new WatchedStorage(file);
  const device = await openZoned(storage, { journal });
  await device.append(0, new Uint8Array(KIB).fill(1));
  await device.flush();
  await device.append(0, new Uint8Array(KIB).fill(2));
  journal.commit();
  const killed: Files[] = [];
  storage.onChange = () => {
    // As a write-back does that ends now. (This flush has no tables to write.)
    journal.checkpoint();
    killed.push(kill());
  };
  await device.flush();
  storage.onChange = () => undefined;
  await device.close();
  // Around the flush of the data, the write of the table and the flush of it.
  expect(killed).toHaveLength(6);
  for (const left of killed) {
    const next = await reopen(left);
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
    const { file, journal, kill } = await newImage();
    const storage = faultStorage(file);
    const device = await openZoned(storage, { journal });
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
    const next = await reopen(kill());
    expect(next.report()[0]?.writePointer).toBe(KIB);
    await expectKilobyteOf(1, next, 0);
    await next.close();
    await device.close();
  },
);
