import { isZcowError, ZcowError } from "../base/errors.js";
import type { BlockDevice } from "../block/block-device.js";
import type { OpenDeviceOptions } from "../block/format-driver.js";
import { parseReference, resolveReference } from "../block/image-reference.js";
import { isZonedDevice } from "../block/zoned-device.js";
import { fileIdentity } from "../storage/file-identity.js";
import { openStorage } from "../storage/open-storage.js";
import type { Storage } from "../storage/storage.js";
import { openReferencedFile } from "./backing-image.js";
import type { CreateQcow2Options } from "./qcow2/create-options.js";
import type { InheritedZones } from "./qcow2/create-zones.js";
import { FORMATS, formatDriver, probeFormat } from "./registry.js";

/** What a new overlay takes over from its backing image. */
export interface BackingFacts {
  /** Bytes. */
  readonly size: number;
  /** Present when the backing image is zoned. */
  readonly zones: InheritedZones | undefined;
}

/**
 * Looks at the backing image of a new image at `target`. `open`: how it is opened; what it names itself is opened only when
 * `implicitFiles` is there. Undefined when the options name no backing file.
 *
 * Fails with `INVALID_ARGUMENT` for an image that would be its own backing file and for a format that is missing,
 * and as opening an image does.
 */
export async function readBackingFacts(
  target: string,
  options: CreateQcow2Options,
  open: OpenDeviceOptions,
): Promise<BackingFacts | undefined> {
  const { backingFile: name, backingFormat: format } = options;
  if (name === undefined || name === "") return undefined;
  const resolved = resolveReference(name, target);
  if (name === target || fileIdentity(parseReference(resolved, format).path) === fileIdentity(target)) {
    throw new ZcowError("INVALID_ARGUMENT", `${target} cannot be its own backing file`, {
      data: { option: "backing_file", value: name },
      stockText: "Error: Trying to create an image with the same filename as the backing file",
    });
  }
  const device = await openWhoeverWrites(resolved, format, open);
  try {
    if (format === undefined) throw backingFormatMissing(name, device.format);
    return { size: device.size, zones: zonesOf(device) };
  } finally {
    await device.close();
  }
}

/** The refusal of a backing file without a format; `found`: what it seems to be. */
export function backingFormatMissing(name: string, found?: string): ZcowError {
  const hint = found === undefined ? "" : `\nDetected format of ${found}.`;
  return new ZcowError(
    "FORMAT_UNKNOWN",
    `Option backing_fmt is missing: the format of backing file '${name}' is not guessed${found === undefined ? "" : `; it looks like ${found}`}`,
    {
      data: { option: "backing_fmt", value: name },
      stockText: `Backing file specified without backing format${hint}`,
    },
  );
}

/**
 * An overlay may be made while somebody writes to its backing image: the size stays. Of a zoned one the write pointers are taken over, and
 * those must not move.
 */
async function openWhoeverWrites(
  name: string,
  format: string | undefined,
  open: OpenDeviceOptions,
): Promise<BlockDevice> {
  try {
    return await openForFacts(name, format, open);
  } catch (error) {
    if (!isZcowError(error, "LOCKED") || open.openFile !== undefined) throw error;
    const openFile = (path: string): Promise<Storage> => openStorage(path, { forceShare: true });
    const device = await openForFacts(name, format, { ...open, openFile });
    if (device.limits.zoned === undefined) return device;
    await device.close();
    throw error;
  }
}

async function openForFacts(name: string, format: string | undefined, open: OpenDeviceOptions): Promise<BlockDevice> {
  try {
    const reference = parseReference(name, format);
    const driver = reference.format === undefined ? undefined : formatDriver(reference.format);
    const storage = await openReferencedFile(reference, false, open);
    try {
      const found = driver ?? (await probeFormat(storage));
      const chain = open.implicitFiles === undefined ? { backing: "none" as const } : {};
      return await found.open(storage, { formats: FORMATS, ...chain, ...open, readOnly: true });
    } catch (error) {
      await storage.close();
      throw error;
    }
  } catch (error) {
    if (!(error instanceof ZcowError)) throw error;
    throw new ZcowError(error.code, error.message, {
      data: error.data,
      cause: error,
      stockText: `${error.stockText ?? error.message}\nCould not open backing image.`,
    });
  }
}

function zonesOf(device: BlockDevice): InheritedZones | undefined {
  const limits = device.limits.zoned;
  if (limits === undefined || !isZonedDevice(device)) return undefined;
  const pointers = Float64Array.from(device.report(), ({ writePointer }) => writePointer);
  return { limits, diskSize: device.size, pointers };
}
