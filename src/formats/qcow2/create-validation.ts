import { ZcowError } from "../../base/errors.js";
import { alignUp, ceilDiv, isPowerOfTwo } from "../../base/integers.js";
import { SECTOR_SIZE } from "../../base/units.js";
import { planFiles } from "./create-files.js";
import type { Preallocation } from "./create-layout.js";
import {
  type CreateQcow2Options,
  describeValue,
  OPTION_SPECS,
  type OptionSpec,
  optionValue,
} from "./create-options.js";
import { type Qcow2Geometry, qcow2Geometry } from "./geometry.js";
import { MAX_L1_BYTES, MIN_EXTENDED_L2_CLUSTER_BITS, TABLE_ENTRY_BYTES } from "./limits.js";

/** A new image with every default filled in, checked. */
export interface ImagePlan {
  readonly geometry: Qcow2Geometry;
  readonly lazyRefcounts: boolean;
  readonly preallocation: Preallocation;
  /** As the header has it: 0 is zlib, 1 is zstd. */
  readonly compressionType: number;
  readonly backing: { readonly name: string; readonly format: string | undefined } | undefined;
  readonly dataFile: { readonly name: string; readonly isRaw: boolean; readonly keep: boolean } | undefined;
}

const DEFAULT_CLUSTER_SIZE = 65_536;
const DEFAULT_REFCOUNT_BITS = 16;

/**
 * Fills in the defaults and checks everything but the zones. Throws `INVALID_ARGUMENT` naming the option, its value and
 * the limit, with the words of the stock tool where it refuses the same.
 */
export function planOptions(options: CreateQcow2Options): ImagePlan {
  for (const spec of OPTION_SPECS) checkValue(spec, optionValue(options, spec.property));
  const clusterSize = options.clusterSize ?? DEFAULT_CLUSTER_SIZE;
  const refcountBits = options.refcountBits ?? DEFAULT_REFCOUNT_BITS;
  const version = options.compat === "0.10" ? 2 : 3;
  const lazyRefcounts = options.lazyRefcounts ?? false;
  const extendedL2 = options.extendedL2 ?? false;
  if (extendedL2) checkExtended(version, clusterSize);
  const compressionType = options.compressionType === "zstd" ? 1 : 0;
  if (version === 2) checkVersion2(refcountBits, lazyRefcounts, compressionType);
  if (options.size === undefined) {
    throw new ZcowError("INVALID_ARGUMENT", "Option size is missing; a new image needs the size of its disk", {
      data: { option: "size" },
      stockText: "Image creation needs a size parameter",
    });
  }
  const files = planFiles(options, version, extendedL2);
  const geometry = qcow2Geometry({
    size: alignUp(options.size, SECTOR_SIZE),
    version,
    clusterBits: Math.log2(clusterSize),
    refcountOrder: Math.log2(refcountBits),
    extendedL2,
    externalData: files.dataFile !== undefined,
  });
  checkSize(geometry);
  return { geometry, lazyRefcounts, preallocation: preallocationOf(options), compressionType, ...files };
}

/** A raw data file must have all its clusters mapped, or it would not show what is in it. Zones map theirs as they are written. */
function preallocationOf({ preallocation = "off", dataFileRaw, zone }: CreateQcow2Options): Preallocation {
  return dataFileRaw === true && preallocation === "off" && zone?.mode !== "host-managed" ? "metadata" : preallocation;
}

const SIZE_TOO_LARGE = "The image size is too large for file format 'qcow2' (try using a larger cluster size)";

/** The words of the stock tool for a value out of range. */
const RANGE_TEXT: Readonly<Record<string, string>> = {
  cluster_size: "Cluster size must be a power of two between 512 and 2048k",
  refcount_bits: "Refcount width must be a power of two and may not exceed 64 bits",
  size: SIZE_TOO_LARGE,
};

