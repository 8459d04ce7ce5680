import { availableParallelism } from "node:os";
import { ZcowError } from "../../base/errors.js";
import { Permits } from "../../base/permits.js";
import type { ClusterCodec } from "../../codec/cluster-codec.js";
import { copyQueue } from "../../host/thread-pool.js";

/** Threads that Node.js keeps for files and for compression alike, when the environment says nothing. */
const DEFAULT_POOL_THREADS = 4;

/** Work that waits in the pool: who has finished goes on at once, and not when the main thread comes to hand out more. */
const WAITING = 2;

/**
 * Clusters that are compressed or decompressed at a time, in the whole process: enough to keep every processor busy, and one thread of the
 * pool is left for files. A program that does nothing but copy has more of them. What waits for its turn holds no memory.
 */
export const codecTurns = new Permits(() => copyQueue() ?? codecThreads());

function codecThreads(): number {
  const pool = Number.parseInt(process.env["UV_THREADPOOL_SIZE"] ?? "", 10) || DEFAULT_POOL_THREADS;
  return Math.max(1, Math.min(availableParallelism() + WAITING, pool - 1));
}

/** The codec of a compression type (qcow2 specification, "compression_type"), loaded when it is first needed. */
export async function loadCodec(compressionType: number): Promise<ClusterCodec> {
  if (compressionType === 0) return (await import("../../codec/deflate.js")).deflateCodec;
  const [{ zstdCodec }, { hostZstd }] = await Promise.all([
    import("../../codec/zstd/zstd.js"),
    import("../../host/zstd-library.js"),
  ]);
  const library = hostZstd();
  if (library !== undefined) return zstdCodec(library);
  throw new ZcowError(
    "UNSUPPORTED_COMPRESSION",
    "The image has zstd compression, which needs Node.js 22.15 or the optional package @toondepauw/node-zstd",
    { data: { structure: "header", field: "compression_type", value: compressionType } },
  );
}
