import { ZcowError } from "../base/errors.js";
import { type FormatDriver, type FormatLookup, PROBE_LENGTH } from "../block/format-driver.js";
import type { Storage } from "../storage/storage.js";
import { FOREIGN_DRIVERS } from "./foreign-drivers.js";
import { qcow2Driver } from "./qcow2/driver.js";
import { rawDriver } from "./raw/driver.js";

/** Every format, in the order in which probing asks them. */
const DRIVERS: readonly FormatDriver[] = [qcow2Driver, ...FOREIGN_DRIVERS, rawDriver];

/** Names of the formats that can be opened; `qcow2` and `raw` can be created, too. */
export type FormatName = "qcow2" | "raw" | "vmdk" | "vhdx" | "vpc" | "vdi";

/** The driver called `name`; fails with `FORMAT_UNKNOWN`. */
export function formatDriver(name: string): FormatDriver {
  const driver = DRIVERS.find((candidate) => candidate.name === name);
  if (driver !== undefined) return driver;
  const known = DRIVERS.map((candidate) => candidate.name).join(", ");
  throw new ZcowError("FORMAT_UNKNOWN", `there is no format '${name}'; known formats: ${known}`, {
    data: { option: "format", value: name },
    stockText: `Unknown driver '${name}'`,
  });
}

/** Every format, for backing images. */
export const FORMATS: FormatLookup = { byName: formatDriver, recognise: recogniseFormat };

/**
 * The format whose mark the storage carries, raw when there is none. Anybody who can write to a raw disk can
 * put any mark there: ask only where the answer cannot do harm.
 */
export async function probeFormat(storage: Storage): Promise<FormatDriver> {
  const head = new Uint8Array(Math.min(PROBE_LENGTH, storage.size()));
  await storage.read(0, head);
  return recogniseFormat(head);
}

/** The format whose mark is in `head`, the start of an image; raw when there is none. */
export function recogniseFormat(head: Uint8Array): FormatDriver {
  return DRIVERS.find((driver) => driver.probe(head)) ?? rawDriver;
}
