import { type WarningSink, ZcowError } from "../../base/errors.js";
import { alignUp, ceilDiv } from "../../base/integers.js";
import { startEmpty } from "../../storage/start-empty.js";
import type { Storage } from "../../storage/storage.js";
import { type ImageLayout, planImage } from "./create-layout.js";
import type { CreateQcow2Options } from "./create-options.js";
import { type ImagePlan, planOptions } from "./create-validation.js";
import { writeTables } from "./create-write.js";
import { type InheritedZones, planZones } from "./create-zones.js";
import type { NewEncryption } from "./encryption/create-encryption.js";
import { EXTENSION, encodeFeatureNames } from "./extensions.js";
import { AUTOCLEAR, COMPATIBLE, INCOMPATIBLE, STOCK_FEATURE_NAMES, ZONED_FEATURE_NAMES } from "./features.js";
import { encodeFileName } from "./file-name.js";
import type { Qcow2Geometry } from "./geometry.js";
import type { CryptHeader, RawExtension, UnresolvedHeader } from "./header.js";
import { encodeCryptHeader } from "./header-crypt.js";
import { encodeHeader } from "./header-encode.js";
import { HEADER_LENGTH_V2, KNOWN_HEADER_LENGTH } from "./limits.js";
import { emptyWritePointerTable, writePointerTable } from "./write-pointer-table.js";
import type { ZonedExtension } from "./zoned-extension.js";
import { encodeZonedExtension, LAYOUT_FORMATS } from "./zoned-layouts.js";

/** What creation tells while it works. */
export interface CreateQcow2Hooks {
  /** Receives what is worth telling, such as limits that were clamped. Default: dropped. */
  readonly onWarning?: WarningSink;
  /** Takes the data of an image with an external data file; it stays the caller's. */
  readonly dataFile?: Storage;
  /** The zones that the image takes over from its backing image. */
  readonly inheritedZones?: InheritedZones;
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
  const zones = planZones(options, image, hooks.onWarning ?? (() => {}), hooks.inheritedZones);
  const { geometry, preallocation } = image;
  const hasTable = zones !== undefined && LAYOUT_FORMATS[zones.layout].table !== undefined;
  const layout = planImage({ geometry, preallocation, tableZones: hasTable ? zones.zoneCount : 0 });
  const zoned = zones === undefined ? undefined : placeTable(zones, hasTable, layout, geometry);
  const encryption = await makeEncryption(options, storage.name);
  const cryptHeader = placeLuks(encryption, layout, geometry);
  const header = encodeHeader(newHeader(image, layout, zoned, { method: encryption?.method ?? 0, place: cryptHeader }));
  const dataFile = image.dataFile === undefined ? storage : givenDataFile(image.dataFile.name, hooks.dataFile);

  if (image.dataFile !== undefined) await fitDataFile(dataFile, geometry.size, image.dataFile.keep);
  const cryptEnd = cryptHeader === undefined ? 0 : cryptHeader.offset + cryptHeader.length;
  await startEmpty(storage, Math.max(layout.dataEnd, alignUp(cryptEnd, geometry.clusterSize)));
  await writeTables(storage, layout, geometry);
  if (zoned !== undefined && hasTable) {
    await writePointers(storage, zoned, layout, geometry, hooks.inheritedZones);
  }
  if ((preallocation === "falloc" || preallocation === "full") && image.dataFile?.keep !== true) {
    await reserveData(dataFile, layout, geometry);
  }
  for (const { offset, bytes } of encryption?.pieces ?? []) {
    await storage.write((cryptHeader?.offset ?? 0) + offset, bytes);
  }
  if (dataFile !== storage) await dataFile.flush();
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
    backingFileName: image.backing?.name,
    backingFormat: image.backing?.format,
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
        (geometry.externalData ? INCOMPATIBLE.externalData : 0n) |
        (image.compressionType !== 0 ? INCOMPATIBLE.compressionType : 0n) |
        (geometry.subclusters > 1 ? INCOMPATIBLE.extendedL2 : 0n),
      compatible: image.lazyRefcounts ? COMPATIBLE.lazyRefcounts : 0n,
      autoclear: image.dataFile?.isRaw === true ? AUTOCLEAR.rawExternalData : 0n,
    },
    refcountOrder: geometry.refcountOrder,
    headerLength: isV3 ? KNOWN_HEADER_LENGTH : HEADER_LENGTH_V2,
    compressionType: image.compressionType,
    unknownBytes: new Uint8Array(0),
    featureNames: [],
    dataFileName: image.dataFile?.name,
    bitmaps: undefined,
    cryptHeader: crypt.place,
    extensions: newExtensions(image, zoned, crypt.place),
  };
}

function cryptExtension(place: CryptHeader | undefined): readonly RawExtension[] {
  return place === undefined ? [] : [{ type: EXTENSION.cryptHeader, data: encodeCryptHeader(place) }];
}

/** QEMU leaves the names out of small clusters, where they would take much of the room for names and extensions. */
const LARGEST_CLUSTER_WITHOUT_NAMES = 4096;

function newExtensions(
  { geometry, backing, dataFile }: ImagePlan,
  zoned: ZonedExtension | undefined,
  cryptHeader: CryptHeader | undefined,
): readonly RawExtension[] {
  const { version, clusterSize } = geometry;
  const extensions: RawExtension[] = [];
  if (backing?.format !== undefined) {
    extensions.push({ type: EXTENSION.backingFormat, data: encodeFileName(backing.format) });
  }
  if (dataFile !== undefined) extensions.push({ type: EXTENSION.dataFile, data: encodeFileName(dataFile.name) });
  extensions.push(...cryptExtension(cryptHeader));
  if (version === 2) return extensions;
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
  inherited: InheritedZones | undefined,
): Promise<void> {
  const length = layout.writePointerClusters * geometry.clusterSize;
  const table =
    inherited === undefined
      ? emptyWritePointerTable(zoned, geometry.size, length)
      : writePointerTable(zoned, inherited.pointers, geometry.size, length);
  await storage.write(layout.writePointerCluster * geometry.clusterSize, table);
}

function givenDataFile(name: string, dataFile: Storage | undefined): Storage {
  if (dataFile !== undefined) return dataFile;
  throw new ZcowError("INVALID_ARGUMENT", `Option data_file: ${name} is named, but no storage is given for it`, {
    data: { option: "data_file", value: name },
  });
}

/** A data file that keeps its contents gets longer when the disk is. */
async function fitDataFile(dataFile: Storage, size: number, keep: boolean): Promise<void> {
  if (!keep) await startEmpty(dataFile, size);
  else if (dataFile.size() < size) await dataFile.truncate(size);
}

async function reserveData(storage: Storage, layout: ImageLayout, geometry: Qcow2Geometry): Promise<void> {
  for (const { host, count } of layout.mapped) {
    const length = Math.min(
      count * geometry.clusterSize,
      geometry.externalData ? geometry.size : Number.POSITIVE_INFINITY,
    );
    await storage.writeZeroes(host * geometry.clusterSize, length, { unmap: false });
  }
}
