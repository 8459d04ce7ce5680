import { constants, deflateRaw, inflateRaw } from "node:zlib";
import { badCompressedData, type ClusterCodec } from "./cluster-codec.js";
import { mayShrink } from "./shrink-test.js";

/** Both ways: QEMU decompresses with a window of 4 KiB, so nothing may refer further back. */
const WINDOW_BITS = 12;
/** As QEMU compresses: the most memory for the hash table. */
const MEMORY_LEVEL = 9;
/** Smallest output chunk that Node.js takes. */
const MIN_CHUNK = 64;
/** Deflated data that does not end is good as long as it fills the cluster: that is what QEMU asks for. */
const MAY_BE_OPEN = constants.Z_SYNC_FLUSH;

/** Compression type 0 of qcow2, "zlib": raw deflate with a 4 KiB window, in the thread pool of Node.js. */
export const deflateCodec: ClusterCodec = {
  name: "zlib",
  threadMethod: "deflate",

  mayShrink,

  compress(contents) {
    if (!mayShrink(contents)) return Promise.resolve(undefined);
    const limit = contents.length - 1;
    const options = { windowBits: WINDOW_BITS, memLevel: MEMORY_LEVEL, chunkSize: limit, maxOutputLength: limit };
    return new Promise((resolve, reject) => {
      deflateRaw(contents, options, (error, bytes) => {
        if (error === null) resolve(bytes);
        else if (isTooLarge(error)) resolve(undefined);
        else reject(error);
      });
    });
  },

  decompress(bytes, into) {
    const { length } = into;
    // One byte more than needed: the end is seen without a second chunk.
    const chunkSize = Math.max(MIN_CHUNK, length + 1);
    const options = { windowBits: WINDOW_BITS, maxOutputLength: length, chunkSize, finishFlush: MAY_BE_OPEN };
    return new Promise((resolve, reject) => {
      inflateRaw(bytes, options, (error, contents) => {
        if (error !== null || contents.length !== length) {
          reject(failure(error, error === null ? contents.length : 0, length));
          return;
        }
        into.set(contents);
        resolve();
      });
    });
  },
};

function failure(error: Error | null, found: number, length: number): Error {
  if (error === null) return badCompressedData("deflate", `ends after ${found} of ${length} bytes`);
  if (isTooLarge(error)) return badCompressedData("deflate", `holds more than ${length} bytes`, error);
  return badCompressedData("deflate", `is damaged (${error.message})`, error);
}

/** The output reached its limit. */
function isTooLarge(error: Error): boolean {
  return "code" in error && error.code === "ERR_BUFFER_TOO_LARGE";
}
