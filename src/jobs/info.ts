import { alignUp } from "../base/integers.js";
import { SECTOR_SIZE } from "../base/units.js";
import type { ImplicitFilePolicy } from "../block/open-policy.js";
import type { FormatChoice } from "../formats/open-image.js";
import type { EncryptionInfo } from "../formats/qcow2/encryption/describe-encryption.js";
import { AUTOCLEAR, COMPATIBLE, INCOMPATIBLE } from "../formats/qcow2/features.js";
import { qcow2Geometry } from "../formats/qcow2/geometry.js";
import type { Qcow2Header } from "../formats/qcow2/header.js";
import { readHeader } from "../formats/qcow2/header-read.js";
import type { Snapshot } from "../formats/qcow2/snapshots/snapshot.js";
import type { ZonedExtension } from "../formats/qcow2/zoned-extension.js";
import { formatDriver, probeFormat } from "../formats/registry.js";
import { openStorage } from "../storage/open-storage.js";
import type { Storage } from "../storage/storage.js";
import type { VmdkInfo } from "./info-foreign.js";

export type { VmdkInfo } from "./info-foreign.js";

/** What a qcow2 header says, beyond what every image has. */
export interface Qcow2Info {
  readonly version: 2 | 3;
  /** "zlib" or "zstd". */
  readonly compressionType: "zlib" | "zstd";
  readonly lazyRefcounts: boolean;
  /** Bits per reference count. */
  readonly refcountBits: number;
  /** The image is marked corrupt. */
  readonly corrupt: boolean;
  readonly extendedL2: boolean;
  /** Name of the external data file, if the image has one and names it. */
  readonly dataFile: string | undefined;
  /** The external data file is a raw image by itself; undefined without an external data file. */
  readonly dataFileRaw: boolean | undefined;
  /** How the disk is encrypted; undefined when it is not. */
  readonly encryption: EncryptionInfo | undefined;
  /** The persistent dirty bitmaps; undefined when there are none. */
  readonly bitmaps: readonly BitmapInfo[] | undefined;
  /** The zone configuration as stored; undefined when the image is not zoned. */
  readonly zoned: ZonedExtension | undefined;
}

/** What an image is, read from its header alone. Sizes in bytes. */
export interface ImageInfo {
  readonly filename: string;
  readonly format: string;
  readonly virtualSize: number;
  /** Host space in use; undefined where the storage cannot tell. */
  readonly actualSize: number | undefined;
  readonly clusterSize: number | undefined;
  readonly encrypted: boolean;
  /** The image was not closed after writing: reference counts may be out of date. */
  readonly dirty: boolean;
  /** As the image names it. */
  readonly backingFile: string | undefined;
  readonly backingFormat: string | undefined;
  readonly snapshotCount: number;
  /** Internal snapshots, in the order of the image's table. */
  readonly snapshots: readonly Snapshot[];
  /** Where VM state would be stored, behind the last byte the disk can use; undefined for formats without it. */
  readonly vmStateOffset: number | undefined;
  readonly qcow2: Qcow2Info | undefined;
  readonly vmdk: VmdkInfo | undefined;
}

/** How the image to describe is recognised and opened. */
export interface DescribeImageOptions {
  readonly format: FormatChoice;
  /** Ignore the locks of other processes. */
  readonly forceShare?: boolean;
  /** The caller is about to change the image: fails with `LOCKED` as opening it for writing would. Default false. */
  readonly beforeWriting?: boolean;
  /** The files that hold the extents of a VMDK, which tell its cluster size. Default `"deny"`. */
  readonly implicitFiles?: ImplicitFilePolicy;
}

/**
 * Describes an image without opening what it refers to, but for the extents of a VMDK: only headers are read, and
 * nothing is changed. A storage that was passed in stays open.
 *
 * Fails with `FORMAT_UNKNOWN`, the codes of the storage and those of the header (`QCOW2_*`, `ZONED_*`).
 */
export async function describeImage(source: string | Storage, options: DescribeImageOptions): Promise<ImageInfo> {
  if (typeof source !== "string") return describeStorage(source, options);
  if (options.format !== "probe") formatDriver(options.format);
  const use = options.beforeWriting === true ? "write" : "inspect";
  const storage = await openStorage(source, { lock: { use }, forceShare: options.forceShare ?? false });
  try {
    return await describeStorage(storage, options);
  } finally {
    await storage.close();
  }
}

async function describeStorage(storage: Storage, options: DescribeImageOptions): Promise<ImageInfo> {
  const { format, implicitFiles = "deny" } = options;
  const driver = format === "probe" ? await probeFormat(storage) : formatDriver(format);
  if (driver.name === "qcow2") return describeQcow2(storage);
  if (driver.name === "raw") return describeOther(storage, "raw", alignUp(storage.size(), SECTOR_SIZE), undefined);
  const { vmdk, backingFile, ...sizes } = await (await import("./info-foreign.js")).describeForeign(
    storage,
    driver,
    implicitFiles,
  );
  const info = describeOther(storage, driver.name, sizes.virtualSize, sizes.clusterSize);
  const backingFormat = backingFile === undefined ? undefined : driver.name;
  return { ...info, actualSize: sizes.actualSize, vmdk, backingFile, backingFormat };
}

