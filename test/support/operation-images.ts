import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isZonedDevice } from "../../src/block/zoned-device.js";
import { createQcow2 } from "../../src/formats/qcow2/create.js";
import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { openRaw } from "../../src/formats/raw/device.js";
import { amendImage } from "../../src/jobs/amend.js";
import { changeBitmap } from "../../src/jobs/bitmap.js";
import { createSnapshot } from "../../src/jobs/snapshot.js";
import { borrowedStorage } from "../../src/storage/borrowed-storage.js";
import { type MemoryStorage, memoryStorage } from "../../src/storage/memory-storage.js";
import { CRASH_PASSPHRASE } from "./crash-geometries.js";
import type { ImageToChange } from "./operation-crash.js";
import { compressibleBytes, taggedBytes } from "./random.js";
import { temporaryDirectory } from "./stock-tools.js";

/** Small images with every feature of the format, one each, for operations on whole images. */

const KIB = 1024;
const qcow2 = { format: "qcow2" } as const;

export interface FeatureImage {
  readonly name: string;
  readonly options: CreateQcow2Options;
  readonly snapshots?: boolean;
  readonly bitmaps?: boolean;
  readonly compressed?: boolean;
  /** Bytes of a raw image behind this one. */
  readonly behind?: number;
  readonly dataFile?: "plain" | "raw";
}

const PLAIN = { size: 160 * KIB, clusterSize: 4 * KIB } as const;
const luks = { format: "luks", passphrase: CRASH_PASSPHRASE, iterTime: 1 } as const;
const SAME_PASSPHRASE_AGAIN = { state: "active", newPassphrase: CRASH_PASSPHRASE, iterTime: 1 } as const;
const zone = (layout: "current" | "append-limit" | "v8" | "v5" | "v3", maxAppendBytes?: number) => ({
  mode: "host-managed" as const,
  size: 32 * KIB,
  capacity: 28 * KIB,
  conventionalZones: 1,
  layout,
  ...(maxAppendBytes === undefined ? {} : { maxAppendBytes }),
});

export const FEATURE_IMAGES: readonly FeatureImage[] = [
  { name: "plain", options: PLAIN, snapshots: true },
  { name: "version 2", options: { ...PLAIN, compat: "0.10" }, snapshots: true },
  { name: "lazy refcounts", options: { ...PLAIN, lazyRefcounts: true }, snapshots: true },
  { name: "compressed", options: PLAIN, snapshots: true, compressed: true },
  {
    name: "extended L2",
    options: { size: 320 * KIB, clusterSize: 16 * KIB, extendedL2: true },
    snapshots: true,
  },
  // The disk ends inside a cluster, and what is behind it goes on.
  {
    name: "overlay of subclusters",
    options: { size: 327 * KIB, clusterSize: 16 * KIB, extendedL2: true },
    snapshots: true,
    behind: 500 * KIB,
  },
  { name: "LUKS", options: { ...PLAIN, encrypt: luks }, snapshots: true },
  {
    name: "AES",
    options: { ...PLAIN, encrypt: { format: "aes", passphrase: CRASH_PASSPHRASE } },
    snapshots: true,
  },
  { name: "overlay", options: { ...PLAIN, size: 162.5 * KIB }, snapshots: true, behind: 250 * KIB },
  {
    name: "short overlay",
    options: { ...PLAIN, size: 162.5 * KIB },
    snapshots: true,
    behind: 161.5 * KIB,
  },
  {
    name: "overlay of version 2",
    options: { ...PLAIN, size: 162.5 * KIB, compat: "0.10" },
    behind: 171.5 * KIB,
  },
  {
    name: "AES overlay of version 2",
    options: {
      ...PLAIN,
      size: 162.5 * KIB,
      compat: "0.10",
      encrypt: { format: "aes", passphrase: CRASH_PASSPHRASE },
    },
    behind: 171.5 * KIB,
  },
  {
    name: "AES overlay",
    options: { ...PLAIN, size: 162.5 * KIB, encrypt: { format: "aes", passphrase: CRASH_PASSPHRASE } },
    behind: 171.5 * KIB,
  },
  { name: "data file", options: PLAIN, dataFile: "plain" },
  {
    name: "data file and overlay",
    options: { ...PLAIN, size: 162.5 * KIB },
    dataFile: "plain",
    behind: 250 * KIB,
  },
  { name: "raw data file", options: PLAIN, dataFile: "raw" },
  // Large clusters have feature names in the header, which then takes more than a sector.
  { name: "bitmaps", options: { size: 160 * KIB, clusterSize: 8 * KIB }, snapshots: true, bitmaps: true },
  {
    name: "bitmaps of an overlay",
    options: { size: 160 * KIB, clusterSize: 8 * KIB },
    bitmaps: true,
    behind: 100 * KIB,
  },
  { name: "zoned", options: { ...PLAIN, zone: zone("current") }, snapshots: true },
  {
    name: "zoned append-limit",
    options: { ...PLAIN, zone: zone("append-limit", 8 * KIB) },
    snapshots: true,
  },
  {
    name: "zoned v8",
    options: { ...PLAIN, clusterSize: 8 * KIB, zone: zone("v8", 8 * KIB) },
    snapshots: true,
  },
  { name: "zoned v5", options: { ...PLAIN, zone: zone("v5", 8 * KIB) }, snapshots: true },
  { name: "zoned v3", options: { ...PLAIN, zone: zone("v3", 8 * KIB) }, snapshots: true },
  { name: "zoned LUKS", options: { ...PLAIN, zone: zone("current"), encrypt: luks } },
];

