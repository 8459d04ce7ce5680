import { viewOf } from "../../base/bytes.js";

/**
 * What the records of a journal are about, in the order in which tables become durable: that of `WriteBack`, then the write pointers.
 * A record of `tails` holds no bytes of the image: it names the guest cluster (`encodeTail`) that the host cluster at its offset was
 * mapped to with only its start written. The zeros behind that come before all else.
 */
export const JOURNAL_STAGE = { refcounts: 0, refcountTable: 1, l2: 2, l1: 3, writePointers: 4, tails: 5 } as const;

/** Bytes of a record of `tails`: a guest offset, little-endian. */
export const TAIL_BYTES = 8;
const TWO_32 = 0x1_0000_0000;

/** Puts guest offset `guest` into `into`, and returns that. */
export function encodeTail(guest: number, into: Uint8Array): Uint8Array {
  const view = viewOf(into);
  view.setUint32(0, guest % TWO_32, true);
  view.setUint32(4, Math.floor(guest / TWO_32), true);
  return into;
}

/** The guest offset; undefined when `bytes` are none. */
export function decodeTail(bytes: Uint8Array): number | undefined {
  if (bytes.length !== TAIL_BYTES) return undefined;
  const view = viewOf(bytes);
  const guest = view.getUint32(0, true) + view.getUint32(4, true) * TWO_32;
  return Number.isSafeInteger(guest) ? guest : undefined;
}
