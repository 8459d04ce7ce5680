import { viewOf, writeU64 } from "../../../base/bytes.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { SECTOR_SIZE } from "../../../base/units.js";
import type { Storage } from "../../../storage/storage.js";
import { EXTENSION, extensionRecords } from "../extensions.js";
import { AUTOCLEAR, INCOMPATIBLE } from "../features.js";
import type { BitmapDirectory, Qcow2Header, UnresolvedHeader } from "../header.js";
import { encodeBitmapsExtension } from "../header-bitmaps.js";
import { FIELD } from "../header-fields.js";
import { readUnresolvedHeader } from "../header-read.js";

/**
 * Changes of single header fields by a repair. All of them lie in the first sector, which is rewritten whole, so
 * a crash leaves the old or the new header; each change is flushed before and after.
 */

/** Autoclear features that a repair keeps valid: it never changes what the guest sees. */
const KEPT_AUTOCLEAR = AUTOCLEAR.bitmaps | AUTOCLEAR.rawExternalData;

async function patchSector(storage: Storage, change: (view: DataView) => void): Promise<void> {
  await flush(storage);
  const sector = new Uint8Array(Math.max(SECTOR_SIZE, storage.capabilities.alignment));
  const read = storage.read(0, sector);
  if (isPromise(read)) await read;
  change(viewOf(sector));
  const written = storage.write(0, sector);
  if (isPromise(written)) await written;
  await flush(storage);
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

/** Sets the corrupt bit: from here on the image can be read and repaired, not written. Version 2 has no such bit. */
export async function markCorrupt(storage: Storage, header: Qcow2Header): Promise<Qcow2Header> {
  const incompatible = header.features.incompatible | INCOMPATIBLE.corrupt;
  if (header.version === 2 || incompatible === header.features.incompatible) return header;
  await patchSector(storage, (view) => view.setBigUint64(FIELD.incompatible, incompatible));
  return { ...header, features: { ...header.features, incompatible } };
}

/** Takes the refcount table away, for one to be made anew. */
export async function dropRefcountTable(storage: Storage): Promise<void> {
  await patchSector(storage, (view) => {
    writeU64(view, FIELD.refcountTableOffset, 0);
    view.setUint32(FIELD.refcountTableClusters, 0);
  });
}

/** Clears the autoclear bit without which bitmaps do not count. */
export async function dropBitmaps(storage: Storage): Promise<void> {
  await patchSector(storage, (view) => {
    view.setBigUint64(FIELD.autoclear, view.getBigUint64(FIELD.autoclear) & ~AUTOCLEAR.bitmaps);
  });
}

/**
 * Makes another bitmap directory the one in force; it is durable before. Where the extension lies across two sectors, the bitmaps do not
 * count while it is changed.
 */
export async function switchBitmaps(storage: Storage, directory: BitmapDirectory): Promise<void> {
  const { header, bytes } = await readCluster(storage);
  const extension = [...extensionRecords(bytes, header.headerLength, bytes.length)].find(
    ({ type }) => type === EXTENSION.bitmaps,
  );
  if (extension === undefined) return;
  const at = extension.data.byteOffset - bytes.byteOffset;
  const data = encodeBitmapsExtension(directory);
  const isSplit = Math.floor(at / SECTOR_SIZE) !== Math.floor((at + data.length - 1) / SECTOR_SIZE);
  if (isSplit) await dropBitmaps(storage);
  await flush(storage);
  const wait = storage.write(at, data);
  if (isPromise(wait)) await wait;
  await flush(storage);
  if (!isSplit) return;
  await patchSector(storage, (view) => view.setBigUint64(FIELD.autoclear, header.features.autoclear));
}

async function readCluster(storage: Storage): Promise<{ header: UnresolvedHeader; bytes: Uint8Array }> {
  const { header } = await readUnresolvedHeader(storage, { mode: "check", writable: true });
  const bytes = new Uint8Array(2 ** header.clusterBits);
  const wait = storage.read(0, bytes);
  if (isPromise(wait)) await wait;
  return { header, bytes };
}

async function flush(storage: Storage): Promise<void> {
  const wait = storage.flush();
  if (isPromise(wait)) await wait;
}

/** Clears the dirty and corrupt bits of an image that was found sound. */
export async function markSound(storage: Storage, header: Qcow2Header): Promise<Qcow2Header> {
  const incompatible = header.features.incompatible & ~(INCOMPATIBLE.dirty | INCOMPATIBLE.corrupt);
  if (incompatible === header.features.incompatible) return header;
  await patchSector(storage, (view) => view.setBigUint64(FIELD.incompatible, incompatible));
  return { ...header, features: { ...header.features, incompatible } };
}
