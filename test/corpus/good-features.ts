import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import type { FormatName } from "../../src/formats/registry.js";

/** The good images of `good/`: one for each feature and format, made by the stock tools (`good/make.sh`). */
export interface GoodFeature {
  readonly name: string;
  readonly format: FormatName;
  readonly feature: string;
  readonly passphrase: string | undefined;
  /** Of the disk, bytes. */
  readonly size: number;
  /** SHA-256 of the whole disk, as the stock tool reads it. */
  readonly sha256: string;
  /** The image, and the files that it stands on. */
  readonly files: readonly [main: string, ...others: string[]];
}

const FOLDER = join(import.meta.dirname, "good");

export const GOOD_FEATURES: readonly GoodFeature[] = readFileSync(join(FOLDER, "index.tsv"), "utf8")
  .trim()
  .split("\n")
  .map((line) => {
    const [name = "", format = "", feature = "", passphrase = "", size = "", sha256 = "", files = ""] = line.split("\t");
    const [main = "", ...others] = files.split(" ");
    return {
      name,
      format: format as FormatName,
      feature,
      passphrase: passphrase === "-" ? undefined : passphrase,
      size: Number(size),
      sha256,
      files: [main, ...others],
    };
  });

/** The bytes of a file of the corpus. */
export function corpusFile(name: string): Uint8Array {
  return new Uint8Array(gunzipSync(readFileSync(join(FOLDER, `${name}.gz`))));
}
