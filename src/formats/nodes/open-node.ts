import { ZcowError } from "../../base/errors.js";
import { parseSize } from "../../base/size-text.js";
import type { BlockDevice } from "../../block/block-device.js";
import { NodeOptions } from "../../block/node-options.js";
import type { PassphraseSource } from "../../block/passphrase.js";
import { borrowedStorage } from "../../storage/borrowed-storage.js";
import { offsetStorage } from "../../storage/offset-storage.js";
import type { Storage } from "../../storage/storage.js";
import { type OpenImageOptions, openImage } from "../open-image.js";
import { type FormatName, formatDriver } from "../registry.js";
import { optionsOfName } from "./node-name.js";
import {
  childOpener,
  generalAccess,
  type InnerAccess,
  isStorageDriver,
  missing,
  type NodeAccess,
  openStorageNode,
} from "./storage-node.js";

/** Options of qcow2 in the stock tools about their own caches and habits; they change nothing here. */
export const HARMLESS_OF_QCOW2: readonly string[] = [
  "lazy-refcounts",
  "pass-discard-request",
  "pass-discard-snapshot",
  "pass-discard-other",
  "discard-no-unref",
  "overlap-check",
  "overlap-check.template",
  "overlap-check.main-header",
  "overlap-check.active-l1",
  "overlap-check.active-l2",
  "overlap-check.refcount-table",
  "overlap-check.refcount-block",
  "overlap-check.snapshot-table",
  "overlap-check.inactive-l1",
  "overlap-check.inactive-l2",
  "overlap-check.bitmap-directory",
  "l2-cache-entry-size",
  "refcount-cache-size",
  "cache-clean-interval",
];
/** Least memory for cached tables, whatever a description says. */
const LEAST_CACHE = 4 * 65_536;

/** An image whose parts are open, and how the disk in it is opened; again, too, when the image has changed. */
export interface OpenedNode {
  readonly storage: Storage;
  /** The driver at the top: a format, or what holds the bytes when there is no format. */
  readonly driver: string | undefined;
  /** Opens the disk; what `storage` is stays open when it is closed. */
  readonly openDevice: () => Promise<BlockDevice>;
}

/** Opens the disk that `options` describe, with all that it stands on. */
export async function openNode(options: NodeOptions, access: NodeAccess): Promise<BlockDevice> {
  const plan = planNode(options, { ...access, openDisk: openNode });
  const storage = await plan.openStorage();
  try {
    return await openImage(storage, await plan.deviceOptions());
  } catch (error) {
    await storage.close();
    throw error;
  }
}

/** Opens the parts of the disk that `options` describe. */
export async function openParts(options: NodeOptions, access: NodeAccess): Promise<OpenedNode> {
  const plan = planNode(options, { ...access, openDisk: openNode });
  const storage = await plan.openStorage();
  return {
    storage,
    driver: plan.driver,
    openDevice: async () => openImage(borrowedStorage(storage), await plan.deviceOptions()),
  };
}

interface NodePlan {
  readonly driver: string | undefined;
  readonly openStorage: () => Promise<Storage>;
  /** Opens, too, what a description puts in the place of files that the image names. */
  readonly deviceOptions: () => Promise<OpenImageOptions>;
}

/** What to open for a description. Nothing is opened yet. Fails with `UNKNOWN_OPTION`, `INVALID_ARGUMENT`, `FORMAT_UNKNOWN`. */
function planNode(given: NodeOptions, outer: InnerAccess): NodePlan {
  const options = withoutName(given);
  const driver = options.take("driver");
  if (driver !== undefined && isStorageDriver(driver)) return planStorage(driver, options, outer);
  if (driver !== undefined) formatDriver(driver);
  const access = generalAccess(options, outer);
  const openFile = childOpener(options, "file", options.take("filename"));
  const open = openFile ?? refuseMissing(driver);
  const device = deviceOptions(driver, options, access);
  const others = takeOtherFiles(options, access);
  const window = driver === "raw" ? takeWindow(options) : undefined;
  options.refuseLeft(driver ?? "qcow2", "format");
  const openStorage = async (): Promise<Storage> => {
    const storage = await open(access);
    return window === undefined ? storage : inWindow(storage, window);
  };
  return { driver, openStorage, deviceOptions: async () => ({ ...device, ...(await others()) }) };
}

