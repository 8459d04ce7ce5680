import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import { applySnapshot, createSnapshot, deleteSnapshot } from "../../src/jobs/snapshot.js";
import { Random, taggedBytes } from "./random.js";
import { LiveBytes } from "./sector-history.js";
import { qemuImg, temporaryDirectory } from "./stock-tools.js";
import { expectOurReading, expectStockReading, type SharedImage, stockWrites, weWrite } from "./writers-in-turn.js";

/**
 * Extended L2 entries together with every other feature of the format: written by zcow and by stock qemu-io in turn, with
 * snapshots taken, applied and deleted by both in between, and compared byte by byte with a shadow.
 */

const KIB = 1024;
const ROUNDS = 4;
const OUR_STEPS = 50;
const STOCK_STEPS = 30;

/** What is crossed with cluster sizes and refcount widths. */
export type Feature =
  | "alone"
  | "raw backing"
  | "short backing"
  | "data file"
  | "raw data file"
  | "snapshots"
  | "compressed";

export interface Variant {
  readonly feature: Feature;
  readonly cluster: string;
  readonly clusterSize: number;
  readonly bits: number;
}

export const FEATURES: readonly Feature[] = [
  "alone",
  "raw backing",
  "short backing",
  "data file",
  "raw data file",
  "snapshots",
  "compressed",
];
interface Scene extends SharedImage {
  /** A data file that is the disk itself. */
  readonly rawData: string | undefined;
}

/** A new image, made by the stock tool, and what it reads as. */
async function scene({ feature, cluster, clusterSize, bits }: Variant): Promise<Scene> {
  const folder = temporaryDirectory();
  const path = join(folder, "image.qcow2");
  const size = clusterSize === 2048 * KIB ? 3 * clusterSize + 1536 : 40 * clusterSize + 512;
  const history = new LiveBytes(size);
  const options = [`extended_l2=on,cluster_size=${cluster},refcount_bits=${bits}`];
  const more: string[] = [];
  if (feature === "data file") options.push(`data_file=${join(folder, "data.raw")}`);
  if (feature === "raw data file") options.push(`data_file=${join(folder, "data.raw")},data_file_raw=on`);
  if (feature === "raw backing" || feature === "short backing") {
    const length = feature === "raw backing" ? size : Math.floor(size / 3 / 512) * 512 + 512;
    const below = taggedBytes(99, 0, length);
    history.live.set(below);
    await writeFile(join(folder, "below.raw"), below);
    more.push("-b", join(folder, "below.raw"), "-F", "raw");
  }
  const made = await qemuImg(["create", "-q", "-f", "qcow2", "-o", options.join(","), ...more, path, String(size)]);
  expect(made.stderr + made.stdout).toBe("");
  const compressed = feature === "compressed";
  return {
    path,
    history,
    clusterSize,
    compressed,
    rawData: feature === "raw data file" ? join(folder, "data.raw") : undefined,
  };
}

/** Takes, applies and deletes snapshots, whichever program does it. */
class Snapshots {
  readonly #scene: Scene;
  readonly #random: Random;
  readonly #kept = new Map<string, Uint8Array>();
  #next = 0;

  constructor(place: Scene, random: Random) {
    this.#scene = place;
    this.#random = random;
  }

  async step(): Promise<void> {
    const { history } = this.#scene;
    const name = `s${this.#next++}`;
    await this.#run("-c", name, () => createSnapshot(this.#scene.path, { format: "qcow2", name }));
    this.#kept.set(name, history.live.slice());
    if (this.#kept.size < 2) return;
    const chosen = this.#random.pick([...this.#kept.keys()]);
    if (this.#random.chance(0.5)) {
      await this.#run("-a", chosen, () => applySnapshot(this.#scene.path, { format: "qcow2", snapshot: chosen }));
      history.live.set(this.#kept.get(chosen) ?? new Uint8Array(0));
    } else {
      await this.#run("-d", chosen, () => deleteSnapshot(this.#scene.path, { format: "qcow2", snapshot: chosen }));
      this.#kept.delete(chosen);
    }
  }

  async #run(flag: string, name: string, ours: () => Promise<unknown>): Promise<void> {
    if (this.#random.chance(0.5)) {
      await ours();
      return;
    }
    const { code, stderr } = await qemuImg(["snapshot", flag, name, this.#scene.path]);
    expect(code, stderr).toBe(0);
  }
}

/** Has both programs write to one image for some rounds. */
export async function crossVariant(variant: Variant, seed: number): Promise<void> {
  const place = await scene(variant);
  const random = new Random(seed + variant.clusterSize);
  const snapshots = variant.feature === "snapshots" ? new Snapshots(place, random) : undefined;
  for (let round = 0; round < ROUNDS; round++) {
    await weWrite(place, random, OUR_STEPS);
    await expectStockReading(place, place.rawData);
    await snapshots?.step();
    await expectStockReading(place, place.rawData);
    await stockWrites(place, random, STOCK_STEPS);
    await expectStockReading(place, place.rawData);
    await snapshots?.step();
  }
  await expectOurReading(place, random);
}
