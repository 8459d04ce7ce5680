import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { SECTOR_SIZE } from "../../base/units.js";
import type { Storage } from "../../storage/storage.js";
import type { Qcow2Header } from "./header.js";
import { encodeHeader } from "./header-encode.js";

/**
 * Makes `header` the header of the image on `storage`, durable when it resolves. `flush` makes durable what was written so far. A crash
 * leaves the old header or the new one: at once where one sector differs, as nearly always, in steps where several do
 * (header-steps.ts). Only a backing file name for which there is no second place may be torn then.
 *
 * Throws `QCOW2_HEADER_FULL`, before anything is written, and the codes of the storage.
 */
export async function replaceHeader(
  storage: Storage,
  header: Qcow2Header,
  flush: () => MaybePromise<void>,
): Promise<void> {
  const target = encodeHeader(header);
  const old = new Uint8Array(target.length);
  const read = storage.read(0, old);
  if (isPromise(read)) await read;
  for (const bytes of await stepsTo(old, target, header, storage.size())) {
    const written = storage.write(0, bytes);
    if (isPromise(written)) await written;
    const flushed = flush();
    if (isPromise(flushed)) await flushed;
  }
}

async function stepsTo(
  old: Uint8Array,
  target: Uint8Array,
  header: Qcow2Header,
  fileSize: number,
): Promise<readonly Uint8Array[]> {
  if (differsInOneSector(old, target)) return [target];
  const { headerSteps } = await import("./header-steps.js");
  return headerSteps(old, header, fileSize) ?? [target];
}

function differsInOneSector(a: Uint8Array, b: Uint8Array): boolean {
  const first = a.findIndex((byte, at) => byte !== b[at]);
  if (first === -1) return true;
  const last = a.findLastIndex((byte, at) => byte !== b[at]);
  return Math.floor(first / SECTOR_SIZE) === Math.floor(last / SECTOR_SIZE);
}