/** What is to stand where the image names other files. */
function takeOtherFiles(options: NodeOptions, access: InnerAccess): () => Promise<Partial<OpenImageOptions>> {
  const backing = options.takeChild("backing");
  const reference = options.take("backing");
  if (reference !== undefined && reference !== "") throw noSuchNode(reference);
  const openData = childOpener(options, "data-file");
  return async () => {
    const dataFile = await openData?.(access);
    const behind = backing === undefined ? undefined : await openBehind(backing, access);
    return {
      ...(dataFile === undefined ? {} : { dataFile }),
      ...(behind === undefined ? (reference === "" ? { backing: "none" } : {}) : { backing: behind }),
    };
  };
}

/** Nodes have no names here that others could refer to. */
function noSuchNode(name: string): ZcowError {
  const text = `Cannot find device='${name}' nor node-name='${name}'`;
  return new ZcowError("FILE_REFERENCE", text, {
    data: { option: "backing", value: name },
    stockText: `Could not open backing file: ${text}`,
  });
}

/** A description may be used once, and the disk opened several times. */
function openBehind(backing: NodeOptions, access: InnerAccess): Promise<BlockDevice> {
  return openNode(new NodeOptions(backing.left), { ...access, writable: false });
}

/** `filename=json:{...}` stands for what it describes, where there is no driver beside it. Other names are places for bytes. */
function withoutName(options: NodeOptions): NodeOptions {
  const name = options.get("filename");
  if (name === undefined || options.get("driver") !== undefined || !name.startsWith("json:")) return options;
  options.take("filename");
  return new NodeOptions([...optionsOfName(name).left, ...options.left]);
}

/** The bytes of the place itself are the disk. */
function planStorage(driver: string, options: NodeOptions, access: InnerAccess): NodePlan {
  const whole = new NodeOptions([["driver", driver], ...options.left]);
  const isReadOnly = options.get("read-only") === "on" || !access.writable;
  return {
    driver,
    openStorage: () => openStorageNode(whole, access),
    deviceOptions: async () => ({ format: "raw", readOnly: isReadOnly }),
  };
}

function refuseMissing(driver: string | undefined): never {
  if (driver === undefined) {
    throw new ZcowError("INVALID_ARGUMENT", "a description of a disk needs a driver or a file", {
      data: { option: "driver" },
      stockText: "Must specify either driver or file",
    });
  }
  throw missing(driver, "file", 'A block device must be specified for "file"');
}

function deviceOptions(driver: string | undefined, options: NodeOptions, access: InnerAccess): OpenImageOptions {
  const { writable, implicitFiles, onWarning } = access;
  const passphrase = takePassphrase(options, access);
  return {
    format: driver === undefined ? "probe" : (driver as FormatName),
    readOnly: !writable,
    ...(implicitFiles === undefined ? {} : { implicitFiles }),
    ...(onWarning === undefined ? {} : { onWarning }),
    passphrase,
    ...(driver === "raw" ? {} : takeQcow2Options(options)),
    file: { forceShare: access.forceShare ?? false, direct: access.direct ?? false },
  };
}

function takePassphrase(options: NodeOptions, { secretOf }: InnerAccess): PassphraseSource | undefined {
  options.take("encrypt.format");
  const id = options.take("encrypt.key-secret");
  return id === undefined ? undefined : secretOf?.(id);
}

function takeQcow2Options(options: NodeOptions): Partial<OpenImageOptions> {
  for (const name of HARMLESS_OF_QCOW2) options.take(name);
  const cache = options.takeNumber("l2-cache-size", parseSize) ?? options.takeNumber("cache-size", parseSize);
  options.take("cache-size");
  return cache === undefined ? {} : { cacheBytes: Math.max(LEAST_CACHE, cache) };
}

interface Window {
  readonly offset: number;
  readonly size: number | undefined;
}

function takeWindow(options: NodeOptions): Window | undefined {
  const offset = options.takeNumber("offset", parseSize);
  const size = options.takeNumber("size", parseSize);
  return offset === undefined && size === undefined ? undefined : { offset: offset ?? 0, size };
}

async function inWindow(storage: Storage, { offset, size }: Window): Promise<Storage> {
  const end = storage.size();
  if (offset <= end && offset + (size ?? 0) <= end) return offsetStorage(storage, offset, size);
  await storage.close();
  const what = offset > end ? `offset of ${offset}` : `offset of ${offset} and size of ${size}`;
  throw new ZcowError("INVALID_ARGUMENT", `${storage.name} has ${end} bytes: it is too small for the ${what}`, {
    data: { option: "offset", value: offset, limit: end },
    stockText:
      offset > end
        ? `Offset (${offset}) cannot be greater than size of the containing file (${end})`
        : `The sum of offset (${offset}) and size (${size}) has to be smaller or equal to the  actual size of the containing file (${end})`,
  });
}
