import type { WarningSink } from "../../base/errors.js";
import { alignUp, ceilDiv } from "../../base/integers.js";
import { startEmpty } from "../../storage/start-empty.js";
import type { Storage } from "../../storage/storage.js";
import { type ImageLayout, planImage } from "./create-layout.js";
import type { CreateQcow2Options } from "./create-options.js";
import { type ImagePlan, planOptions } from "./create-validation.js";
import { writeTables } from "./create-write.js";
import { planZones } from "./create-zones.js";
import type { NewEncryption } from "./encryption/create-encryption.js";
import { EXTENSION, encodeFeatureNames } from "./extensions.js";
import { COMPATIBLE, INCOMPATIBLE, STOCK_FEATURE_NAMES, ZONED_FEATURE_NAMES } from "./features.js";
import type { Qcow2Geometry } from "./geometry.js";
import type { CryptHeader, RawExtension, UnresolvedHeader } from "./header.js";
import { encodeCryptHeader } from "./header-crypt.js";
import { encodeHeader } from "./header-encode.js";
import { HEADER_LENGTH_V2, KNOWN_HEADER_LENGTH } from "./limits.js";
import { emptyWritePointerTable } from "./write-pointer-table.js";
import type { ZonedExtension } from "./zoned-extension.js";
import { encodeZonedExtension, LAYOUT_FORMATS } from "./zoned-layouts.js";

/** What creation tells while it works. */
export interface CreateQcow2Hooks {
  /** Receives what is worth telling, such as limits that were clamped. Default: dropped. */
  readonly onWarning?: WarningSink;
}

/**
 * Makes `storage` a qcow2 image of zeros (qcow2 specification; zones: docs/format.md, section 2), replacing what it holds. A plain
 * image is byte for byte what `qemu-img create` of QEMU 7.2 makes. Durable when it resolves.
 *
 * All options are checked before the storage is touched: `INVALID_ARGUMENT` and the `ZONED_*` codes name option, value and
 * limit. The header goes last, after a flush, so that a failure half-way leaves a file that is no image.
 */
export async function createQcow2(
  storage: Storage,
  options: CreateQcow2Options,
  hooks: CreateQcow2Hooks = {},
): Promise<void> {
  const image = planOptions(options);
  const zones = planZones(options, image, hooks.onWarning ?? (() => {}));
  const { geometry, preallocation } = image;
  const hasTable = zones !== undefined && LAYOUT_FORMATS[zones.layout].table !== undefined;
  const layout = planImage({ geometry, preallocation, tableZones: hasTable ? zones.zoneCount : 0 });
  const zoned = zones === undefined ? undefined : placeTable(zones, hasTable, layout, geometry);
  const encryption = await makeEncryption(options, storage.name);
  const cryptHeader = placeLuks(encryption, layout, geometry);
  const header = encodeHeader(newHeader(image, layout, zoned, { method: encryption?.method ?? 0, place: cryptHeader }));

  const cryptEnd = cryptHeader === undefined ? 0 : cryptHeader.offset + cryptHeader.length;
  await startEmpty(storage, Math.max(layout.dataEnd, alignUp(cryptEnd, geometry.clusterSize)));
  await writeTables(storage, layout, geometry);
  if (zoned !== undefined && hasTable) await writePointers(storage, zoned, layout, geometry);
  if (preallocation === "falloc" || preallocation === "full") await reserveData(storage, layout, geometry);
  for (const { offset, bytes } of encryption?.pieces ?? []) {
    await storage.write((cryptHeader?.offset ?? 0) + offset, bytes);
  }
  await storage.flush();
  await storage.write(0, header);
  await storage.flush();
}

function placeTable(
  zones: ZonedExtension,
  hasTable: boolean,
  layout: ImageLayout,
  geometry: Qcow2Geometry,
): ZonedExtension {
  return hasTable ? { ...zones, tableOffset: layout.writePointerCluster * geometry.clusterSize } : zones;
}

/** The keys of a new image; undefined when it is not to be encrypted. */
async function makeEncryption(options: CreateQcow2Options, name: string): Promise<NewEncryption | undefined> {
  if (options.encrypt === undefined && options.encryption !== true) return undefined;
  const { newEncryption, planEncryption } = await import("./encryption/create-encryption.js");
  const plan = planEncryption(options);
  return plan === undefined ? undefined : newEncryption(plan, name);
}

