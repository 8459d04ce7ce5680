import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { it } from "vitest";
import { openImage } from "../../src/index.js";
import { Random, seedFromEnvironment, taggedBytes } from "../support/random.js";
import { LiveBytes, SECTOR } from "../support/sector-history.js";
import { describeWithStock, qemuImg, temporaryDirectory } from "../support/stock-tools.js";
import { expectOurReading, expectStockReading, stockWrites, succeed, weWrite } from "../support/writers-in-turn.js";

/** An overlay written by zcow and by stock qemu-io in turn: what is written is there, what is not shows from behind. */

const KIB = 1024;
const SIZE = 2048 * KIB;
const ROUNDS = 3;
const OUR_STEPS = 60;
const STOCK_STEPS = 30;

interface Layer {
  readonly options: string;
  readonly size: number;
}

const layer = (options: string, size = SIZE): Layer => ({ options, size });

/** From the bottom up; a layer without options is raw. */
const CHAINS: readonly { readonly name: string; readonly layers: readonly Layer[]; readonly top: Layer }[] = [
  { name: "on a raw disk", layers: [layer("")], top: layer("cluster_size=4k") },
  { name: "on a shorter raw disk", layers: [layer("", 700 * KIB + SECTOR)], top: layer("cluster_size=64k") },
  { name: "on a longer raw disk", layers: [layer("", 2 * SIZE)], top: layer("cluster_size=16k,refcount_bits=1") },
  { name: "of version 2", layers: [layer("")], top: layer("compat=0.10,cluster_size=4k") },
  { name: "on version 2", layers: [layer("compat=0.10")], top: layer("cluster_size=4k,lazy_refcounts=on") },
  { name: "with subclusters", layers: [layer("", 900 * KIB)], top: layer("cluster_size=64k,extended_l2=on") },
  {
    name: "with subclusters on subclusters",
    layers: [layer(""), layer("cluster_size=16k,extended_l2=on")],
    top: layer("cluster_size=32k,extended_l2=on"),
  },
  {
    name: "four deep, of different lengths and clusters",
    layers: [layer("", SIZE + SECTOR), layer("cluster_size=2M"), layer("cluster_size=512", 900 * KIB)],
    top: layer("cluster_size=64k"),
  },
];

describeWithStock("an overlay written by zcow and by stock qemu-io in turn", () => {
  const seed = seedFromEnvironment(0xbac4);

  it.each(CHAINS)("shows what was written and what is behind it ($name)", async ({ layers, top }) => {
    const directory = temporaryDirectory();
    const random = new Random(seed);
    const live = new Uint8Array(SIZE);
    let below: string | undefined;
    let format = "";
    for (const [depth, { options, size }] of [...layers, top].entries()) {
      const path = join(directory, `layer-${depth}`);
      const isTop = depth === layers.length;
      if (options === "") {
        await writeFile(path, new Uint8Array(size));
      } else {
        const backing = below === undefined ? [] : ["-b", `layer-${depth - 1}`, "-F", format];
        await succeed(qemuImg(["create", "-q", "-f", "qcow2", "-o", options, ...backing, path, String(size)]));
      }
      format = options === "" ? "raw" : "qcow2";
      below = path;
      // What a layer does not reach reads as zeros from there on up.
      if (size < SIZE) live.fill(0, size);
      if (isTop) break;
      const device = await openImage(path, { format: format as "raw" | "qcow2", implicitFiles: "allow" });
      for (let i = 0; i < 12; i++) {
        const at = random.below(Math.min(size, SIZE) - 40 * KIB);
        const bytes = taggedBytes(depth * 100 + i, at, random.between(1, 40 * KIB));
        await device.write(at, bytes);
        live.set(bytes, at);
      }
      await device.close();
    }
    const path = below ?? "";
    const clusterSize = Number(/cluster_size=(\d+)/.exec(top.options)?.[1]) * KIB;
    // In version 2 a discard shows nothing of what is behind: it does nothing.
    const discards = top.options.includes("compat=0.10") ? "nothing" : "zeros";
    const history = new LiveBytes(SIZE);
    history.live.set(live);
    const image = { path, history, clusterSize, discards } as const;
    for (let round = 0; round < ROUNDS; round++) {
      await weWrite(image, random, OUR_STEPS);
      await expectStockReading(image);
      await stockWrites(image, random, STOCK_STEPS);
    }
    await expectOurReading(image, random);
  });
});
