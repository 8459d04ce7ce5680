import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../../../src/base/units.js";
import type { CreateQcow2Options } from "../../../../src/formats/qcow2/create-options.js";
import {
  changeBitmap,
  checkImage,
  createSnapshot,
  describeImage,
  isZonedDevice,
  memoryStorage,
  openImage,
  type Storage,
} from "../../../../src/index.js";
import { dumpImage, restoreDump } from "../../../../src/jobs/dump/dump.js";
import { borrowedStorage } from "../../../../src/storage/borrowed-storage.js";
import { collect } from "../../../support/collect.js";
import { newImage } from "../../../support/new-image.js";

const SECRET = "what the guest wrote";
const qcow2 = { format: "qcow2" } as const;
const passphrase = "open sesame";

async function filled(options: Partial<CreateQcow2Options>): Promise<ReturnType<typeof memoryStorage>> {
  const image = memoryStorage(await newImage({ size: 8 * MiB, clusterSize: 4 * KiB, ...options }));
  const device = await openImage(borrowedStorage(image), { ...qcow2, passphrase });
  const bytes = new TextEncoder().encode(SECRET.repeat(2000)).subarray(0, 36 * KiB);
  if (isZonedDevice(device)) await device.append(MiB, bytes);
  else await device.write(MiB, bytes);
  await device.close();
  return image;
}

async function dumped(image: Storage, withKeys = false): Promise<ReturnType<typeof memoryStorage>> {
  const dump = memoryStorage();
  await dumpImage(image, dump, { ...qcow2, withKeys });
  return dump;
}

async function restored(image: Storage, withKeys = false): Promise<ReturnType<typeof memoryStorage>> {
  const copy = memoryStorage();
  await restoreDump(await dumped(image, withKeys), copy);
  return copy;
}

async function mapOf(storage: Storage): Promise<unknown> {
  const device = await openImage(borrowedStorage(storage), { ...qcow2, readOnly: true, passphrase });
  const extents = await collect(device.extents(0, device.size));
  const zones = isZonedDevice(device) ? device.report() : [];
  await device.close();
  return { extents, zones };
}

const SHAPES: readonly { name: string; options: Partial<CreateQcow2Options> }[] = [
  { name: "a plain image", options: {} },
  { name: "subclusters", options: { clusterSize: 16 * KiB, extendedL2: true } },
  { name: "version 2", options: { compat: "0.10" } },
  { name: "zones", options: { zone: { mode: "host-managed", size: MiB } } },
];

describe("a dump", () => {
  it.each(SHAPES)("restores tables and counts, and none of the data: $name", async ({ options }) => {
    const image = await filled(options);
    const copy = await restored(image);
    expect(copy.size()).toBe(image.size());
    expect(await mapOf(copy)).toEqual(await mapOf(image));
    expect(await checkImage(copy, qcow2)).toEqual(await checkImage(image, qcow2));
    expect(Buffer.from((await dumped(image)).bytes()).includes(SECRET)).toBe(false);
    expect(Buffer.from(copy.bytes()).includes(SECRET)).toBe(false);
    expect(Buffer.from(image.bytes()).includes(SECRET)).toBe(true);
  });

  it("has snapshots and bitmaps, with their tables", async () => {
    const image = await filled({});
    await createSnapshot(image, { ...qcow2, name: "first" });
    await changeBitmap(image, { ...qcow2, name: "dirty", actions: [{ do: "add" }] });
    const device = await openImage(borrowedStorage(image), qcow2);
    await device.write(2 * MiB, new Uint8Array(5000).fill(7));
    await device.close();
    const copy = await restored(image);
    const facts = async (storage: Storage) => {
      const { snapshots, qcow2: details } = await describeImage(borrowedStorage(storage), qcow2);
      return { snapshots, bitmaps: details?.bitmaps };
    };
    expect(await facts(copy)).toEqual(await facts(image));
    expect(await checkImage(copy, qcow2)).toEqual(await checkImage(image, qcow2));
  });

  it("leaves the key slots of an encrypted image out, unless they are asked for", async () => {
    const image = await filled({ encrypt: { format: "luks", passphrase, iterTime: 10 } });
    const open = async (storage: Storage) => openImage(borrowedStorage(storage), { ...qcow2, passphrase });
    await expect(restored(image).then(open)).rejects.toThrow();
    await (await open(await restored(image, true))).close();
    expect(await checkImage(await restored(image), qcow2)).toEqual(await checkImage(image, qcow2));
  });

  it("takes what can be found of a damaged image, and says what cannot", async () => {
    const image = await filled({});
    const view = new DataView(image.bytes().buffer);
    const l1 = Number(view.getBigUint64(40));
    await image.write(l1, new Uint8Array([0x80, 0, 0xff, 0, 0, 0, 0x12, 0]));
    const dump = memoryStorage();
    const { notes } = await dumpImage(image, dump, qcow2);
    expect(notes).toHaveLength(1);
    expect(notes[0]).toMatch(/^entry 0 of the L1 table: offset \d+ is not that of a cluster in the file$/);
    const copy = memoryStorage();
    await restoreDump(dump, copy);
    expect(copy.bytes().subarray(l1, l1 + 8)).toEqual(image.bytes().subarray(l1, l1 + 8));
    await image.write(4, new Uint8Array([0, 0, 0, 9]));
    const header = await dumpImage(image, memoryStorage(), qcow2);
    expect(header.notes[0]).toMatch(/^header: /);
    expect(header.metadataBytes).toBe(4096);
  });

  it("is refused when it is cut short, or any byte of its structure is wrong", async () => {
    const whole = (await dumped(await filled({}))).bytes();
    for (const length of [0, 10, 24, 30, 41, whole.length - 1]) {
      const cut = memoryStorage(whole.slice(0, length));
      await expect(restoreDump(cut, memoryStorage())).rejects.toMatchObject({ code: "DUMP_FORMAT" });
    }
    for (const at of [0, 8, 11, 16, 24, 32, 36, 42]) {
      const bytes = whole.slice();
      bytes[at] = 0xff;
      await expect(restoreDump(memoryStorage(bytes), memoryStorage()), `byte ${at}`).rejects.toMatchObject({
        code: "DUMP_FORMAT",
      });
    }
  });
});