/** Where the LUKS area goes: the stock tool allocates it when all else is there. */
function placeLuks(
  encryption: NewEncryption | undefined,
  { plan }: ImageLayout,
  { clusterSize }: Qcow2Geometry,
): CryptHeader | undefined {
  const length = encryption?.areaBytes ?? 0;
  if (length === 0) return undefined;
  return { offset: plan.allocate(ceilDiv(length, clusterSize)) * clusterSize, length };
}

function newHeader(
  image: ImagePlan,
  layout: ImageLayout,
  zoned: ZonedExtension | undefined,
  crypt: { readonly method: number; readonly place: CryptHeader | undefined },
): UnresolvedHeader {
  const { geometry } = image;
  const isV3 = geometry.version === 3;
  const zonedBit = zoned !== undefined && LAYOUT_FORMATS[zoned.layout].featureBit;
  const { reftable } = layout.plan;
  return {
    version: geometry.version,
    backingFileName: undefined,
    backingFormat: undefined,
    clusterBits: geometry.clusterBits,
    size: geometry.size,
    cryptMethod: crypt.method,
    l1Size: geometry.l1EntriesNeeded,
    l1TableOffset: layout.l1Cluster * geometry.clusterSize,
    refcountTableOffset: reftable.cluster * geometry.clusterSize,
    refcountTableClusters: reftable.clusters,
    snapshotCount: 0,
    snapshotsOffset: 0,
    features: {
      incompatible:
        (zonedBit ? INCOMPATIBLE.zoned : 0n) |
        (image.compressionType !== 0 ? INCOMPATIBLE.compressionType : 0n) |
        (geometry.subclusters > 1 ? INCOMPATIBLE.extendedL2 : 0n),
      compatible: image.lazyRefcounts ? COMPATIBLE.lazyRefcounts : 0n,
      autoclear: 0n,
    },
    refcountOrder: geometry.refcountOrder,
    headerLength: isV3 ? KNOWN_HEADER_LENGTH : HEADER_LENGTH_V2,
    compressionType: image.compressionType,
    unknownBytes: new Uint8Array(0),
    featureNames: [],
    dataFileName: undefined,
    bitmaps: undefined,
    cryptHeader: crypt.place,
    extensions: [...cryptExtension(crypt.place), ...(isV3 ? newExtensions(zoned, geometry.clusterSize) : [])],
  };
}

function cryptExtension(place: CryptHeader | undefined): readonly RawExtension[] {
  return place === undefined ? [] : [{ type: EXTENSION.cryptHeader, data: encodeCryptHeader(place) }];
}

/** QEMU leaves the names out of small clusters, where they would take much of the room for names and extensions. */
const LARGEST_CLUSTER_WITHOUT_NAMES = 4096;

function newExtensions(zoned: ZonedExtension | undefined, clusterSize: number): readonly RawExtension[] {
  const extensions: RawExtension[] = [];
  if (clusterSize > LARGEST_CLUSTER_WITHOUT_NAMES) {
    const names = zoned === undefined ? STOCK_FEATURE_NAMES : ZONED_FEATURE_NAMES;
    extensions.push({ type: EXTENSION.featureNames, data: encodeFeatureNames(names) });
  }
  if (zoned !== undefined) extensions.push({ type: EXTENSION.zoned, data: encodeZonedExtension(zoned) });
  return extensions;
}

async function writePointers(
  storage: Storage,
  zoned: ZonedExtension,
  layout: ImageLayout,
  geometry: Qcow2Geometry,
): Promise<void> {
  const length = layout.writePointerClusters * geometry.clusterSize;
  await storage.write(
    layout.writePointerCluster * geometry.clusterSize,
    emptyWritePointerTable(zoned, geometry.size, length),
  );
}

async function reserveData(storage: Storage, layout: ImageLayout, geometry: Qcow2Geometry): Promise<void> {
  for (const { host, count } of layout.mapped) {
    await storage.writeZeroes(host * geometry.clusterSize, count * geometry.clusterSize, { unmap: false });
  }
}
