import { createHash } from "node:crypto";
import { isZonedDevice } from "../../src/block/zoned-device.js";
import { createQcow2 } from "../../src/formats/qcow2/create.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { createSnapshot, deleteSnapshot, listSnapshots, openImage } from "../../src/index.js";
import { borrowedStorage } from "../../src/storage/borrowed-storage.js";
import { type MemoryStorage, memoryStorage } from "../../src/storage/memory-storage.js";
import { CRASH_PASSPHRASE, type CrashGeometry } from "./crash-geometries.js";
import { compressibleBytes, type Random, taggedBytes } from "./random.js";

/** An image with holes: data of all kinds written, some of them discarded, with snapshots in between. */
export async function fragmentedImage(geometry: CrashGeometry, random: Random): Promise<MemoryStorage> {
  const storage = memoryStorage();
  await createQcow2(storage, geometry.options);
  const isZoned = geometry.options.zone !== undefined;
  const mayShare = (geometry.options.refcountBits ?? 16) >= 8;
  await use(storage, geometry, random);
  if (isZoned) return useZones(storage, random);
  if (!mayShare) return storage;
  await createSnapshot(storage, { format: "qcow2", name: "one" });
  await use(storage, geometry, random);
  await createSnapshot(storage, { format: "qcow2", name: "two" });
  await use(storage, geometry, random);
  await deleteSnapshot(storage, { format: "qcow2", snapshot: random.pick(["one", "two"]) });
  return storage;
}

/** Zones filled one after the other; some are reset. */
async function useZones(storage: MemoryStorage, random: Random): Promise<MemoryStorage> {
  const device = await openQcow2(borrowedStorage(storage), { passphrase: CRASH_PASSPHRASE });
  if (!isZonedDevice(device)) throw new Error("the image has no zones");
  for (const { type, start, capacity, length } of device.report()) {
    if (type === "conventional") continue;
    await device.append(start, taggedBytes(1, start, Math.min(capacity, 512 * random.between(1, 16))));
    await device.finishZones(start, length);
  }
  for (const { type, start, length } of device.report()) {
    if (type !== "conventional" && random.chance(0.4)) await device.resetZones(start, length);
  }
  await device.close();
  return storage;
}

async function use(storage: MemoryStorage, geometry: CrashGeometry, random: Random): Promise<void> {
  const device = await openQcow2(borrowedStorage(storage), { passphrase: CRASH_PASSPHRASE });
  const conventional = geometry.options.zone?.conventionalZones ?? 0;
  const limit = geometry.options.zone === undefined ? device.size : conventional * (geometry.options.zone.size ?? 0);
  const unit = device.limits.optimalAlignment;
  const clusters = Math.floor(limit / unit);
  const steps = clusters > 0 ? 40 : 0;
  for (let step = 0; step < steps; step++) {
    const count = 1 + random.below(Math.min(8, clusters));
    const at = random.below(clusters - count + 1) * unit;
    const length = count * unit;
    const what = random.weighted({
      write: 6,
      compressed: geometry.compressed ? 8 : 0,
      zero: 1,
      reserve: 1,
      discard: 3,
    });
    if (what === "write") await device.write(at, taggedBytes(step, at, length));
    if (what === "compressed") {
      // Compressed data replace nothing.
      await device.discard(at, length);
      for (let done = 0; done < length; done += unit) {
        await device.writeCompressed(at + done, compressibleBytes(step, at + done, unit));
      }
    }
    if (what === "zero") await device.writeZeroes(at, length, { unmap: true });
    if (what === "reserve") await device.writeZeroes(at, length, { unmap: false });
    if (what === "discard") await device.discard(at, length);
  }
  await device.close();
}

/** All that the image holds: a digest of the disk and of every snapshot, by name. */
export async function imageContents(storage: MemoryStorage): Promise<Readonly<Record<string, string>>> {
  const contents: Record<string, string> = { "": await diskOf(storage) };
  for (const { name } of await listSnapshots(borrowedStorage(storage), { format: "qcow2" })) {
    contents[name] = await diskOf(storage, name);
  }
  return contents;
}

async function diskOf(storage: MemoryStorage, snapshot?: string): Promise<string> {
  const device = await openImage(memoryStorage(storage.bytes()), {
    format: "qcow2",
    readOnly: true,
    passphrase: CRASH_PASSPHRASE,
    ...(snapshot === undefined ? {} : { snapshot }),
  });
  const bytes = new Uint8Array(device.size);
  await device.read(0, bytes);
  await device.close();
  return createHash("sha256").update(bytes).digest("hex");
}