/** The group of tests that an image belongs to. */
export function kindOf(feature: FeatureImage): "encrypted" | "zoned" | "bitmaps" | "files" | "plain" {
  if (feature.options.encrypt !== undefined) return "encrypted";
  if (feature.options.zone !== undefined) return "zoned";
  if (feature.bitmaps === true) return "bitmaps";
  return feature.behind !== undefined || feature.dataFile !== undefined ? "files" : "plain";
}

/** The image with data of all kinds in it, in fragments, and with what else it has. */
export async function featureImage(feature: FeatureImage): Promise<ImageToChange> {
  const folder = temporaryDirectory();
  const below = taggedBytes(99, 0, feature.behind ?? 0);
  const behindPath = join(folder, "behind.raw");
  const dataPath = join(folder, "data.raw");
  if (feature.behind !== undefined) await writeFile(behindPath, below);
  const data = memoryStorage();
  const storage = memoryStorage();
  await createQcow2(
    storage,
    {
      ...feature.options,
      ...(feature.behind === undefined ? {} : { backingFile: behindPath, backingFormat: "raw" }),
      ...(feature.dataFile === undefined ? {} : { dataFile: dataPath, dataFileRaw: feature.dataFile === "raw" }),
    },
    { dataFile: data },
  );
  const files = (): ReturnType<NonNullable<ImageToChange["files"]>> => ({
    ...(feature.behind === undefined ? {} : { backing: openRaw(memoryStorage(below), { readOnly: true }) }),
    ...(feature.dataFile === undefined ? {} : { dataFile: borrowedStorage(data) }),
  });
  await fill(storage, feature, files, 1);
  if (feature.snapshots === true) await createSnapshot(storage, { ...qcow2, name: "old" });
  if (feature.bitmaps === true) {
    await changeBitmap(storage, { ...qcow2, name: "kept", actions: [{ do: "add", granularity: 512 }] });
    await changeBitmap(storage, { ...qcow2, name: "rough", actions: [{ do: "add", granularity: 64 * KIB }] });
  }
  await fill(storage, feature, files, 2);
  if (feature.snapshots === true) await createSnapshot(storage, { ...qcow2, name: "newer" });
  await fill(storage, feature, files, 3);
  // One of the keys can be erased then.
  const isLuks = feature.options.encrypt?.format === "luks";
  if (isLuks) await amendImage(storage, { ...qcow2, passphrase: CRASH_PASSPHRASE, encrypt: SAME_PASSPHRASE_AGAIN });
  if (feature.dataFile !== undefined) await writeFile(dataPath, data.bytes());
  return { bytes: storage.bytes(), files };
}

async function fill(
  storage: MemoryStorage,
  { compressed = false }: FeatureImage,
  files: NonNullable<ImageToChange["files"]>,
  round: number,
): Promise<void> {
  const device = await openQcow2(borrowedStorage(storage), { ...files(), passphrase: CRASH_PASSPHRASE });
  const unit = device.limits.optimalAlignment;
  if (isZonedDevice(device)) {
    for (const { type, start, length, state } of device.report()) {
      if (type === "conventional") await device.write(start + 512 * round, taggedBytes(round, start, 9 * KIB));
      else if (state === "full" && round === 3) await device.resetZones(start, length);
      else if (state !== "full") {
        await device.append(start, taggedBytes(round, start, 5 * KIB));
        if ((start / length) % 2 === 0) await device.finishZones(start, length);
      }
    }
  } else {
    const at = round * 5 * unit;
    await device.write(at - unit - 512, taggedBytes(round, at, 4 * unit));
    await device.writeZeroes(at, unit, { unmap: false });
    await device.writeZeroes(at + 2 * unit, unit, { unmap: true });
    if (compressed) {
      for (const cluster of [12, 13, 14, 16 + round]) {
        await device.discard(cluster * unit, unit);
        await device.writeCompressed(cluster * unit, compressibleBytes(round, cluster * unit, unit));
      }
    }
    await device.discard((round + 3) * unit, 2 * unit);
  }
  await device.close();
}
