import { type ForeignFunction, type Koffi, loadKoffi } from "./native-helper.js";

/*
 * The zstd library of a Linux system, called through the native helper in the thread pool. Its contexts are used again and again, which
 * saves more than half of the time of Node.js's own functions, and it writes to memory that is there already.
 */

const LIBRARY = "libzstd.so.1";
/** 1.3.0: from then on the functions below are as they are now. */
const LEAST_VERSION = 10_300;
/** Results are counts of bytes or, from -1 down, negative error numbers. */
const RESULT = "int64_t";
const ERROR_DESTINATION_TOO_SMALL = 70;

/** What is used of the library. Memory is handed over as pointer and length. */
interface Functions {
  readonly createCompressor: ForeignFunction;
  readonly createDecompressor: ForeignFunction;
  readonly compress: ForeignFunction;
  readonly decompress: ForeignFunction;
}

/** As `HostZstd`. */
interface NativeZstd {
  readonly isSwift: true;
  readonly isNative: true;
  compress(bytes: Uint8Array, limit: number): Promise<Uint8Array | undefined>;
  decompress(frame: Uint8Array, into: Uint8Array): Promise<number>;
}

/** Working memory for one call at a time. */
interface Context {
  /** The library's own. */
  readonly handle: unknown;
  /** Where a frame is made. */
  frame: Uint8Array;
}

/** What is idle is kept: there are as many as there were calls at a time. */
class Contexts {
  readonly #idle: Context[] = [];
  readonly #create: ForeignFunction;

  constructor(create: ForeignFunction) {
    this.#create = create;
  }

  take(): Context {
    const context = this.#idle.pop();
    if (context !== undefined) return context;
    const handle: unknown = this.#create();
    if (handle === null || handle === 0) throw new Error("there is no memory left for zstd");
    return { handle, frame: new Uint8Array(0) };
  }

  give(context: Context): void {
    this.#idle.push(context);
  }
}

/** Compresses at `level`. Undefined where there is no such library or no native helper, and with ZCOW_NO_NATIVE=1 in the environment. */
export function nativeZstd(level: number): NativeZstd | undefined {
  if (process.platform !== "linux" || process.env["ZCOW_NO_NATIVE"] === "1") return undefined;
  try {
    const functions = bind(loadKoffi());
    return functions === undefined ? undefined : zstdOf(functions, level);
  } catch {
    // Not installed, or built for another system.
    return undefined;
  }
}

function bind(koffi: Koffi): Functions | undefined {
  const library = koffi.load(LIBRARY);
  if (library.func("ZSTD_versionNumber", "unsigned int", [])() < LEAST_VERSION) return undefined;
  const [pointer, size] = ["void *", "size_t"];
  return {
    createCompressor: library.func("ZSTD_createCCtx", pointer, []),
    createDecompressor: library.func("ZSTD_createDCtx", pointer, []),
    compress: library.func("ZSTD_compressCCtx", RESULT, [pointer, pointer, size, pointer, size, "int"]),
    decompress: library.func("ZSTD_decompressDCtx", RESULT, [pointer, pointer, size, pointer, size]),
  };
}

function zstdOf(functions: Functions, level: number): NativeZstd {
  const compressors = new Contexts(functions.createCompressor);
  const decompressors = new Contexts(functions.createDecompressor);
  return {
    isSwift: true,
    isNative: true,

    async compress(bytes, limit) {
      const context = compressors.take();
      if (context.frame.length < limit) context.frame = new Uint8Array(limit);
      const { handle, frame } = context;
      try {
        const length = await inPool(functions.compress, [handle, frame, limit, bytes, bytes.length, level]);
        return length === -ERROR_DESTINATION_TOO_SMALL ? undefined : frame.slice(0, lengthOf(length));
      } finally {
        compressors.give(context);
      }
    },

    async decompress(frame, into) {
      const context = decompressors.take();
      try {
        return lengthOf(await inPool(functions.decompress, [context.handle, into, into.length, frame, frame.length]));
      } finally {
        decompressors.give(context);
      }
    },
  };
}

/** The arguments stay reachable, and their memory where it is, until the call has returned. */
function inPool(call: ForeignFunction, values: readonly unknown[]): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(...values, (error: Error | null, result: number) => {
      if (error !== null || values.length === 0) reject(error);
      else resolve(result);
    });
  });
}

function lengthOf(result: number): number {
  if (result < 0) throw new Error(`zstd error ${-result}`);
  return result;
}
