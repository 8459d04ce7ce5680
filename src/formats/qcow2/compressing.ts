import type { ClusterCodec } from "../../codec/cluster-codec.js";
import type { CompressedGroup } from "./compressing-threads.js";
import { codecTurns } from "./compression.js";

/** Clusters after which a program is taken to compress much, so that threads are worth their start. */
const MANY_CLUSTERS = 32;

let tried = 0;

/** Compresses `contents`, clusters of `clusterSize` bytes, which stay as they are meanwhile. */
export async function compressGroup(
  codec: ClusterCodec,
  contents: readonly Uint8Array[],
  clusterSize: number,
): Promise<CompressedGroup> {
  const worth = contents.map((cluster) => codec.mayShrink(cluster));
  const chosen = contents.filter((_, index) => worth[index] === true);
  if (chosen.length === 0) return { clusters: contents.map(() => undefined), release: () => undefined };
  tried += chosen.length;
  const group = await (tried > MANY_CLUSTERS ? inThreads(codec, chosen, clusterSize) : inPool(codec, chosen));
  const results = group.clusters.values();
  return { clusters: worth.map((is) => (is ? results.next().value : undefined)), release: group.release };
}

async function inThreads(
  codec: ClusterCodec,
  contents: readonly Uint8Array[],
  clusterSize: number,
): Promise<CompressedGroup> {
  if (codec.threadMethod === undefined) return inPool(codec, contents);
  const { compressingThreads } = await import("./compressing-threads.js");
  // Where threads cannot be had, nothing is lost but time.
  return compressingThreads.compress(codec.threadMethod, clusterSize, contents).catch(() => inPool(codec, contents));
}

async function inPool(codec: ClusterCodec, contents: readonly Uint8Array[]): Promise<CompressedGroup> {
  const work = contents.map((cluster) => codecTurns.run(() => codec.compress(cluster)));
  try {
    return { clusters: await Promise.all(work), release: () => undefined };
  } finally {
    await Promise.allSettled(work);
  }
}
