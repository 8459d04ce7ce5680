import { ZcowError } from "../../base/errors.js";
import { parseSize } from "../../base/size-text.js";
import type { BlockDevice } from "../../block/block-device.js";
import { NodeOptions } from "../../block/node-options.js";
import { type PassphraseSource, passphraseFor } from "../../block/passphrase.js";
import { borrowedStorage } from "../../storage/borrowed-storage.js";
import type { Storage } from "../../storage/storage.js";
import { type OpenImageOptions, openImage } from "../open-image.js";
import { type FormatName, formatDriver } from "../registry.js";
import { nodeName, optionsOfName } from "./node-name.js";
import { inWindow, takeWindow } from "./raw-window.js";
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
  /** What opens the image when it is encrypted. */
  readonly passphrase: PassphraseSource | undefined;
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
    passphrase: plan.passphrase,
    openDevice: async () => openImage(borrowedStorage(storage), await plan.deviceOptions()),
  };
}

/** An image whose bytes are open, for work on an image that nobody uses. */
export interface NodeAtRest {
  readonly storage: Storage;
  readonly format: FormatName | "probe";
  readonly passphrase: PassphraseSource | undefined;
  /** The name of the file, or the whole description where that says more. */
  readonly shownName: string;
  /** The driver of the place where the bytes are, when no format is on top of it. */
  readonly place: string | undefined;
  /** The description has files in place of those that the image names. */
  readonly replacesFiles: boolean;
}

/**
 * Opens the bytes of the image that `options` describe, and none of the files that it names. What stands in place of these is of no
 * consequence to who only reads the image file itself; with `access.writable` it is refused (`UNKNOWN_OPTION`).
 */
export async function openAtRest(options: NodeOptions, access: NodeAccess): Promise<NodeAtRest> {
  const { left } = withoutName(options);
  const own = [...left].filter(([name]) => access.writable || !OTHER_FILE.test(name));
  const plan = planNode(new NodeOptions(own), { ...access, openDisk: openNode }, "at rest");
  const storage = await plan.openStorage();
  try {
    const { format, passphrase } = await plan.deviceOptions();
    const place = plan.driver !== undefined && isStorageDriver(plan.driver) ? plan.driver : undefined;
    const replacesFiles = own.length < left.size;
    return { storage, format, passphrase, shownName: nodeName(left) ?? storage.name, place, replacesFiles };
  } catch (error) {
    await storage.close();
    throw error;
  }
}

/** Options about files that stand in place of those that an image names. */
const OTHER_FILE = /^(backing|data-file)(\.|$)/;

interface NodePlan {
  readonly driver: string | undefined;
  readonly passphrase: PassphraseSource | undefined;
  readonly openStorage: () => Promise<Storage>;
  /** Opens, too, what a description puts in the place of files that the image names. */
  readonly deviceOptions: () => Promise<OpenImageOptions>;
}

/** What to open for a description. Nothing is opened yet. Fails with `UNKNOWN_OPTION`, `INVALID_ARGUMENT`, `FORMAT_UNKNOWN`. */
function planNode(given: NodeOptions, outer: InnerAccess, use: "disk" | "at rest" = "disk"): NodePlan {
  const options = withoutName(given);
  const driver = options.take("driver");
  if (driver !== undefined && isStorageDriver(driver)) return planStorage(driver, options, outer);
  if (driver !== undefined) formatDriver(driver);
  const access = generalAccess(options, outer);
  refuseNodeReference(options, "file");
  const openFile = childOpener(options, "file", options.take("filename"));
  const open = openFile ?? refuseMissing(driver);
  const device = deviceOptions(driver, options, access);
  const others = use === "disk" ? takeOtherFiles(options, access) : async () => ({});
  const window = driver === "raw" ? takeWindow(options) : undefined;
  options.refuseLeft(driver ?? "qcow2", "format");
  const openStorage = async (): Promise<Storage> => {
    const storage = await open(access);
    return window === undefined ? storage : inWindow(storage, window);
  };
  return {
    driver,
    passphrase: device.passphrase,
    openStorage,
    deviceOptions: async () => ({ ...device, ...(await others()) }),
  };
}

/** What is to stand where the image names other files. */
function takeOtherFiles(options: NodeOptions, access: InnerAccess): () => Promise<Partial<OpenImageOptions>> {
  const backing = options.takeChild("backing");
  const reference = options.get("backing");
  if (reference !== "") refuseNodeReference(options, "backing", "Could not open backing file: ");
  options.take("backing");
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
function refuseNodeReference(options: NodeOptions, option: string, subject = ""): void {
  const name = options.get(option);
  if (name === undefined) return;
  const text = `Cannot find device='${name}' nor node-name='${name}'`;
  throw new ZcowError("FILE_REFERENCE", text, {
    data: { option, value: name },
    stockText: `${subject}${text}`,
  });
}

/** A description may be used once, and the disk opened several times. */
function openBehind(backing: NodeOptions, access: InnerAccess): Promise<BlockDevice> {
  const { snapshot: _ofTheTop, ...others } = access;
  return openNode(new NodeOptions(backing.left), { ...others, writable: false });
}

/** `filename=json:{...}` stands for what it describes; options beside it count more. Other names are places for bytes. */
function withoutName(options: NodeOptions): NodeOptions {
  const name = options.get("filename");
  if (name?.startsWith("json:") !== true) return options;
  options.take("filename");
  return new NodeOptions([...optionsOfName(name).left, ...options.left]);
}

/** The bytes of the place itself are the disk. */
function planStorage(driver: string, options: NodeOptions, access: InnerAccess): NodePlan {
  const whole = new NodeOptions([["driver", driver], ...options.left]);
  const isReadOnly = options.get("read-only") === "on" || !access.writable;
  return {
    driver,
    passphrase: undefined,
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
  const { writable, implicitFiles, onWarning, snapshot } = access;
  const passphrase = takePassphrase(options, access);
  return {
    format: driver === undefined ? "probe" : (driver as FormatName),
    readOnly: !writable,
    ...(implicitFiles === undefined ? {} : { implicitFiles }),
    ...(onWarning === undefined ? {} : { onWarning }),
    ...(snapshot === undefined ? {} : { snapshot }),
    passphrase,
    ...(driver === "raw" ? {} : takeQcow2Options(options)),
    file: { forceShare: access.forceShare ?? false, direct: access.direct ?? false },
  };
}

function takePassphrase(options: NodeOptions, { secretOf }: InnerAccess): PassphraseSource | undefined {
  const encryption = options.take("encrypt.format");
  const id = options.take("encrypt.key-secret");
  return passphraseFor(encryption, id === undefined ? undefined : secretOf?.(id));
}

function takeQcow2Options(options: NodeOptions): Partial<OpenImageOptions> {
  for (const name of HARMLESS_OF_QCOW2) options.take(name);
  const cache = options.takeNumber("l2-cache-size", parseSize) ?? options.takeNumber("cache-size", parseSize);
  options.take("cache-size");
  const keepZoneSpace = options.takeSwitch("keep-zone-space");
  return {
    ...(cache === undefined ? {} : { cacheBytes: Math.max(LEAST_CACHE, cache) }),
    ...(keepZoneSpace === undefined ? {} : { keepZoneSpace }),
  };
}
