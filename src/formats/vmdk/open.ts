import { dirname, isAbsolute, join } from "node:path";
import { viewOf } from "../../base/bytes.js";
import { ZcowError } from "../../base/errors.js";
import { MiB } from "../../base/units.js";
import type { OpenDeviceOptions } from "../../block/format-driver.js";
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
  if (magic === SPARSE_MAGIC) return openSparse(storage);
  if (magic === COWD_MAGIC) throw unsupported(storage, "magic", "COWD", "the sparse extents of ESX 2 are not read");
  return openDescriptor(storage, options);
}

async function openSparse(storage: Storage): Promise<OpenedVmdk> {
  const header = await readSparseHeader(storage);
  const descriptor = header.descriptor.length === 0 ? undefined : await embedded(storage, header.descriptor);
  if (descriptor !== undefined) refuseParent(storage, descriptor);
  const extents: VmdkExtent[] = [
    { start: 0, length: header.capacity, kind: "sparse", extent: new SparseExtent(storage, header) },
  ];
  return { disk: new VmdkDisk(storage.name, extents, [storage]), descriptor, extents };
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
  refuseParent(storage, descriptor);
  const opened: Storage[] = [];
  try {
    const extents: VmdkExtent[] = [];
    let start = 0;
    for (const line of descriptor.extents) {
      extents.push(await openExtent(storage, line, start, options, opened));
      start += line.length;
    }
    return { disk: new VmdkDisk(storage.name, extents, [storage, ...opened]), descriptor, extents };
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
  return openFileStorage(isAbsolute(name) ? name : join(dirname(storage.name), name), { writable: false });
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

function refuseParent(storage: Storage, descriptor: VmdkDescriptor): void {
  const { parentContentId, parentName } = descriptor;
  if (parentContentId === NO_PARENT || parentName === undefined) return;
  throw unsupported(storage, "parentCID", parentContentId, `the disk is a difference to '${parentName}'`);
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
