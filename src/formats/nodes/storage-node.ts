import { type WarningSink, ZcowError } from "../../base/errors.js";
import { parseSize } from "../../base/size-text.js";
import { GiB } from "../../base/units.js";
import type { BlockDevice } from "../../block/block-device.js";
import { NodeOptions } from "../../block/node-options.js";
import type { ImplicitFilePolicy } from "../../block/open-policy.js";
import type { PassphraseSource } from "../../block/passphrase.js";
import type { BreakpointWatcher } from "../../storage/debug/breakpoints.js";
import type { FileStorageOptions } from "../../storage/file-storage.js";
import { nbdUri } from "../../storage/nbd/nbd-uri.js";
import { nullStorage } from "../../storage/null-storage.js";
import { isRemoteName, openStorage } from "../../storage/open-storage.js";
import type { Storage } from "../../storage/storage.js";
import { verifyStorage } from "../../storage/verify-storage.js";
import { debugNode } from "./debug-node.js";
import { deviceStorage } from "./device-storage.js";
import { isNodeName } from "./is-node-name.js";
import { optionsOfName } from "./node-name.js";
import { inWindow, takeWindow } from "./raw-window.js";

/** How what is described is opened; options of a description go before. */
export interface NodeAccess {
  readonly writable: boolean;
  /** Ignore the locks of other processes; not with `writable`. */
  readonly forceShare?: boolean;
  /** Bypass the page cache of the host. */
  readonly direct?: boolean;
  /** Files that images name; default `"deny"`. */
  readonly implicitFiles?: ImplicitFilePolicy;
  readonly onWarning?: WarningSink;
  /** Told of calls that wait at breakpoints of a `blkdebug`. */
  readonly onBreakpoint?: BreakpointWatcher;
  /** A short look that keeps nobody out; see `LockOptions.use`. */
  readonly lookOnly?: boolean;
  /** An internal snapshot to read in place of the disk. */
  readonly snapshot?: string;
  /** What the secret of an id opens, for `encrypt.key-secret`. */
  readonly secretOf?: ((id: string) => PassphraseSource) | undefined;
}

/** {@link NodeAccess} with how disks in some format are opened, for places of bytes that stand on one. */
export interface InnerAccess extends NodeAccess {
  readonly openDisk: (options: NodeOptions, access: InnerAccess) => Promise<BlockDevice>;
}

/** Options that every node takes and that change nothing here. */
const HARMLESS = ["node-name", "auto-read-only", "cache.no-flush", "discard", "detect-zeroes"];
/** What `file` takes besides, in the stock tools for the sake of their own ways to reach the disk. */
const HARMLESS_OF_FILES = ["aio", "aio-max-batch", "drop-cache", "x-check-cache-dropped", "pr-manager"];

const DEFAULT_NULL_SIZE = GiB;
const NANOSECONDS = 1e6;
/** What a null storage that does not read as zeros holds: anything but zeros. */
const NULL_FILL = 0xab;

/** True when `driver` is a place for bytes, not a format of images. */
export function isStorageDriver(driver: string): boolean {
  return Object.hasOwn(DRIVERS, driver);
}

type Opener = (options: NodeOptions, access: InnerAccess, driver: string) => Promise<Storage>;

const DRIVERS: Readonly<Record<string, Opener>> = {
  file: openFile,
  host_device: openFile,
  nbd: openRemote,
  "null-co": openNull,
  "null-aio": openNull,
  blkdebug: openDebug,
  blkverify: openVerify,
};

/** Takes from `options` what every node has. */
export function generalAccess(options: NodeOptions, access: InnerAccess): InnerAccess {
  for (const name of HARMLESS) options.take(name);
  const readOnly = options.takeSwitch("read-only") ?? false;
  const forceShare = options.takeSwitch("force-share") ?? access.forceShare ?? false;
  const direct = options.takeSwitch("cache.direct") ?? access.direct ?? false;
  return { ...access, writable: access.writable && !readOnly, forceShare, direct };
}

/** Opens the place for bytes that `options` describe; a disk in some format counts as one, too. */
export async function openStorageNode(options: NodeOptions, given: InnerAccess): Promise<Storage> {
  const driver = options.get("driver") ?? "file";
  const open = Object.hasOwn(DRIVERS, driver) ? DRIVERS[driver] : undefined;
  if (open === undefined && driver !== "raw") return deviceStorage(await given.openDisk(options, given));
  options.take("driver");
  if (open === undefined) return openRaw(options, generalAccess(options, given));
  return open(options, generalAccess(options, given), driver);
}

/** Opens what a name stands for that a user gave: a file, an export of a server, or more. */
export async function openNamedStorage(name: string, access: InnerAccess): Promise<Storage> {
  if (isNodeName(name)) return openStorageNode(optionsOfName(name), access);
  const { writable, forceShare = false, direct = false, onWarning } = access;
  const path = name.startsWith("file:") ? name.slice("file:".length) : name;
  const warning = onWarning === undefined ? {} : { onWarning };
  return openStorage(path, { writable, forceShare, direct, ...warning, ...lockOf(access) });
}

