/** Every bound on what is read from a LUKS header, and the fixed numbers of the format (LUKS On-Disk Format 1.2.3). */

/** Bytes of the header before the key material. */
export const LUKS_HEADER_BYTES = 592;
export const LUKS_KEY_SLOTS = 8;
/** Bytes in a sector: the unit of offsets in the header. */
export const LUKS_SECTOR_BYTES = 512;
/** Bytes of each salt. */
export const LUKS_SALT_BYTES = 32;
/** Bytes of the digest that tells the volume key. */
export const LUKS_DIGEST_BYTES = 20;
/** Stripes that a key is spread over: every writer uses this number, and QEMU takes no other. */
export const LUKS_STRIPES = 4000;
/** Key material begins at multiples of this many bytes. */
export const LUKS_ALIGNMENT = 4096;
/** Largest volume key in bytes: two AES-256 keys. With the stripes it bounds the key material, 250 KiB. */
export const MAX_LUKS_KEY_BYTES = 64;
/** Fewest iterations that are written, whatever the time asked for. */
export const MIN_LUKS_ITERATIONS = 1000;
/**
 * Largest iteration count of a key slot or digest. The field goes to 2^32, which is an hour of work; a minute of work on a fast
 * machine is far below this, and the default of all tools is two seconds.
 */
export const MAX_LUKS_ITERATIONS = 200_000_000;
/** Largest sum over all active slots of their counts and of the digest's: a passphrase that opens none of them is tried on each. */
export const MAX_LUKS_TOTAL_ITERATIONS = 2 * MAX_LUKS_ITERATIONS;
