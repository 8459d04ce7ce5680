import { formatSize } from "../base/size-text.js";
import { resolveReference } from "../block/image-reference.js";
import type { EncryptionInfo } from "../formats/qcow2/encryption/describe-encryption.js";
import type { ZonedExtension } from "../formats/qcow2/zoned-extension.js";
import type { BitmapInfo, ImageInfo, Qcow2Info, VmdkInfo } from "../jobs/info.js";
import { effectiveMaxAppend } from "../zoned/zone-config.js";
import { snapshotListText, snapshotTree } from "./snapshot-list.js";

/** A value as `--output json` has it; the text form shows the same tree with spaces for dashes. */
type Leaf = string | number | boolean;
type Tree = { readonly [key: string]: Leaf | Tree | readonly (Tree | Leaf)[] };

const INDENT = 4;

/** The format's own part of the description, in the key order of the stock tool, with the zones behind it. */
function formatSpecific(info: Qcow2Info): Tree {
  const version3 = info.version === 3;
  return {
    compat: version3 ? "1.1" : "0.10",
    "compression-type": info.compressionType,
    ...(version3 ? { "lazy-refcounts": info.lazyRefcounts } : {}),
    ...(info.bitmaps === undefined ? {} : { bitmaps: info.bitmaps.map(bitmapTree) }),
    "refcount-bits": info.refcountBits,
    ...(info.dataFile === undefined ? {} : { "data-file": info.dataFile }),
    ...(info.dataFileRaw === undefined ? {} : { "data-file-raw": info.dataFileRaw }),
    ...(info.encryption === undefined ? {} : { encrypt: encryptionTree(info.encryption) }),
    ...(version3 ? { corrupt: info.corrupt, "extended-l2": info.extendedL2 } : {}),
    ...(info.zoned === undefined ? {} : { zoned: zonedTree(info.zoned) }),
  };
}

function vmdkTree(info: VmdkInfo): Tree {
  return {
    cid: info.contentId,
    "parent-cid": info.parentContentId,
    "create-type": info.createType,
    extents: info.extents.map((extent) => ({
      ...(extent.compressed ? { compressed: true } : {}),
      "virtual-size": extent.virtualSize,
      filename: extent.filename,
      ...(extent.clusterSize === undefined ? {} : { "cluster-size": extent.clusterSize }),
      format: extent.format,
    })),
  };
}

/** The description by the format itself, for formats that have one. */
function specificTree(info: ImageInfo): Tree | undefined {
  if (info.qcow2 !== undefined) return formatSpecific(info.qcow2);
  return info.vmdk === undefined ? undefined : vmdkTree(info.vmdk);
}

function bitmapTree({ name, granularity, auto, inUse }: BitmapInfo): Tree {
  return { flags: [...(inUse ? ["in-use"] : []), ...(auto ? ["auto"] : [])], name, granularity };
}

/** In the key order of the stock tool. */
function encryptionTree(info: EncryptionInfo): Tree {
  if (info.format === "aes") return { format: "aes" };
  return {
    "ivgen-alg": info.ivgenAlg,
    "hash-alg": info.hashAlg,
    "cipher-alg": info.cipherAlg,
    uuid: info.uuid,
    ...(info.ivgenHashAlg === undefined ? {} : { "ivgen-hash-alg": info.ivgenHashAlg }),
    format: "luks",
    "cipher-mode": info.cipherMode,
    slots: info.slots.map(({ active, iterations, keyOffset, stripes }) =>
      active ? { active, iters: iterations, "key-offset": keyOffset, stripes } : { active, "key-offset": keyOffset },
    ),
    "payload-offset": info.payloadOffset,
    "master-key-iters": info.masterKeyIterations,
  };
}

function zonedTree(zoned: ZonedExtension): Tree {
  return {
    model: "host-managed",
    layout: zoned.layout,
    "zone-size": zoned.zoneSize,
    "zone-capacity": zoned.zoneCapacity,
    zones: zoned.zoneCount,
    "conventional-zones": zoned.conventionalZones,
    "max-open-zones": zoned.maxOpenZones,
    "max-active-zones": zoned.maxActiveZones,
    "max-append-bytes": effectiveMaxAppend(zoned),
  };
}

function treeLines(tree: Tree, indent: number): string[] {
  return Object.entries(tree).flatMap(([key, value]) => {
    const label = `${" ".repeat(indent)}${key.replaceAll("-", " ")}:`;
    if (isList(value)) {
      const items = Object.fromEntries(value.map((item, index) => [`[${index}]`, item]));
      return [label, ...treeLines(items, indent + INDENT)];
    }
    return typeof value === "object" ? [label, ...treeLines(value, indent + INDENT)] : [`${label} ${value}`];
  });
}

function isList(value: Tree[string]): value is readonly (Tree | Leaf)[] {
  return Array.isArray(value);
}

/** "Format specific information" as text; empty for formats that have none. */
export function formatSpecificText(info: ImageInfo): string {
  const tree = specificTree(info);
  if (tree === undefined) return "";
  return ["Format specific information:", ...treeLines(tree, INDENT), ""].join("\n");
}

/** The description for people, as `qemu-img info` prints it. `shownName`: for an image that its file name alone does not describe. */
export function infoText(info: ImageInfo, shownName = info.filename): string {
  const lines = [
    `image: ${shownName}`,
    `file format: ${info.format}`,
    `virtual size: ${formatSize(info.virtualSize)} (${info.virtualSize} bytes)`,
    `disk size: ${info.actualSize === undefined ? "unavailable" : formatSize(info.actualSize)}`,
  ];
  if (info.encrypted) lines.push("encrypted: yes");
  if (info.clusterSize !== undefined) lines.push(`cluster_size: ${info.clusterSize}`);
  if (info.dirty) lines.push("cleanly shut down: no");
  if (info.backingFile !== undefined) {
    const path = resolveReference(info.backingFile, info.filename);
    lines.push(`backing file: ${info.backingFile}${path === info.backingFile ? "" : ` (actual path: ${path})`}`);
  }
  if (info.backingFormat !== undefined) lines.push(`backing file format: ${info.backingFormat}`);
  return `${lines.join("\n")}\n${snapshotListText(info.snapshots)}${formatSpecificText(info)}`;
}

/** The description for programs: the keys of `qemu-img info --output=json`, in its order. */
export function infoTree(info: ImageInfo, shownName = info.filename): Tree {
  const specific = specificTree(info);
  return {
    ...(info.backingFormat === undefined ? {} : { "backing-filename-format": info.backingFormat }),
    ...(info.snapshots.length === 0 ? {} : { snapshots: info.snapshots.map(snapshotTree) }),
    "virtual-size": info.virtualSize,
    filename: shownName,
    ...(info.clusterSize === undefined ? {} : { "cluster-size": info.clusterSize }),
    format: info.format,
    ...(info.actualSize === undefined ? {} : { "actual-size": info.actualSize }),
    ...(specific === undefined ? {} : { "format-specific": { type: info.format, data: specific } }),
    ...(info.encrypted ? { encrypted: true } : {}),
    ...(info.backingFile === undefined
      ? {}
      : {
          "full-backing-filename": resolveReference(info.backingFile, info.filename),
          "backing-filename": info.backingFile,
        }),
    "dirty-flag": info.dirty,
  };
}
