import { dirname, isAbsolute } from "node:path";
import { viewOf } from "../../base/bytes.js";
import { ZcowError } from "../../base/errors.js";
import { MiB } from "../../base/units.js";
import type { BlockDevice } from "../../block/block-device.js";
import type { FormatDriver, FormatLookup, OpenDeviceOptions } from "../../block/format-driver.js";
import { permitImplicitFile } from "../../block/open-policy.js";
import { openFileStorage } from "../../storage/file-storage.js";
import type { Storage } from "../../storage/storage.js";
import { NO_PARENT, parseDescriptor, type VmdkDescriptor, type VmdkExtentLine } from "./descriptor.js";
import { VmdkDisk, type VmdkExtent } from "./disk.js";
import { SparseExtent } from "./sparse-extent.js";
import { COWD_MAGIC, readSparseHeader, SPARSE_MAGIC } from "./sparse-header.js";

/** A descriptor of its own file; those of real disks have one or two KiB. */
const MAX_DESCRIPTOR_FILE = MiB;
/** What each kind of extent line means; the others are not read. */
const EXTENT_KINDS: ReadonlyMap<string, VmdkExtent["kind"]> = new Map([
  ["SPARSE", "sparse"],
  ["FLAT", "flat"],
  ["VMFS", "flat"],
  ["ZERO", "zero"],
]);

/** A VMDK and what its descriptor says; an extent without a descriptor is a disk of its own. */
export interface OpenedVmdk {
  readonly disk: VmdkDisk;
  readonly descriptor: VmdkDescriptor | undefined;
  readonly extents: readonly VmdkExtent[];
}

/**
 * Opens a VMDK: one sparse or stream-optimised file, or a descriptor with its flat and sparse extents. Files that the
 * descriptor names need the leave of `options.implicitFiles`: `IMPLICIT_FILE_DENIED`. Fails with `FORMAT_FIELD`,
 * `FORMAT_VARIANT`, and the codes of the storages.
 */
export async function openVmdk(storage: Storage, options: OpenDeviceOptions): Promise<OpenedVmdk> {
  const head = new Uint8Array(4);
  await storage.read(0, head);
  const magic = viewOf(head).getUint32(0, true);
  if (magic === SPARSE_MAGIC) return openSparse(storage, options);
  if (magic === COWD_MAGIC) throw unsupported(storage, "magic", "COWD", "the sparse extents of ESX 2 are not read");
  return openDescriptor(storage, options);
}

async function openSparse(storage: Storage, options: OpenDeviceOptions): Promise<OpenedVmdk> {
  const header = await readSparseHeader(storage);
  const descriptor = header.descriptor.length === 0 ? undefined : await embedded(storage, header.descriptor);
  const parent = descriptor === undefined ? undefined : await openParent(storage, descriptor, options);
  const extents: VmdkExtent[] = [
    { start: 0, length: header.capacity, kind: "sparse", extent: new SparseExtent(storage, header) },
  ];
  return { disk: new VmdkDisk(storage.name, extents, [storage], parent), descriptor, extents };
}

async function embedded(
  storage: Storage,
  place: { offset: number; length: number },
): Promise<VmdkDescriptor | undefined> {
  const text = await readText(storage, place.offset, place.length);
  return text.trim() === "" ? undefined : parseDescriptor(text, storage.name);
}

/** The descriptor in a file of its own. Fails with `FORMAT_FIELD`. */
export async function readDescriptorFile(storage: Storage): Promise<VmdkDescriptor> {
  const length = storage.size();
  if (length > MAX_DESCRIPTOR_FILE) {
    throw new ZcowError(
      "FORMAT_FIELD",
      `${storage.name}: a VMDK descriptor of ${length} bytes; at most ${MAX_DESCRIPTOR_FILE} are taken`,
      {
        data: { path: storage.name, structure: "VMDK descriptor", length, limit: MAX_DESCRIPTOR_FILE },
        stockText: "Image not in VMDK format",
      },
    );
  }
  return parseDescriptor(await readText(storage, 0, length), storage.name);
}

async function openDescriptor(storage: Storage, options: OpenDeviceOptions): Promise<OpenedVmdk> {
  const descriptor = await readDescriptorFile(storage);
  requireKnownKind(storage, descriptor);
  const opened: Storage[] = [];
  try {
    const extents: VmdkExtent[] = [];
    let start = 0;
    for (const line of descriptor.extents) {
      extents.push(await openExtent(storage, line, start, options, opened));
      start += line.length;
    }
    const parent = await openParent(storage, descriptor, options);
    return { disk: new VmdkDisk(storage.name, extents, [storage, ...opened], parent), descriptor, extents };
  } catch (error) {
    await Promise.all(opened.map((extent) => extent.close()));
    throw error;
  }
}

