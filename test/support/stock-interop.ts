import { join } from "node:path";
import { it } from "vitest";
import { Random, seedFromEnvironment } from "./random.js";
import { LiveBytes, SECTOR } from "./sector-history.js";
import { describeWithStock, qemuImg, temporaryDirectory } from "./stock-tools.js";
import { expectOurReading, expectStockReading, stockWrites, succeed, weWrite } from "./writers-in-turn.js";

/** One image, two writers in turn: after each turn the stock tools and ours must agree on every byte and every count. */

const KIB = 1024;
const OUR_STEPS = 70;
const STOCK_STEPS = 40;

export interface Variant {
  readonly options: string;
  readonly clusterSize: number;
  readonly size: number;
  /** Both write compressed clusters, too. */
  readonly compressed?: boolean;
}

const VARIANTS: readonly Variant[] = [
  { options: "cluster_size=512", clusterSize: 512, size: 2048 * KIB },
  { options: "cluster_size=512,refcount_bits=64", clusterSize: 512, size: 1024 * KIB },
  { options: "cluster_size=512,compat=0.10", clusterSize: 512, size: 1024 * KIB },
  { options: "cluster_size=4k,refcount_bits=1", clusterSize: 4 * KIB, size: 4096 * KIB },
  { options: "cluster_size=4k,lazy_refcounts=on", clusterSize: 4 * KIB, size: 4096 * KIB },
  { options: "cluster_size=64k", clusterSize: 64 * KIB, size: 8192 * KIB + SECTOR },
  { options: "cluster_size=64k,preallocation=metadata", clusterSize: 64 * KIB, size: 8192 * KIB },
  { options: "cluster_size=64k,compat=0.10", clusterSize: 64 * KIB, size: 8192 * KIB },
  { options: "cluster_size=2M,refcount_bits=8", clusterSize: 2048 * KIB, size: 16_384 * KIB },
  { options: "extended_l2=on,cluster_size=16k,refcount_bits=1", clusterSize: 16 * KIB, size: 2048 * KIB },
  { options: "extended_l2=on,cluster_size=32k,lazy_refcounts=on", clusterSize: 32 * KIB, size: 4096 * KIB },
  { options: "extended_l2=on,cluster_size=64k", clusterSize: 64 * KIB, size: 8192 * KIB + SECTOR },
  { options: "extended_l2=on,cluster_size=128k,preallocation=metadata", clusterSize: 128 * KIB, size: 8192 * KIB },
  { options: "extended_l2=on,cluster_size=2M,refcount_bits=64", clusterSize: 2048 * KIB, size: 16_384 * KIB },
  { options: "cluster_size=512,refcount_bits=64", clusterSize: 512, size: 256 * KIB, compressed: true },
  { options: "cluster_size=64k,refcount_bits=1", clusterSize: 64 * KIB, size: 2048 * KIB + SECTOR, compressed: true },
  {
    options: "cluster_size=4k,refcount_bits=2,compression_type=zstd",
    clusterSize: 4 * KIB,
    size: 1024 * KIB,
    compressed: true,
  },
  {
    options: "cluster_size=64k,lazy_refcounts=on,compression_type=zstd",
    clusterSize: 64 * KIB,
    size: 2048 * KIB,
    compressed: true,
  },
  { options: "extended_l2=on,cluster_size=16k", clusterSize: 16 * KIB, size: 1024 * KIB, compressed: true },
];

/** Each variant that `chosen` picks, in so many rounds. */
export function describeStockInterop(chosen: (variant: Variant) => boolean, rounds: number): void {
  describeWithStock("an image written by zcow and by stock qemu-io in turn", () => {
    const seed = seedFromEnvironment(0x20c0);

    it.each(VARIANTS.filter(chosen))(
      "stays clean and equal to its shadow ($options, compressed writes: $compressed)",
      async (variant) => {
        const { options, size } = variant;
        const path = join(temporaryDirectory(), "image.qcow2");
        const random = new Random(seed);
        const image = { ...variant, path, history: new LiveBytes(size) };
        await succeed(qemuImg(["create", "-q", "-f", "qcow2", "-o", options, path, String(size)]));
        for (let round = 0; round < rounds; round++) {
          await weWrite(image, random, OUR_STEPS);
          await expectStockReading(image);
          await stockWrites(image, random, STOCK_STEPS);
        }
        await expectOurReading(image, random);
      },
    );
  });
}
