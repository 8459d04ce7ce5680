import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import { parseCreateOptions } from "../../src/formats/qcow2/create-options-parse.js";
import { createImage, openImage } from "../../src/index.js";
import { pairwiseRows, type Row } from "./pairwise.js";
import { PlainWorkload } from "./plain-workload.js";
import { Random, taggedBytes } from "./random.js";
import { LiveBytes } from "./sector-history.js";
import { qemuImg, qemuIo, type ToolResult, temporaryDirectory } from "./stock-tools.js";
import { stockCommands } from "./stock-workload.js";

/**
 * Images with every pair of options, made by either program, written by both in turn, and compared byte by byte with a shadow: by
 * the stock tools, which also check every count, and by us.
 */

const KIB = 1024;
const PASSPHRASE = "crossed";
const ROUNDS = 2;
const OUR_STEPS = 40;
const STOCK_STEPS = 25;

export const CROSSED_OPTIONS = {
  maker: ["zcow", "qemu-img"],
  version: [2, 3],
  clusterSize: [512, 4096, 16_384, 65_536, 2_097_152],
  refcountBits: [1, 2, 8, 16, 64],
  subclusters: [false, true],
  lazy: [false, true],
  compression: ["none", "zlib", "zstd"],
  data: ["inside", "file", "raw file"],
  backing: ["none", "raw", "short raw", "qcow2"],
  encryption: ["none", "luks", "aes"],
  preallocation: ["off", "metadata"],
} as const;

export type CrossedRow = Row<typeof CROSSED_OPTIONS>;

/** What the format, or both programs, cannot do. */
function isPossible(row: CrossedRow): boolean {
  const { version, clusterSize, refcountBits, subclusters, lazy, compression, data, backing, encryption } = row;
  if (version === 2 && (refcountBits !== 16 || lazy || subclusters || compression === "zstd")) return false;
  if (version === 2 && data !== "inside") return false;
  if (subclusters && clusterSize < 16 * KIB) return false;
  if (compression !== "none" && (data !== "inside" || encryption !== "none")) return false;
  if (data === "raw file" && (backing !== "none" || encryption !== "none")) return false;
  if (data === "file" && encryption !== "none") return false;
  // What is preallocated in an encrypted image is noise, and over a backing file it needs subclusters.
  if (row.preallocation === "metadata" && (encryption !== "none" || (backing !== "none" && !subclusters))) return false;
  return true;
}

export function crossedRows(seed: number): CrossedRow[] {
  return pairwiseRows(CROSSED_OPTIONS, isPossible, new Random(seed));
}

class CrossedImage {
  readonly history: LiveBytes;
  readonly #row: CrossedRow;
  readonly #folder = temporaryDirectory();
  /** Who wrote last. */
  #last = "nobody";
  readonly #random: Random;

  constructor(row: CrossedRow, random: Random) {
    this.#row = row;
    this.#random = random;
    const { clusterSize } = row;
    const size = clusterSize === 2048 * KIB ? 3 * clusterSize : Math.max(30 * clusterSize, 200 * KIB);
    this.history = new LiveBytes(size + 1536);
  }

  get #path(): string {
    return join(this.#folder, "image.qcow2");
  }

