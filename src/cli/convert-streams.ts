import { createReadStream, fstatSync, write } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { ZcowError } from "../base/errors.js";
import { alignUp } from "../base/integers.js";
import { SECTOR_SIZE } from "../base/units.js";
import type { BlockDevice } from "../block/block-device.js";
import type { PassphraseSource } from "../block/passphrase.js";
import type { CreateImageOptions } from "../formats/create-image.js";
import { JoinedDisk } from "../jobs/convert/joined-disk.js";
import { copyFromStream } from "../jobs/convert/stream-in.js";
import { type ByteSink, streamQcow2, streamRaw } from "../jobs/convert/stream-out.js";
import { resizeImage } from "../jobs/resize.js";
import type { Assignment } from "./creation-options.js";
import { BROKEN_PIPE_STATUS } from "./output.js";
import { UsageError } from "./usage-error.js";

/** Stands for standard input as a source, and for standard output as the target. */
export const STREAM_NAME = "-";

const STDIN = 0;
const STDOUT = 1;
const READ_BYTES = 1024 * 1024;
const RETRY_MILLISECONDS = 2;
/** What a qcow2 image can have that is sent in one go. */
const STREAMED_OPTIONS = new Set(["cluster_size", "compat"]);

/** Standard input by a name that can be opened, when it is a file: then it is a source like any other. */
export function inputFile(): string | undefined {
  return fstatSync(STDIN).isFile() ? `/proc/self/fd/${STDIN}` : undefined;
}

/** Sends `sources` to standard output as `format`. */
export async function sendToOutput(
  sources: readonly BlockDevice[],
  format: string,
  options: CreateImageOptions,
): Promise<void> {
  const source = new JoinedDisk(sources);
  if (format === "raw" || options.format === "raw") await streamRaw(source, output);
  else await streamQcow2(source, options, output);
}

export function requireStreamable(format: string, given: readonly Assignment[]): void {
  const refused = given.find(([name]) => name !== "size" && (format === "raw" || !STREAMED_OPTIONS.has(name)));
  if (refused === undefined) return;
  throw new UsageError(`Option '${refused[0]}' cannot be had for an image that goes to standard output`, false);
}

/** The target of what standard input brings: opened and sized by the caller's functions. */
export interface InputTarget {
  readonly path: string;
  readonly format: "raw" | "qcow2";
  readonly passphrase: PassphraseSource | undefined;
  readonly open: () => Promise<BlockDevice>;
}

/** Writes what standard input brings into a new image of size 0. */
export async function takeFromInput(
  { path, format, passphrase, open }: InputTarget,
  options: { readonly compressed: boolean; readonly sparseBytes: number | undefined },
): Promise<void> {
  let device = await open();
  const disk = {
    get device(): BlockDevice {
      return device;
    },
    async resize(size: number): Promise<void> {
      await device.close();
      const whole = format === "qcow2" ? alignUp(size, SECTOR_SIZE) : size;
      if (whole !== device.size)
        await resizeImage(path, { format, size: whole, shrink: true, implicitFiles: "allow", passphrase });
      device = await open();
    },
  };
  try {
    await copyFromStream(
      createReadStream("", { fd: STDIN, highWaterMark: READ_BYTES, autoClose: false }),
      disk,
      options,
    );
    await device.flush();
  } finally {
    await device.close();
  }
}

const output: ByteSink = async (bytes) => {
  for (let done = 0; done < bytes.length; ) done += await writeSome(bytes.subarray(done));
};

/** A pipe that is shared with another program may be non-blocking, and full for the moment. */
async function writeSome(bytes: Uint8Array): Promise<number> {
  const result = await new Promise<number | NodeJS.ErrnoException>((resolve) => {
    write(STDOUT, bytes, (error, count) => resolve(error ?? count));
  });
  if (typeof result === "number") return result;
  if (result.code === "EAGAIN") {
    await delay(RETRY_MILLISECONDS);
    return 0;
  }
  if (result.code === "EPIPE") process.exit(BROKEN_PIPE_STATUS);
  const full = result.code === "ENOSPC";
  throw new ZcowError(
    full ? "NO_SPACE" : "IO_ERROR",
    `cannot write to standard output: ${full ? "no space left on the device" : String(result.code)}`,
    { cause: result },
  );
}
