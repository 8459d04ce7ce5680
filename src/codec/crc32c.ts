/**
 * CRC32C (Castagnoli, reflected polynomial 82F63B78h): the digests of NVMe/TCP and iSCSI.
 *
 * Slicing by eight: eight tables let one step take eight bytes, about six times as fast as one table.
 */

/** A checksum of `length` bytes from `start`. A native one may be given wherever digests are made. */
export type Crc32c = (bytes: Uint8Array, start: number, length: number) => number;

const POLYNOMIAL = 0x82f63b78;
const SLICES = 8;

/** Table s, entry b: the effect of byte b with s more bytes of the step behind it. One array, so that one bound check serves. */
const TABLES = makeTables();

function makeTables(): Int32Array {
  const tables = new Int32Array(SLICES * 256);
  for (let byte = 0; byte < 256; byte += 1) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc & 1) === 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
    tables[byte] = crc;
  }
  for (let at = 256; at < tables.length; at += 1) {
    const before = tables[at - 256] as number;
    tables[at] = (before >>> 8) ^ (tables[before & 0xff] as number);
  }
  return tables;
}

/** The CRC32C of `length` bytes of `bytes` from `start`, as an unsigned 32-bit number. The range must lie inside `bytes`. */
export const crc32c: Crc32c = (bytes, start, length) => {
  const t = TABLES;
  const end = start + length;
  const steps = start + (length - (length % SLICES));
  let crc = -1;
  let at = start;
  for (; at < steps; at += SLICES) {
    const low =
      crc ^
      ((bytes[at] as number) |
        ((bytes[at + 1] as number) << 8) |
        ((bytes[at + 2] as number) << 16) |
        ((bytes[at + 3] as number) << 24));
    crc =
      (t[1792 + (low & 0xff)] as number) ^
      (t[1536 + ((low >>> 8) & 0xff)] as number) ^
      (t[1280 + ((low >>> 16) & 0xff)] as number) ^
      (t[1024 + (low >>> 24)] as number) ^
      (t[768 + (bytes[at + 4] as number)] as number) ^
      (t[512 + (bytes[at + 5] as number)] as number) ^
      (t[256 + (bytes[at + 6] as number)] as number) ^
      (t[bytes[at + 7] as number] as number);
  }
  for (; at < end; at += 1) crc = (crc >>> 8) ^ (t[(crc ^ (bytes[at] as number)) & 0xff] as number);
  return ~crc >>> 0;
};
