import { parseSize } from "../base/size-text.js";
import type { PassphraseSource } from "../block/passphrase.js";
import type { ZonedDevice } from "../block/zoned-device.js";
import { requireZoned } from "../jobs/zone-report.js";
import { WRITE_BACK } from "./cache-mode.js";
import type { CommandContext } from "./context.js";
import { withSubject } from "./failure.js";
import { openForCommand } from "./open.js";
import { UsageError } from "./usage-error.js";

/** Which image the zone commands open, and how. */
export interface ZoneImage {
  readonly path: string;
  readonly format: string | undefined;
  readonly forceShare: boolean;
  readonly readOnly: boolean;
  /** Opens an encrypted image. */
  readonly passphrase?: PassphraseSource | undefined;
}

/** Opens a zoned image, runs `work` on it and closes it, whatever happens. */
export async function withZonedImage<T>(
  image: ZoneImage,
  context: CommandContext,
  work: (device: ZonedDevice) => Promise<T>,
): Promise<T> {
  const device = await openForCommand({ ...image, cache: WRITE_BACK }, context).catch((error) => {
    throw withSubject(`Could not open '${image.path}'`, error);
  });
  let result: T;
  try {
    result = await work(requireZoned(device));
  } catch (error) {
    // The first failure is the one to tell about.
    await device.close().catch(() => undefined);
    throw error;
  }
  await device.close();
  return result;
}

/** A number of bytes from the command line. */
export function bytesArgument(name: string, text: string): number {
  const value = parseSize(text);
  if (value !== undefined && Number.isSafeInteger(value)) return value;
  throw new UsageError(`${name} '${text}' is not a number of bytes (with an optional suffix k, M, G, T)`, false);
}

/** A count from the command line. */
export function countArgument(name: string, text: string): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(value)) return value;
  throw new UsageError(`${name} '${text}' is not a number`, false);
}
