import type { FormatDriver } from "../block/format-driver.js";
import type { ImplicitFilePolicy } from "../block/open-policy.js";
import { NO_PARENT } from "../formats/vmdk/descriptor.js";
import type { VmdkExtent } from "../formats/vmdk/disk.js";
import { type OpenedVmdk, openVmdk } from "../formats/vmdk/open.js";
import { borrowedStorage } from "../storage/borrowed-storage.js";
import type { Storage } from "../storage/storage.js";

/** What there is to tell of an image of another virtual machine's format. Bytes. */
export interface ForeignDescription {
  readonly virtualSize: number;
  readonly clusterSize: number | undefined;
  readonly actualSize: number | undefined;
  readonly vmdk: VmdkInfo | undefined;
  /** Name of the disk that this one is a difference to. */
  readonly backingFile: string | undefined;
}

/** What the descriptor of a VMDK says, beyond what every image has. */
export interface VmdkInfo {
  /** Changes with the contents; 0xffffffff when there is no descriptor. */
  readonly contentId: number;
  /** Of the parent; 0xffffffff: none. */
  readonly parentContentId: number;
  readonly createType: string;
  readonly extents: readonly VmdkExtentInfo[];
}

/** A file that holds a part of a VMDK. Bytes. */
export interface VmdkExtentInfo {
  readonly virtualSize: number;
  readonly filename: string;
  /** Undefined for flat extents. */
  readonly clusterSize: number | undefined;
  /** FLAT, or nothing for sparse extents of one file. */
  readonly format: string;
  readonly compressed: boolean;
}

/**
 * Describes an image of another virtual machine's format. The extents of a VMDK are opened, as far as it is they that know
 * the size of the disk; `storage` stays open.
 */
export async function describeForeign(
  storage: Storage,
  driver: FormatDriver,
  implicitFiles: ImplicitFilePolicy,
): Promise<ForeignDescription> {
  const options = { readOnly: true, implicitFiles, backing: "none" } as const;
  if (driver.name === "vmdk") {
    const opened = await openVmdk(borrowedStorage(storage), options);
    try {
      return describeVmdk(storage, opened);
    } finally {
      await opened.disk.close();
    }
  }
  const device = await driver.open(borrowedStorage(storage), options);
  try {
    const { optimalAlignment } = device.limits;
    const clusterSize = optimalAlignment === 1 ? undefined : optimalAlignment;
    const actualSize = storage.allocatedSize();
    return { virtualSize: device.size, clusterSize, actualSize, vmdk: undefined, backingFile: undefined };
  } finally {
    await device.close();
  }
}

function describeVmdk(storage: Storage, { disk, descriptor, extents }: OpenedVmdk): ForeignDescription {
  return {
    virtualSize: disk.size,
    clusterSize: disk.blockSize,
    actualSize: disk.allocatedSize(),
    backingFile: descriptor?.parentName,
    vmdk: {
      contentId: descriptor?.contentId ?? NO_PARENT,
      parentContentId: descriptor?.parentContentId ?? NO_PARENT,
      createType: descriptor?.createType ?? "monolithicSparse",
      extents: extents.flatMap((extent) => extentInfo(extent, storage)),
    },
  };
}

function extentInfo(extent: VmdkExtent, storage: Storage): VmdkExtentInfo[] {
  if (extent.kind === "zero") return [];
  if (extent.kind === "flat") {
    const { length, storage: file } = extent;
    return [{ virtualSize: length, filename: file.name, clusterSize: undefined, format: "FLAT", compressed: false }];
  }
  const { storage: file, header } = extent.extent;
  return [
    {
      virtualSize: extent.length,
      filename: file.name,
      clusterSize: header.grainSize,
      format: file.name === storage.name ? "" : "SPARSE",
      compressed: header.compressed,
    },
  ];
}
