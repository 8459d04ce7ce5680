import { createQcow2 } from "../../src/formats/qcow2/create.js";
import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";
import { type MemoryStorage, memoryStorage } from "../../src/storage/memory-storage.js";
import { referenceCheck } from "./reference-check.js";

/** Shapes of images that the engine must handle alike, and what tests say about the result. */

export interface ImageShape {
  readonly clusterSize: number;
  readonly refcountBits: number;
  readonly compat: "0.10" | "1.1";
  readonly lazyRefcounts: boolean;
}

const CLUSTER_SIZES = [512, 4096, 65_536, 2 * 1024 * 1024] as const;
const REFCOUNT_BITS = [1, 16, 64] as const;

/** Every combination of cluster size, refcount width, version and lazy refcounts that the format has. */
export const ALL_SHAPES: readonly ImageShape[] = CLUSTER_SIZES.flatMap((clusterSize) => [
  { clusterSize, refcountBits: 16, compat: "0.10", lazyRefcounts: false } as const,
  ...REFCOUNT_BITS.flatMap((refcountBits) =>
    [false, true].map((lazyRefcounts) => ({ clusterSize, refcountBits, compat: "1.1", lazyRefcounts }) as const),
  ),
]);

export function shapeName({ clusterSize, refcountBits, compat, lazyRefcounts }: ImageShape): string {
  return `${clusterSize}-byte clusters, ${refcountBits}-bit counts, compat ${compat}${lazyRefcounts ? ", lazy" : ""}`;
}

/** A fresh image in memory. Default: 64 KiB clusters, 16-bit counts, version 3. */
export async function imageInMemory(options: CreateQcow2Options): Promise<MemoryStorage> {
  const storage = memoryStorage();
  await createQcow2(storage, options);
  return storage;
}

/** Throws unless nothing at all is wrong with the image: no corruption, no leak, not dirty. */
export function expectSound(bytes: Uint8Array): void {
  const { corruptions, leaks, dirty } = referenceCheck(bytes);
  const problems = [
    ...corruptions,
    ...leaks.map((leak) => `leak: ${leak}`),
    ...(dirty ? ["the dirty bit is set"] : []),
  ];
  if (problems.length > 0) throw new Error(problems.join("\n"));
}
