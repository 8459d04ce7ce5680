import { viewOf } from "../../../base/bytes.js";
import { ZcowError } from "../../../base/errors.js";
import { isPromise } from "../../../base/maybe-promise.js";
import type { Storage } from "../../../storage/storage.js";
import type { Qcow2Header } from "../header.js";
import {
  decodeWritePointer,
  isWritePointerSound,
  writePointerFault,
  writePointerTableBytes,
} from "../write-pointer-table.js";
import type { ZonedExtension } from "../zoned-extension.js";

/** Most bad entries that an error lists. */
const LISTED_FAULTS = 16;

/**
 * All write pointers of a table, bytes on the disk. Throws the `ZONED_*` code of the first bad entry and lists the others;
 * `name` is how the error calls the image.
 */
export function decodePointers(table: Uint8Array, zoned: ZonedExtension, diskSize: number, name: string): Float64Array {
  const view = viewOf(table);
  const pointers = new Float64Array(zoned.zoneCount);
  const bad: number[] = [];
  for (let zone = 0; zone < zoned.zoneCount; zone += 1) {
    if (isWritePointerSound(view, zone, zoned, diskSize)) {
      pointers[zone] = decodeWritePointer(view, zone, zoned, diskSize);
    } else {
      bad.push(zone);
    }
  }
  if (bad.length === 0) return pointers;
  const faults = bad.slice(0, LISTED_FAULTS).map((zone) => writePointerFault(view, zone, zoned, diskSize));
  const [first] = faults as [ZcowError, ...ZcowError[]];
  throw new ZcowError(first.code, `${first.message} (${bad.length} bad of ${zoned.zoneCount}; check can repair them)`, {
    data: { ...first.data, path: name, reasons: faults.map((fault) => fault.message) },
  });
}

/**
 * Throws as `decodePointers` when the table of a zoned image has bad entries. For those about to repair refcounts
 * unasked: a repair would also make up pointers for bad entries, and that is for the owner of the image to decide.
 */
export async function requireSoundPointers(storage: Storage, { zoned, size }: Qcow2Header): Promise<void> {
  if (zoned?.tableOffset === undefined) return;
  const table = new Uint8Array(writePointerTableBytes(zoned.zoneCount));
  const wait = storage.read(zoned.tableOffset, table);
  if (isPromise(wait)) await wait;
  decodePointers(table, zoned, size, storage.name);
}
