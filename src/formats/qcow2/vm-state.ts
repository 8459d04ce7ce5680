import { ZcowError } from "../../base/errors.js";
import { ceilDiv } from "../../base/integers.js";
import { isPromise } from "../../base/maybe-promise.js";
import type { PassphraseSource } from "../../block/passphrase.js";
import { borrowedStorage } from "../../storage/borrowed-storage.js";
import type { Storage } from "../../storage/storage.js";
import type { ClusterEngine } from "./engine.js";
import { INCOMPATIBLE } from "./features.js";
import { type Qcow2Geometry, qcow2Geometry } from "./geometry.js";
import type { Qcow2Header } from "./header.js";
import { readHeader } from "./header-read.js";
import { MAX_L1_BYTES, TABLE_ENTRY_BYTES } from "./limits.js";
import { openEngine } from "./open.js";

/**
 * The place for the state of a virtual machine: mapped by the L1 table behind the part that the disk needs, and stored in clusters as data
 * are. What was never written reads as zeros. Bitmaps and the backing image have no part in it.
 */

/** Reads from byte `at` of the state. Fails with `NOT_SUPPORTED` for an image with an external data file, and as `openQcow2` does. */
export async function readVmState(
  storage: Storage,
  at: number,
  into: Uint8Array,
  passphrase: PassphraseSource | undefined,
): Promise<void> {
  const header = await readHeader(storage);
  const start = placeOf(storage, header).start + at;
  const engine = await openPastEnd(storage, false, passphrase);
  try {
    const inside = Math.min(into.length, Math.max(0, engine.geometry.size - start));
    into.fill(0, inside);
    const wait = inside === 0 ? undefined : engine.read(start, into.subarray(0, inside));
    if (isPromise(wait)) await wait;
  } finally {
    await engine.close();
  }
}

/**
 * Writes at byte `at` of the state, in an image that nobody else uses; durable when it resolves. The L1 table gets larger first, in one step
 * that a crash cannot split. Fails with `FILE_TOO_LARGE` where it cannot get so large, `NOT_SUPPORTED` for an image with an external data
 * file, and as `openQcow2` does.
 */
export async function writeVmState(
  storage: Storage,
  at: number,
  from: Uint8Array,
  passphrase: PassphraseSource | undefined,
): Promise<void> {
  const header = await readHeader(storage, { writable: true });
  const { start, geometry } = placeOf(storage, header);
  await reachTo(storage, header, ceilDiv(start + at + from.length, geometry.l2Coverage));
  const engine = await openPastEnd(storage, true, passphrase);
  try {
    const wait = engine.write(start + at, from);
    if (isPromise(wait)) await wait;
    const flushed = engine.flush();
    if (isPromise(flushed)) await flushed;
  } finally {
    await engine.close();
  }
}

function placeOf(storage: Storage, header: Qcow2Header): { readonly start: number; readonly geometry: Qcow2Geometry } {
  const { size, version, clusterBits, refcountOrder, features } = header;
  if ((features.incompatible & INCOMPATIBLE.externalData) !== 0n) {
    const message = `${storage.name} keeps its data in an external file, which has no place for the state of a machine`;
    throw new ZcowError("NOT_SUPPORTED", message, { data: { path: storage.name } });
  }
  const extendedL2 = (features.incompatible & INCOMPATIBLE.extendedL2) !== 0n;
  const geometry = qcow2Geometry({ size, version, clusterBits, refcountOrder, extendedL2 });
  return { start: geometry.l1EntriesNeeded * geometry.l2Coverage, geometry };
}

async function reachTo(storage: Storage, { l1Size }: Qcow2Header, entries: number): Promise<void> {
  if (entries <= l1Size) return;
  const bytes = entries * TABLE_ENTRY_BYTES;
  if (bytes > MAX_L1_BYTES) {
    throw new ZcowError(
      "FILE_TOO_LARGE",
      `${storage.name}: the L1 table would need ${bytes} bytes, and the limit is ${MAX_L1_BYTES}`,
      { data: { path: storage.name, structure: "L1 table", value: bytes, limit: MAX_L1_BYTES } },
    );
  }
  const { ImageAtRest } = await import("./rewrite/image-at-rest.js");
  const { activeL1, replaceActiveL1 } = await import("./snapshots/mapping-rewrite.js");
  const image = await ImageAtRest.open(storage);
  const table = new Uint8Array(bytes);
  table.set(activeL1(image));
  await image.commit(await replaceActiveL1(image, table));
}

function openPastEnd(
  storage: Storage,
  writable: boolean,
  passphrase: PassphraseSource | undefined,
): Promise<ClusterEngine> {
  return openEngine(borrowedStorage(storage), { readOnly: !writable, backing: "none", passphrase, pastEnd: true });
}
