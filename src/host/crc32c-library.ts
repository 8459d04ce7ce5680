import { createRequire } from "node:module";

/*
 * CRC32C by the processor's own instruction, from the optional package @node-rs/crc32. A call costs about as much as a hundred
 * bytes in JavaScript; above that it is four to eight times as fast.
 */

interface PackageCrc32 {
  readonly crc32c: (bytes: Uint8Array) => number;
}

/** "123456789" and its CRC32C: a library that gets it wrong would lose data. */
const SAMPLE = Uint8Array.from("123456789", (digit) => digit.charCodeAt(0));
const SAMPLE_CRC = 0xe306_9283;

/** The CRC32C of all of `bytes`. Undefined where the package is not installed, with ZCOW_NO_NATIVE=1 in the environment too. */
export function hostCrc32c(): ((bytes: Uint8Array) => number) | undefined {
  if (process.env["ZCOW_NO_NATIVE"] === "1") return undefined;
  try {
    const { crc32c }: PackageCrc32 = createRequire(import.meta.url)("@node-rs/crc32");
    // The package insists on the class Buffer.
    const checksum = (bytes: Uint8Array): number =>
      crc32c(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)) >>> 0;
    return checksum(SAMPLE) === SAMPLE_CRC ? checksum : undefined;
  } catch {
    // Not installed, or not built for this system.
    return undefined;
  }
}
