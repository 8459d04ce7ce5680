import { type Crc32c, crc32c } from "../../codec/crc32c.js";
import { hostCrc32c } from "../../host/crc32c-library.js";

/** Below this a call out of JavaScript costs more than it saves: headers are. */
const WORTH_A_CALL_BYTES = 256;

/** The checksum for digests: by the processor where it can be had and is worth it. */
export function fastCrc32c(): Crc32c {
  const native = hostCrc32c();
  if (native === undefined) return crc32c;
  return (bytes, start, length) =>
    length < WORTH_A_CALL_BYTES ? crc32c(bytes, start, length) : native(bytes.subarray(start, start + length));
}
