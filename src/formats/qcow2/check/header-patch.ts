import { viewOf, writeU64 } from "../../../base/bytes.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { SECTOR_SIZE } from "../../../base/units.js";
import type { Storage } from "../../../storage/storage.js";
import { AUTOCLEAR, INCOMPATIBLE } from "../features.js";
import type { Qcow2Header } from "../header.js";
import { FIELD } from "../header-fields.js";

/**
 * Changes of single header fields by a repair. All of them lie in the first sector, which is rewritten whole, so
 * a crash leaves the old or the new header; each change is flushed before and after.
 */

/** Autoclear features that a repair keeps valid: it never changes what the guest sees. */
const KEPT_AUTOCLEAR = AUTOCLEAR.bitmaps | AUTOCLEAR.rawExternalData;

async function patchSector(storage: Storage, change: (view: DataView) => void): Promise<void> {
  const flushed = storage.flush();
  if (isPromise(flushed)) await flushed;
  const sector = new Uint8Array(Math.max(SECTOR_SIZE, storage.capabilities.alignment));
  const read = storage.read(0, sector);
  if (isPromise(read)) await read;
  change(viewOf(sector));
  const written = storage.write(0, sector);
  if (isPromise(written)) await written;
  const done = storage.flush();
  if (isPromise(done)) await done;
}

/** Makes another refcount table the one in use: the moment at which a rebuild takes effect. */
export async function switchRefcountTable(
  storage: Storage,
  header: Qcow2Header,
  offset: number,
  clusters: number,
): Promise<Qcow2Header> {
  await patchSector(storage, (view) => {
    writeU64(view, FIELD.refcountTableOffset, offset);
    view.setUint32(FIELD.refcountTableClusters, clusters);
  });
  return { ...header, refcountTableOffset: offset, refcountTableClusters: clusters };
}

/** Clears autoclear bits that stand for features this program does not keep up. Must come before any other change. */
export async function clearUnknownAutoclear(storage: Storage, header: Qcow2Header): Promise<Qcow2Header> {
  const autoclear = header.features.autoclear & KEPT_AUTOCLEAR;
  if (autoclear === header.features.autoclear) return header;
  await patchSector(storage, (view) => view.setBigUint64(FIELD.autoclear, autoclear));
  return { ...header, features: { ...header.features, autoclear } };
}

/** Clears the dirty and corrupt bits of an image that was found sound. */
export async function markSound(storage: Storage, header: Qcow2Header): Promise<Qcow2Header> {
  const incompatible = header.features.incompatible & ~(INCOMPATIBLE.dirty | INCOMPATIBLE.corrupt);
  if (incompatible === header.features.incompatible) return header;
  await patchSector(storage, (view) => view.setBigUint64(FIELD.incompatible, incompatible));
  return { ...header, features: { ...header.features, incompatible } };
}
