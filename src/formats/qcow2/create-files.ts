import { ZcowError } from "../../base/errors.js";
import type { CreateQcow2Options } from "./create-options.js";
import type { ImagePlan } from "./create-validation.js";
import { encodeFileName } from "./file-name.js";
import { MAX_BACKING_FORMAT_BYTES, MAX_BACKING_NAME_BYTES } from "./limits.js";

/** The files beside a new image as its options have them, checked against each other and the other options. */
export function planFiles(
  options: CreateQcow2Options,
  version: 2 | 3,
  extendedL2: boolean,
): Pick<ImagePlan, "backing" | "dataFile"> {
  return { backing: planBacking(options, extendedL2), dataFile: planDataFile(options, version) };
}

function planBacking(
  { backingFile: name, backingFormat: format, preallocation = "off" }: CreateQcow2Options,
  extendedL2: boolean,
): ImagePlan["backing"] {
  if (name === undefined) {
    if (format === undefined) return undefined;
    throw refused("backing_fmt", format, "it needs backing_file", "Backing format cannot be used without backing file");
  }
  if (name === "") throw refused("backing_file", name, "it is empty", "Expected backing file name, got empty string");
  const tooLong = `Could not assign backing file '${name}' with format '${format ?? ""}': Invalid argument`;
  if (encodeFileName(name).length > MAX_BACKING_NAME_BYTES) {
    throw refused("backing_file", name, `it is longer than ${MAX_BACKING_NAME_BYTES} bytes`, tooLong);
  }
  if (format !== undefined && encodeFileName(format).length > MAX_BACKING_FORMAT_BYTES) {
    throw refused("backing_fmt", format, `it is longer than ${MAX_BACKING_FORMAT_BYTES} bytes`, tooLong);
  }
  if (preallocation !== "off" && !extendedL2) {
    const stockText = "Backing file and preallocation can only be used at the same time if extended_l2 is on";
    throw refused("preallocation", preallocation, "with backing_file it would hide it, without extended_l2", stockText);
  }
  return { name, format };
}

function planDataFile(options: CreateQcow2Options, version: 2 | 3): ImagePlan["dataFile"] {
  const { dataFile: name, dataFileRaw: isRaw = false, keepDataFile: keep = false } = options;
  if (name === undefined) {
    if (isRaw) throw refused("data_file_raw", "on", "it needs data_file", "data-file-raw requires data-file");
    if (keep) throw refused("keep_data_file", "on", "it needs data_file");
    return undefined;
  }
  if (version === 2) {
    throw refused(
      "data_file",
      name,
      "it needs compat 1.1, but compat is 0.10",
      "External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)",
    );
  }
  if (name === "") throw refused("data_file", name, "it is empty");
  if (isRaw && options.backingFile !== undefined) {
    const stockText = "Backing file and data-file-raw cannot be used at the same time";
    throw refused("data_file_raw", "on", "a raw disk has no backing_file", stockText);
  }
  return { name, isRaw, keep };
}

function refused(option: string, value: string, reason: string, stockText?: string): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", `Option ${option}: ${value} cannot be used: ${reason}`, {
    data: { option, value },
    ...(stockText === undefined ? {} : { stockText }),
  });
}