/** What is to be told of an image whose format knows little more than its size. Sizes in bytes. */
function describeOther(
  storage: Storage,
  format: string,
  virtualSize: number,
  clusterSize: number | undefined,
): ImageInfo {
  return {
    filename: storage.name,
    format,
    virtualSize,
    actualSize: storage.allocatedSize(),
    clusterSize,
    encrypted: false,
    dirty: false,
    backingFile: undefined,
    backingFormat: undefined,
    snapshotCount: 0,
    snapshots: [],
    vmStateOffset: undefined,
    qcow2: undefined,
    vmdk: undefined,
  };
}

async function describeQcow2(storage: Storage): Promise<ImageInfo> {
  const header = await readHeader(storage, { mode: "info" });
  const { version, clusterBits, size, refcountOrder, features } = header;
  const extendedL2 = hasBit(features.incompatible, INCOMPATIBLE.extendedL2);
  const geometry = qcow2Geometry({ size, version, clusterBits, refcountOrder, extendedL2 });
  return {
    filename: storage.name,
    format: "qcow2",
    virtualSize: size,
    actualSize: storage.allocatedSize(),
    clusterSize: geometry.clusterSize,
    encrypted: header.cryptMethod !== 0,
    dirty: hasBit(features.incompatible, INCOMPATIBLE.dirty),
    backingFile: header.backingFileName,
    backingFormat: header.backingFormat,
    snapshotCount: header.snapshotCount,
    snapshots: header.snapshotCount === 0 ? [] : await snapshotsOf(storage, header),
    vmStateOffset: geometry.l1EntriesNeeded * geometry.l2Coverage,
    qcow2: qcow2Info(header, extendedL2, await encryptionInfo(storage, header), await bitmapInfo(storage, header)),
    vmdk: undefined,
  };
}

/** Loaded for images that have snapshots only. */
async function snapshotsOf(storage: Storage, header: Qcow2Header): Promise<readonly Snapshot[]> {
  const { readSnapshotTable } = await import("../formats/qcow2/snapshots/snapshot-table.js");
  return (await readSnapshotTable(storage, header)).snapshots;
}

async function encryptionInfo(storage: Storage, header: Qcow2Header): Promise<EncryptionInfo | undefined> {
  if (header.cryptMethod === 0) return undefined;
  const { describeEncryption } = await import("../formats/qcow2/encryption/describe-encryption.js");
  return describeEncryption(storage, header);
}

/** A persistent dirty bitmap, as the directory has it. */
export interface BitmapInfo {
  readonly name: string;
  /** Bytes that one bit stands for. */
  readonly granularity: number;
  /** Writes are recorded. */
  readonly auto: boolean;
  /** It was in use when the image was not closed, or is in use now: what it says cannot be trusted. */
  readonly inUse: boolean;
}

async function bitmapInfo(storage: Storage, header: Qcow2Header): Promise<readonly BitmapInfo[] | undefined> {
  if (header.bitmaps === undefined) return undefined;
  const { readDirectory } = await import("../formats/qcow2/bitmaps/load-bitmaps.js");
  const { BITMAP_AUTO, BITMAP_IN_USE } = await import("../formats/qcow2/bitmaps/bitmap-directory.js");
  return (await readDirectory(storage, header)).map(({ name, granularityBits, flags }) => ({
    name,
    granularity: 2 ** granularityBits,
    auto: (flags & BITMAP_AUTO) !== 0,
    inUse: (flags & BITMAP_IN_USE) !== 0,
  }));
}

function qcow2Info(
  header: Qcow2Header,
  extendedL2: boolean,
  encryption: EncryptionInfo | undefined,
  bitmaps: readonly BitmapInfo[] | undefined,
): Qcow2Info {
  const { incompatible, compatible, autoclear } = header.features;
  const external = hasBit(incompatible, INCOMPATIBLE.externalData);
  return {
    version: header.version,
    compressionType: header.compressionType === 1 ? "zstd" : "zlib",
    lazyRefcounts: hasBit(compatible, COMPATIBLE.lazyRefcounts),
    refcountBits: 2 ** header.refcountOrder,
    corrupt: hasBit(incompatible, INCOMPATIBLE.corrupt),
    extendedL2,
    dataFile: header.dataFileName,
    dataFileRaw: external ? hasBit(autoclear, AUTOCLEAR.rawExternalData) : undefined,
    encryption,
    bitmaps,
    zoned: header.zoned,
  };
}

function hasBit(word: bigint, bit: bigint): boolean {
  return (word & bit) !== 0n;
}