function checkValue(spec: OptionSpec, value: unknown): void {
  if (value === undefined) return;
  if (spec.type === "switch") {
    if (typeof value !== "boolean") throw invalid(spec, value, "true or false");
    return;
  }
  if (spec.type === "secret") {
    const isSecret = typeof value === "string" || typeof value === "function" || value instanceof Uint8Array;
    // The value itself is never shown.
    if (!isSecret) throw invalid(spec, typeof value, "text, bytes, or a function that gives them");
    return;
  }
  if (spec.type === "text") {
    if (typeof value !== "string") throw invalid(spec, value, "a text");
    return;
  }
  if (spec.type === "choice") {
    if (typeof value !== "string" || spec.choices?.includes(value) !== true)
      throw invalid(spec, value, `one of ${(spec.choices ?? []).join(", ")}`);
    return;
  }
  const minimum = spec.minimum ?? 0;
  const maximum = spec.maximum ?? Number.MAX_SAFE_INTEGER;
  const isWhole = typeof value === "number" && Number.isSafeInteger(value);
  if (!isWhole || value < minimum || value > maximum || (spec.powerOfTwo === true && !isPowerOfTwo(value))) {
    const kind = spec.powerOfTwo === true ? "a power of two" : "a whole number";
    throw invalid(spec, value, `${kind} from ${minimum} to ${maximum}`);
  }
}

function invalid(spec: OptionSpec, value: unknown, expected: string): ZcowError {
  const stockText = RANGE_TEXT[spec.name];
  return new ZcowError("INVALID_ARGUMENT", `Option ${spec.name}: ${describeValue(value)} is not ${expected}`, {
    data: { option: spec.name, value: describeValue(value), limit: expected },
    ...(stockText === undefined ? {} : { stockText }),
  });
}

function checkExtended(version: 2 | 3, clusterSize: number): void {
  if (version === 2) {
    throw new ZcowError("INVALID_ARGUMENT", "Option extended_l2: on needs compat 1.1, but compat is 0.10", {
      data: { option: "extended_l2", value: true, limit: "1.1" },
      stockText:
        "Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)",
    });
  }
  const minimum = 2 ** MIN_EXTENDED_L2_CLUSTER_BITS;
  if (clusterSize >= minimum) return;
  throw new ZcowError(
    "INVALID_ARGUMENT",
    `Option extended_l2: on needs clusters of at least ${minimum} bytes, but cluster_size is ${clusterSize}`,
    {
      data: { option: "extended_l2", value: true, limit: minimum },
      stockText: `Extended L2 entries are only supported with cluster sizes of at least ${minimum} bytes`,
    },
  );
}

function checkVersion2(refcountBits: number, lazyRefcounts: boolean, compressionType: number): void {
  if (lazyRefcounts) {
    throw new ZcowError("INVALID_ARGUMENT", "Option lazy_refcounts: on needs compat 1.1, but compat is 0.10", {
      data: { option: "lazy_refcounts", value: true, limit: "1.1" },
      stockText: "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)",
    });
  }
  if (refcountBits !== DEFAULT_REFCOUNT_BITS) {
    throw new ZcowError(
      "INVALID_ARGUMENT",
      `Option refcount_bits: ${refcountBits} needs compat 1.1, but compat is 0.10, which has ${DEFAULT_REFCOUNT_BITS}`,
      {
        data: { option: "refcount_bits", value: refcountBits, limit: DEFAULT_REFCOUNT_BITS },
        stockText:
          "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)",
      },
    );
  }
  if (compressionType === 0) return;
  throw new ZcowError("INVALID_ARGUMENT", "Option compression_type: zstd needs compat 1.1, but compat is 0.10", {
    data: { option: "compression_type", value: "zstd", limit: "1.1" },
    stockText:
      "Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)",
  });
}

function checkSize(geometry: Qcow2Geometry): void {
  const maxEntries = MAX_L1_BYTES / TABLE_ENTRY_BYTES;
  const needed = ceilDiv(geometry.size, geometry.l2Coverage);
  if (needed <= maxEntries) return;
  const limit = maxEntries * geometry.l2Coverage;
  throw new ZcowError(
    "INVALID_ARGUMENT",
    `Option size: ${geometry.size} is above ${limit}, the largest disk with clusters of ${geometry.clusterSize} bytes`,
    {
      data: { option: "size", value: geometry.size, limit },
      stockText: SIZE_TOO_LARGE,
    },
  );
}