/** A raw disk is where its bytes are: what stands on it can grow with its file, and shrink. */
async function openRaw(options: NodeOptions, access: InnerAccess): Promise<Storage> {
  const window = takeWindow(options);
  const open = childOpener(options, "file");
  options.refuseLeft("raw", "format");
  if (open === undefined) throw missing("raw", "file", 'A block device must be specified for "file"');
  const storage = await open(access);
  return window === undefined ? storage : inWindow(storage, window);
}

async function openFile(options: NodeOptions, access: InnerAccess, driver: string): Promise<Storage> {
  const name = options.take("filename");
  const locking = options.take("locking");
  for (const harmless of HARMLESS_OF_FILES) options.take(harmless);
  options.refuseLeft(driver, "protocol");
  if (name === undefined) throw missing(driver, "filename", "The 'file' block driver requires a file name");
  if (isNodeName(name) || isRemoteName(name)) return openNamedStorage(name, access);
  const { writable, forceShare = false, direct = false, onWarning } = access;
  const warning = onWarning === undefined ? {} : { onWarning };
  return openStorage(name, {
    writable,
    forceShare,
    direct,
    ...warning,
    ...(locking === "off" ? { lock: false } : lockOf(access)),
  });
}

function lockOf({ lookOnly = false }: InnerAccess): Pick<FileStorageOptions, "lock"> {
  return lookOnly ? { lock: { use: "inspect" } } : {};
}

/** `host`, `port` and `export`, `path` and `export`, or the same behind `server.`. */
async function openRemote(options: NodeOptions, access: InnerAccess, driver: string): Promise<Storage> {
  options.take("server.type");
  const take = (name: string): string | undefined => options.take(name) ?? options.take(`server.${name}`);
  const [uri, host, port, path] = [options.take("filename"), take("host"), take("port"), take("path")];
  const address = uri ?? nbdUri({ host, port, path, exportName: options.take("export") });
  options.refuseLeft(driver, "protocol");
  if (address === undefined) throw missing(driver, "host", "NBD server address missing");
  return openNamedStorage(address, access);
}

async function openNull(options: NodeOptions, { writable }: InnerAccess, driver: string): Promise<Storage> {
  const name = options.take("filename");
  if (name !== undefined) optionsOfName(name);
  const size = options.takeNumber("size", parseSize) ?? DEFAULT_NULL_SIZE;
  const latency = options.takeNumber("latency-ns", parseSize) ?? 0;
  const readZeroes = options.takeSwitch("read-zeroes") ?? false;
  options.refuseLeft(driver, "protocol");
  return nullStorage(size, {
    name: `${driver}://`,
    writable,
    resizable: false,
    fill: readZeroes ? 0 : NULL_FILL,
    latency: latency / NANOSECONDS,
  });
}

async function openDebug(options: NodeOptions, access: InnerAccess, driver: string): Promise<Storage> {
  const name = options.take("x-image");
  const wrap = debugNode(options, access.onBreakpoint);
  const open = childOpener(options, "image", name);
  options.refuseLeft(driver, "protocol");
  if (open === undefined) throw missing(driver, "image", 'A block device must be specified for "image"');
  return wrap(await open(access));
}

async function openVerify(options: NodeOptions, access: InnerAccess, driver: string): Promise<Storage> {
  const [rawName, testName] = [
    options.take("x-raw") ?? options.take("raw"),
    options.take("x-image") ?? options.get("test"),
  ];
  const openRaw = childOpener(options, "raw", rawName);
  const test = options.takeChild("test");
  options.take("test");
  options.refuseLeft(driver, "protocol");
  if (openRaw === undefined) throw missing(driver, "raw", 'A block device must be specified for "raw"');
  const described = test ?? (testName === undefined ? undefined : new NodeOptions([["file.filename", testName]]));
  if (described === undefined) throw missing(driver, "test", 'A block device must be specified for "test"');
  const reference = await openRaw(access);
  try {
    return verifyStorage(deviceStorage(await access.openDisk(described, access)), reference);
  } catch (error) {
    await reference.close();
    throw error;
  }
}

type ChildOpener = (access: InnerAccess) => Promise<Storage>;

/** Takes the options of the child `name`: described, or given by the name of its file. */
export function childOpener(options: NodeOptions, name: string, otherName?: string): ChildOpener | undefined {
  const child = options.takeChild(name);
  const file = options.take(name) ?? otherName;
  if (child !== undefined) return (access) => openStorageNode(child, access);
  return file === undefined ? undefined : (access) => openNamedStorage(file, access);
}

export function missing(driver: string, option: string, stockText: string): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", `the driver '${driver}' needs the option '${option}'`, {
    data: { option },
    stockText,
  });
}
