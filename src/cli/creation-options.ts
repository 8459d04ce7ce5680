import { isZcowError, ZcowError } from "../base/errors.js";
import { parseSize } from "../base/size-text.js";
import { type CreateImageOptions, requireCreatable } from "../formats/create-image.js";
import { OPTION_SPECS } from "../formats/qcow2/create-options.js";
import { parseCreateOptions, type SecretLookup } from "../formats/qcow2/create-options-parse.js";
import { RAW_PREALLOCATIONS, type RawPreallocation } from "../formats/raw/create.js";
import { asksForOptions } from "./create-options-text.js";
import { splitOptionList } from "./image-options.js";

/** One `NAME=VALUE` of `-o`. */
export type Assignment = readonly [name: string, value: string];

/** What the options make, or why they make nothing. */
export type ParsedCreation = { readonly options: CreateImageOptions } | { readonly refusal: unknown };

/** All assignments of the lists of `-o`; lists that ask which options there are have none. */
export function givenAssignments(lists: readonly string[]): Assignment[] {
  return lists.flatMap((list) => (asksForOptions([list]) ? [] : splitOptionList(list)));
}

/** Fails as the stock tool does when there is no format of that name to make images in. */
export function requireFileFormat(format: string): void {
  try {
    requireCreatable(format);
  } catch (error) {
    throw isZcowError(error, "FORMAT_UNKNOWN") ? unknownFileFormat(error, format) : error;
  }
}

/** The words of the stock tool where a format is named that is not to be recognised, but made or changed. */
export function unknownFileFormat(error: ZcowError, format: string): ZcowError {
  return new ZcowError(error.code, error.message, {
    data: error.data,
    stockText: `Unknown file format '${format}'`,
  });
}

/**
 * The creation options of `format`; a refusal is for the caller to throw, once it has said what it is about to do. `backing`: what options of their
 * own say of the backing file, where {@link requireBackable} finds nothing wrong with that.
 */
export function parseCreationOptions(
  format: string,
  all: readonly Assignment[],
  secretOf: SecretLookup,
  backing: readonly Assignment[] = [],
): ParsedCreation {
  const given = withoutFileAdvice(all);
  if (format !== "raw") return parseQcow2Options([...given, ...backing], secretOf);
  return parseRawOptions(given);
}

/** Fails when `backing` says something of a backing file and disks of `format` have none. */
export function requireBackable(format: string, [first]: readonly Assignment[]): void {
  if (format !== "raw" || first === undefined) return;
  const [name, value] = first;
  const isFile = name === "backing_file";
  throw new ZcowError("UNSUPPORTED_BACKING_FILE", `raw disks have no backing ${isFile ? "file" : "format"}`, {
    data: { option: name, value },
    stockText: `Backing file ${isFile ? "" : "format "}not supported for file format 'raw'`,
  });
}

/**
 * Takes out what the stock tools pass on to file systems that have use for it: `nocow` is for btrfs, `extent_size_hint` for XFS. Neither changes
 * what the image holds, and none is passed on here.
 */
function withoutFileAdvice(given: readonly Assignment[]): readonly Assignment[] {
  return given.filter(([name, value]) => {
    if (name === "nocow") {
      if (!SWITCH_VALUES.includes(value)) throw notASwitch(name, value);
    } else if (name === "extent_size_hint") {
      if (parseSize(value) === undefined) throw notASize(name, value);
    } else {
      return true;
    }
    return false;
  });
}

const SWITCH_VALUES = ["on", "yes", "true", "y", "off", "no", "false", "n"];

/** A choice that does not exist is told about after the "Formatting" line, everything else at once. */
function parseQcow2Options(given: readonly Assignment[], secretOf: SecretLookup): ParsedCreation {
  const lists = given.map(([name, value]) => `${name}=${value.replaceAll(",", ",,")}`);
  try {
    return { options: { format: "qcow2", ...parseCreateOptions(lists, secretOf) } };
  } catch (error) {
    const option = isZcowError(error, "INVALID_ARGUMENT") ? error.data.option : undefined;
    const isChoice = OPTION_SPECS.some((spec) => spec.name === option && spec.type === "choice");
    if (!isChoice) throw error;
    return { refusal: error };
  }
}

function parseRawOptions(given: readonly Assignment[]): ParsedCreation {
  let preallocation: RawPreallocation = "off";
  for (const [name, value] of given) {
    if (name === "preallocation") {
      const known = RAW_PREALLOCATIONS.find((candidate) => candidate === value);
      if (known === undefined) return { refusal: notAccepted(name, value) };
      preallocation = known;
    } else if (name !== "size") {
      throw new ZcowError("UNKNOWN_OPTION", `raw has no creation option '${name}'`, {
        data: { option: name, value },
        stockText: `Invalid parameter '${name}'`,
      });
    } else if (parseSize(value) === undefined) {
      throw notASize(name, value);
    }
  }
  return { options: { format: "raw", size: 0, preallocation } };
}

function notAccepted(name: string, value: string): ZcowError {
  return new ZcowError(
    "INVALID_ARGUMENT",
    `option ${name}: '${value}' is not one of ${RAW_PREALLOCATIONS.join(", ")}`,
    {
      data: { option: name, value },
      // Known to the stock tool, of formats that have tables.
      stockText:
        value === "metadata" ? "Unsupported preallocation mode: metadata" : `invalid parameter value: ${value}`,
    },
  );
}

function notASwitch(option: string, value: string): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", `option ${option}: '${value}' is neither 'on' nor 'off'`, {
    data: { option, value },
    stockText: `Parameter '${option}' expects 'on' or 'off'`,
  });
}

function notASize(option: string, value: string): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", `option ${option}: '${value}' is not a size`, {
    data: { option, value },
    stockText:
      `Parameter '${option}' expects a non-negative number below 2^64\n` +
      "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.",
  });
}
