import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { run } from "./contestants.js";
import { writeHalfRandom, writeMixedData, writeText } from "./mixed-data.js";

/** The images that the cases work on, made by the stock tools where they can (zoned ones by `zcow create`). */
export class BenchImages {
  readonly directory: string;
  readonly #zcow: string;

  constructor(directory: string, zcow: string) {
    this.directory = directory;
    this.#zcow = zcow;
  }

  /** Every cluster written; kept for all rounds. */
  allocated(size: number): string {
    const path = this.#path(`allocated-${size}`);
    if (!existsSync(path)) {
      this.#create(path, size, []);
      this.#run("qemu-io", ["-f", "qcow2", "-c", `write -q -P 165 0 ${size}`, path]);
    }
    return path;
  }

  /** Nothing allocated; made anew for each run. */
  empty(name: string, size: number): string {
    const path = this.#path(`empty-${name}`);
    rmSync(path, { force: true });
    this.#create(path, size, []);
    return path;
  }

  /** All zones empty; made anew for each run. */
  emptyZoned(size: number, zoneSize: number): string {
    const path = this.#path("empty-zoned");
    rmSync(path, { force: true });
    const options = `zone.mode=host-managed,zone.size=${zoneSize}`;
    this.#run(process.execPath, [this.#zcow, "create", "-q", "-f", "qcow2", "-o", options, path, String(size)]);
    return path;
  }

  /** All tables there, no data. */
  preallocated(size: number): string {
    const path = this.#path(`preallocated-${size}`);
    if (!existsSync(path)) this.#create(path, size, ["-o", "preallocation=metadata"]);
    return path;
  }

  /** Random, source text and no data, as a raw disk and as an image with the same contents; kept for all rounds. */
  mixed(size: number): { readonly raw: string; readonly qcow2: string } {
    const raw = join(this.directory, `mixed-${size}.raw`);
    const qcow2 = this.#path(`mixed-${size}`);
    if (!existsSync(raw)) writeMixedData(raw, size);
    if (!existsSync(qcow2)) this.#run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, qcow2]);
    return { raw, qcow2 };
  }

  /** A raw disk of one kind of data, or an image of the mixed one as the stock tool compresses it; kept for all rounds. */
  ofKind(kind: "text" | "half random" | "zlib" | "zstd", size: number): string {
    const path = join(this.directory, `${kind.replace(" ", "-")}-${size}.img`);
    if (existsSync(path)) return path;
    if (kind === "text") writeText(path, size);
    else if (kind === "half random") writeHalfRandom(path, size);
    else this.#run("qemu-img", [...compressing(kind), "-f", "raw", this.mixed(size).raw, path]);
    return path;
  }

  /** Reads the image once, so that every contestant finds it in the page cache. */
  warm(path: string): void {
    this.#run("cat", [path], "/dev/null");
  }

  #create(path: string, size: number, options: readonly string[]): void {
    this.#run("qemu-img", ["create", "-q", "-f", "qcow2", ...options, path, String(size)]);
  }

  #run(command: string, args: readonly string[], output?: string): void {
    if (output === undefined) run(command, args, false, this.directory);
    else run("sh", ["-c", `"$0" "$@" > ${output}`, command, ...args], false, this.directory);
  }

  #path(name: string): string {
    return join(this.directory, `${name}.qcow2`);
  }
}

/** The start of a command line that makes compressed images. */
export function compressing(method: "zlib" | "zstd"): string[] {
  return ["convert", "-c", "-O", "qcow2", ...(method === "zstd" ? ["-o", "compression_type=zstd"] : [])];
}
