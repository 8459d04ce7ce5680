import { isZonedDevice } from "../../src/block/zoned-device.js";
import { createQcow2 } from "../../src/formats/qcow2/create.js";
import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { compressibleBytes, taggedBytes } from "../support/random.js";

/** The sound images that fuzzing starts from: small, with something in every structure. */

export interface GoodImage {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** File offset of the write-pointer table. */
  readonly pointerTable: number | undefined;
}

const KIB = 1024;
const zone = { mode: "host-managed", size: 32 * KIB, capacity: 24 * KIB, conventionalZones: 1 } as const;

interface Recipe {
  readonly name: string;
  readonly options: CreateQcow2Options;
  /** Most clusters are compressed. */
  readonly compressed?: boolean;
}

const RECIPES: readonly Recipe[] = [
  { name: "v3-512", options: { size: 128 * KIB, clusterSize: 512 } },
  { name: "v3-64k", options: { size: 1024 * KIB, clusterSize: 64 * KIB } },
  { name: "v2-4k", options: { size: 256 * KIB, clusterSize: 4 * KIB, compat: "0.10" } },
  { name: "v3-refcount-1", options: { size: 256 * KIB, clusterSize: 4 * KIB, refcountBits: 1 } },
  { name: "v3-refcount-64", options: { size: 64 * KIB, clusterSize: 512, refcountBits: 64 } },
  { name: "v3-lazy", options: { size: 256 * KIB, clusterSize: 4 * KIB, lazyRefcounts: true } },
  { name: "compressed-512", options: { size: 64 * KIB, clusterSize: 512 }, compressed: true },
  { name: "compressed-4k", options: { size: 256 * KIB, clusterSize: 4 * KIB, refcountBits: 8 }, compressed: true },
  {
    name: "compressed-zstd",
    options: { size: 1024 * KIB, clusterSize: 64 * KIB, compressionType: "zstd" },
    compressed: true,
  },
  { name: "zoned-current", options: { size: 250 * KIB, clusterSize: 4 * KIB, zone } },
  {
    name: "zoned-limits",
    options: { size: 256 * KIB, clusterSize: 512, zone: { ...zone, maxActiveZones: 4, maxOpenZones: 2 } },
  },
  ...(["append-limit", "v8", "v5", "v3", "seed"] as const).map((layout) => ({
    name: `zoned-${layout}`,
    options: { size: 256 * KIB, clusterSize: 4 * KIB, zone: { ...zone, layout, maxAppendBytes: 4 * KIB } },
  })),
];

async function makeImage({ name, options, compressed = false }: Recipe): Promise<GoodImage> {
  const storage = memoryStorage();
  await createQcow2(storage, options);
  const keeper = storage.clone();
  const device = await openQcow2(keeper, {});
  if (isZonedDevice(device) && !device.readOnly) {
    await device.write(4096, taggedBytes(1, 4096, 8192));
    await device.append(device.report()[2]?.start ?? 0, taggedBytes(2, 0, 4096));
    await device.append(device.report()[3]?.start ?? 0, taggedBytes(3, 0, 1536));
    await device.finishZones(device.report()[4]?.start ?? 0, zone.size);
  } else if (compressed) {
    const { optimalAlignment: clusterSize } = device.limits;
    await device.writeCompressed(0, compressibleBytes(1, 0, 12 * clusterSize));
    await device.write(2 * clusterSize + 100, taggedBytes(2, 0, 300));
  } else if (!device.readOnly) {
    for (let i = 0; i < 6; i++) await device.write(i * 9000, taggedBytes(i, i * 9000, 3000));
    await device.writeZeroes(8192, 8192, { unmap: false });
  }
  await device.close();
  const bytes = keeper.bytes();
  return { name, bytes, pointerTable: options.zone === undefined ? undefined : findPointerTable(options) };
}

/** Third cluster of a fresh image, after the refcount table and block; a `seed` image has none. */
function findPointerTable(options: CreateQcow2Options): number | undefined {
  return options.zone?.layout === "seed" ? undefined : 3 * Number(options.clusterSize);
}

export async function goodImages(): Promise<GoodImage[]> {
  const images: GoodImage[] = [];
  for (const recipe of RECIPES) images.push(await makeImage(recipe));
  return images;
}
