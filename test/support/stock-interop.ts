import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { openImage } from "../../src/index.js";
import { PlainWorkload } from "./plain-workload.js";
import { Random, seedFromEnvironment } from "./random.js";
import { equalBytes, LiveBytes, SECTOR } from "./sector-history.js";
import {
  describeWithStock,
  expectCleanCheck,
  expectSameContents,
  qemuImg,
  qemuIo,
  temporaryDirectory,
} from "./stock-tools.js";
import { stockCommands } from "./stock-workload.js";

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
        const { options, clusterSize, size, compressed = false } = variant;
        const directory = temporaryDirectory();
        const path = join(directory, "image.qcow2");
        const raw = join(directory, "shadow.raw");
        const random = new Random(seed);
        const history = new LiveBytes(size);
        expect((await qemuImg(["create", "-q", "-f", "qcow2", "-o", options, path, String(size)])).code).toBe(0);
        for (let round = 0; round < rounds; round++) {
          const device = await openImage(path, { format: "qcow2" });
          const position = (): number => 0;
          const workload = new PlainWorkload({
            random,
            device,
            history,
            position,
            clusterSize,
            unaligned: true,
            compressed,
          });
          await workload.verify();
          await workload.run(OUR_STEPS);
          await workload.verify();
          await device.close();
          await expectCleanCheck(path);
          await writeFile(raw, history.live);
          await expectSameContents(path, "qcow2", raw, "raw");

          const stock = await qemuIo([
            "-d",
            "unmap",
            "-f",
            "qcow2",
            ...stockCommands(random, history.live, STOCK_STEPS, variant),
            path,
          ]);
          expect(stock.code, `seed ${seed}: ${stock.stdout}${stock.stderr}`).toBe(0);
        }
        const device = await openImage(path, { format: "qcow2", readOnly: true });
        const bytes = new Uint8Array(size);
        await device.read(0, bytes);
        await device.close();
        await writeFile(raw, history.live);
        expect(equalBytes(bytes, await readFile(raw)), `seed ${seed}`).toBe(true);
      },
    );
  });
}