  async make(): Promise<void> {
    const { maker, version, clusterSize, refcountBits, subclusters, lazy, compression, data, encryption } = this.#row;
    const options = [`compat=${version === 2 ? "0.10" : "1.1"}`, `cluster_size=${clusterSize}`];
    if (version === 3) options.push(`refcount_bits=${refcountBits}`, `lazy_refcounts=${lazy ? "on" : "off"}`);
    if (subclusters) options.push("extended_l2=on");
    if (compression === "zstd") options.push("compression_type=zstd");
    if (data !== "inside") {
      options.push(`data_file=${join(this.#folder, "data")}`, `data_file_raw=${data === "file" ? "off" : "on"}`);
    }
    if (this.#row.preallocation !== "off") options.push(`preallocation=${this.#row.preallocation}`);
    const backing = await this.#makeBacking();
    if (backing !== undefined) options.push(`backing_file=${backing.path}`, `backing_fmt=${backing.format}`);
    const size = this.history.live.length;
    if (maker === "zcow") {
      const encrypt = encryption === "none" ? {} : { encrypt: this.#encryption() };
      await createImage(this.#path, { format: "qcow2", ...parseCreateOptions(options), ...encrypt, size });
      return;
    }
    const secret = encryption === "none" ? [] : ["--object", `secret,id=s,data=${PASSPHRASE}`];
    if (encryption !== "none") options.push(`encrypt.format=${encryption}`, "encrypt.key-secret=s");
    // Stock tools cannot measure shorter times on a busy machine.
    if (encryption === "luks") options.push("encrypt.iter-time=100");
    await succeed(qemuImg(["create", "-q", ...secret, "-f", "qcow2", "-o", options.join(","), this.#path, `${size}`]));
  }

  #encryption(): { readonly format: "luks" | "aes"; readonly passphrase: string; readonly iterTime?: number } {
    const passphrase = PASSPHRASE;
    return this.#row.encryption === "luks"
      ? { format: "luks", passphrase, iterTime: 10 }
      : { format: "aes", passphrase };
  }

  async #makeBacking(): Promise<{ readonly path: string; readonly format: string } | undefined> {
    const { backing } = this.#row;
    if (backing === "none") return undefined;
    const { live } = this.history;
    const length = backing === "short raw" ? Math.floor(live.length / 3 / 512) * 512 : live.length;
    const below = taggedBytes(99, 0, length);
    live.set(below);
    const raw = join(this.#folder, "below.raw");
    await writeFile(raw, below);
    if (backing !== "qcow2") return { path: raw, format: "raw" };
    const path = join(this.#folder, "below.qcow2");
    await succeed(qemuImg(["convert", "-q", "-f", "raw", "-O", "qcow2", "-c", raw, path]));
    return { path, format: "qcow2" };
  }

  /** How stock tools are told to open it. */
  #opened(): string[] {
    if (this.#row.encryption === "none") return ["-f", "qcow2", this.#path];
    const image = `driver=qcow2,file.filename=${this.#path},encrypt.key-secret=s`;
    return ["--object", `secret,id=s,data=${PASSPHRASE}`, "--image-opts", image];
  }

  async weWrite(): Promise<void> {
    this.#last = "zcow";
    const device = await openImage(this.#path, {
      format: "qcow2",
      implicitFiles: "allow",
      passphrase: PASSPHRASE,
    });
    const workload = new PlainWorkload({
      random: this.#random,
      device,
      history: this.history,
      position: () => 0,
      clusterSize: this.#row.clusterSize,
      unaligned: true,
      compressed: this.#row.compression !== "none",
    });
    await workload.verify();
    await workload.run(OUR_STEPS);
    await workload.verify();
    await device.close();
  }

  async stockWrites(): Promise<void> {
    this.#last = "qemu-io";
    const { clusterSize, compression, version, backing } = this.#row;
    const commands = stockCommands(this.#random, this.history.live, STOCK_STEPS, {
      clusterSize,
      compressed: compression !== "none",
      // Without zero clusters the backing file would show.
      discards: version === 3 || backing === "none" ? "zeros" : "none",
    });
    for (const session of sessionsOf(commands)) {
      await succeed(qemuIo(["-d", "unmap", ...session, ...this.#opened()]));
    }
  }

  /** The stock tools find the image clean and equal to the shadow. */
  async expectShadow(): Promise<void> {
    const shadow = join(this.#folder, "shadow.raw");
    await writeFile(shadow, this.history.live);
    const checked = await qemuImg(["check", ...this.#opened()]);
    const found = `${checked.stderr}${checked.stdout}`;
    expect(found, `after ${this.#last}: ${found}`).toContain("No errors were found on the image.");
    if (this.#row.encryption === "none") {
      await succeed(qemuImg(["compare", "-f", "qcow2", "-F", "raw", this.#path, shadow]));
    } else {
      const secret = `secret,id=s,data=${PASSPHRASE}`;
      const image = `driver=qcow2,file.filename=${this.#path},encrypt.key-secret=s`;
      const other = `driver=raw,file.filename=${shadow}`;
      await succeed(qemuImg(["compare", "--object", secret, "--image-opts", image, other]));
    }
    if (this.#row.data === "raw file") {
      await succeed(qemuImg(["compare", "-f", "raw", "-F", "raw", join(this.#folder, "data"), shadow]));
    }
  }
}

/**
 * A run of qemu-io for each compressed write. QEMU 7.2 goes on behind the compressed data it wrote last even when their cluster was
 * freed and holds something else by then; `write -c`, `write` to the same place and another `write -c` in one run corrupt an image.
 */
function sessionsOf(commands: readonly string[]): string[][] {
  const sessions: string[][] = [[]];
  for (let at = 0; at < commands.length; at += 2) {
    const command = commands[at + 1] as string;
    if (command.startsWith("write -q -c")) sessions.push([]);
    sessions.at(-1)?.push("-c", command);
  }
  return sessions.filter(({ length }) => length > 0);
}

async function succeed(run: Promise<ToolResult>): Promise<void> {
  const { code, stdout, stderr } = await run;
  expect(code, `${stdout}${stderr}`).toBe(0);
}

/** Has both programs write to one image for some rounds. */
export async function crossImage(row: CrossedRow, seed: number): Promise<void> {
  const image = new CrossedImage(row, new Random(seed));
  await image.make();
  for (let round = 0; round < ROUNDS; round++) {
    await image.weWrite();
    await image.expectShadow();
    await image.stockWrites();
    await image.expectShadow();
  }
  await image.weWrite();
}