async function openExtent(
  storage: Storage,
  line: VmdkExtentLine,
  start: number,
  options: OpenDeviceOptions,
  opened: Storage[],
): Promise<VmdkExtent> {
  const { length, type, fileName, fileOffset, access } = line;
  const kind = EXTENT_KINDS.get(type);
  if (kind === undefined) {
    throw unsupported(storage, "extent type", type, `${type} is not read`, `Invalid extent line: ${line.text}`);
  }
  if (access === "NOACCESS" || kind === "zero") return { start, length, kind: "zero" };
  if (fileName === undefined) throw unsupported(storage, "extent", type, "it names no file");
  const file = await openExtentFile(storage, fileName, options);
  opened.push(file);
  if (kind === "flat") return { start, length, kind, storage: file, at: fileOffset };
  const header = await readSparseHeader(file);
  if (header.capacity < length) {
    throw new ZcowError(
      "FORMAT_FIELD",
      `${file.name}: the extent has ${header.capacity} bytes, its descriptor gives it ${length}`,
      {
        data: {
          path: file.name,
          structure: "VMDK sparse header",
          field: "capacity",
          value: header.capacity,
          limit: length,
        },
      },
    );
  }
  return { start, length, kind, extent: new SparseExtent(file, header) };
}

async function openExtentFile(storage: Storage, name: string, options: OpenDeviceOptions): Promise<Storage> {
  await permitImplicitFile(options.implicitFiles ?? "deny", {
    role: "extent file",
    name,
    format: undefined,
    image: storage.name,
  });
  const folder = dirname(storage.name);
  // Put together as it stands, as the stock tools print it.
  return openFileStorage(isAbsolute(name) || folder === "." ? name : `${folder}/${name}`, { writable: false });
}

/** Kinds of disks whose files are read. */
const KINDS: ReadonlySet<string> = new Set([
  "monolithicFlat",
  "monolithicSparse",
  "twoGbMaxExtentFlat",
  "twoGbMaxExtentSparse",
  "vmfs",
  "custom",
]);

function requireKnownKind(storage: Storage, descriptor: VmdkDescriptor): void {
  const { createType, extents } = descriptor;
  if (!KINDS.has(createType)) {
    throw unsupported(
      storage,
      "createType",
      createType,
      `'${createType}' is not read`,
      `Unsupported image type '${createType}'`,
    );
  }
  if (extents.length > 0) return;
  throw new ZcowError("FORMAT_FIELD", `${storage.name}: VMDK descriptor: it names no extents`, {
    data: { path: storage.name, structure: "VMDK descriptor", field: "extents", value: 0 },
  });
}

/**
 * The disk that this one is a difference to: a VMDK as well, by its name beside this one. It must be as it was when the difference
 * was begun, which its content id tells: `FORMAT_FIELD`. Fails as `openBackingImage` does.
 */
async function openParent(
  storage: Storage,
  { parentContentId, parentName }: VmdkDescriptor,
  options: OpenDeviceOptions,
): Promise<BlockDevice | undefined> {
  if (parentContentId === NO_PARENT || parentName === undefined || options.backing === "none") return undefined;
  if (options.backing !== undefined) return options.backing;
  const { openBackingImage } = await import("../backing-image.js");
  const opening: { contentId?: number } = {};
  const driver = parentDriver((contentId) => {
    opening.contentId = contentId;
  });
  const formats: FormatLookup = { byName: () => driver, recognise: () => driver };
  const parent = await openBackingImage({ name: parentName, format: "vmdk", image: storage }, options, formats);
  if (opening.contentId === parentContentId) return parent;
  await parent.close();
  throw new ZcowError(
    "FORMAT_FIELD",
    `${storage.name}: VMDK: its parent '${parentName}' has content id ${opening.contentId?.toString(16)}, not ${parentContentId.toString(16)}: it was changed since, or is another disk`,
    {
      data: {
        path: storage.name,
        structure: "VMDK descriptor",
        field: "parentCID",
        value: opening.contentId ?? NO_PARENT,
        limit: parentContentId,
      },
      stockText: "Invalid argument",
    },
  );
}

/** Opens parents and tells `onContentId` what the nearest one says of its contents. */
function parentDriver(onContentId: (contentId: number) => void): FormatDriver {
  return {
    name: "vmdk",
    creatable: false,
    compresses: false,
    probe: () => true,
    open: async (storage, options): Promise<BlockDevice> => {
      const { disk, descriptor } = await openVmdk(storage, options);
      onContentId(descriptor?.contentId ?? NO_PARENT);
      return new (await import("../stored-disk.js")).StoredDiskDevice(disk);
    },
  };
}

async function readText(storage: Storage, at: number, length: number): Promise<string> {
  const bytes = new Uint8Array(length);
  await storage.read(at, bytes);
  const end = bytes.indexOf(0);
  return new TextDecoder("utf-8").decode(end < 0 ? bytes : bytes.subarray(0, end));
}

function unsupported(
  storage: Storage,
  field: string,
  value: string | number,
  problem: string,
  stockText?: string,
): ZcowError {
  return new ZcowError("FORMAT_VARIANT", `${storage.name}: VMDK, ${field}: ${problem}`, {
    data: { path: storage.name, structure: "VMDK", field, value },
    ...(stockText === undefined ? {} : { stockText }),
  });
}
