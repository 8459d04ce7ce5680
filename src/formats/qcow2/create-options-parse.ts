import type { ErrorCode } from "../../base/error-codes.js";
import { ZcowError } from "../../base/errors.js";
import { parseSize } from "../../base/size-text.js";
import { type CreateQcow2Options, OPTION_SPECS, type OptionSpec } from "./create-options.js";

/**
 * Options of the stock tool whose features cannot be created yet, by the code that says so.
 */
const UNSUPPORTED_OPTIONS: Readonly<Record<string, ErrorCode>> = {
  backing_file: "UNSUPPORTED_BACKING_FILE",
  backing_fmt: "UNSUPPORTED_BACKING_FILE",
  compression_type: "UNSUPPORTED_COMPRESSION",
  data_file: "UNSUPPORTED_DATA_FILE",
  data_file_raw: "UNSUPPORTED_DATA_FILE",
  encryption: "UNSUPPORTED_ENCRYPTION",
  extended_l2: "UNSUPPORTED_EXTENDED_L2",
};
/** Values of those options that ask for nothing. */
const HARMLESS_VALUES: readonly string[] = ["zlib", "off", "no", "false", "n"];

/** One `name=value` of an option list, as written. */
interface Assignment {
  readonly name: string;
  readonly value: string;
}

/**
 * Parses the arguments of `-o`: `name=value` separated by commas, a comma in a value written twice, a name alone meaning
 * `on`, sizes with a suffix k, M, G, T, P or E. Of an option given more than once the last one holds.
 *
 * Throws `UNKNOWN_OPTION`, `INVALID_ARGUMENT`, and the `UNSUPPORTED_*` code of a feature that cannot be created.
 * Ranges are checked by `createQcow2`.
 */
export function parseCreateOptions(lists: string | readonly string[]): CreateQcow2Options {
  const assignments = (typeof lists === "string" ? [lists] : lists).flatMap(splitOptionList);
  const options: Record<string, unknown> = {};
  const zone: Record<string, unknown> = {};
  for (const { name, value } of assignments) {
    const found = findOption(name);
    if (found === undefined) {
      refuseUnknown(name, value);
      continue;
    }
    const [group, key] = found.spec.property.startsWith("zone.")
      ? [zone, found.spec.property.slice(5)]
      : [options, found.spec.property];
    group[key] = parseValue(found.spec, name, value, found.unit);
  }
  if (Object.keys(zone).length > 0) options["zone"] = zone;
  return options;
}

/** Splits one list at its single commas. Throws `INVALID_ARGUMENT` for a list that is empty or has an empty part at an end. */
function splitOptionList(list: string): Assignment[] {
  const items = partsOf(list);
  if (items.length === 0 || items[0] === "" || items.at(-1) === "") {
    throw new ZcowError("INVALID_ARGUMENT", `The option list '${list}' is empty or has an empty part`, {
      data: { option: "-o", value: list },
      stockText: `Invalid option list: ${list}`,
    });
  }
  return items.map((item) => {
    const equals = item.indexOf("=");
    return equals === -1 ? { name: item, value: "on" } : { name: item.slice(0, equals), value: item.slice(equals + 1) };
  });
}

/** The parts between single commas, with double commas made single. */
function partsOf(list: string): string[] {
  const parts: string[] = [];
  let part = "";
  for (let at = 0; at < list.length; at++) {
    const character = list[at] as string;
    if (character !== ",") part += character;
    else if (list[at + 1] === ",") {
      part += ",";
      at++;
    } else {
      parts.push(part);
      part = "";
    }
  }
  parts.push(part);
  return parts;
}

function findOption(name: string): { readonly spec: OptionSpec; readonly unit: number } | undefined {
  for (const spec of OPTION_SPECS) {
    if (spec.name === name) return { spec, unit: 1 };
    const alias = spec.aliases?.find((candidate) => candidate.name === name);
    if (alias !== undefined) return { spec, unit: alias.unit ?? 1 };
  }
  return undefined;
}

function refuseUnknown(name: string, value: string): void {
  const code = name.startsWith("encrypt.") ? "UNSUPPORTED_ENCRYPTION" : UNSUPPORTED_OPTIONS[name];
  if (code === undefined) {
    throw new ZcowError("UNKNOWN_OPTION", `qcow2 has no creation option '${name}'`, {
      data: { option: name, value },
      stockText: `Invalid parameter '${name}'`,
    });
  }
  if (HARMLESS_VALUES.includes(value)) return;
  throw new ZcowError(code, `Option ${name}=${value}: this feature is not supported yet`, {
    data: { option: name, value },
  });
}

function parseValue(spec: OptionSpec, name: string, text: string, unit: number): unknown {
  if (spec.type === "switch") return parseSwitch(name, text);
  if (spec.type === "choice") return parseChoice(spec, name, text);
  // Under a name that counts units, a size is a plain number of them.
  if (spec.type === "size" && unit === 1) return parseSizeOption(name, text);
  return parseNumberOption(name, text) * unit;
}

const SIZE_HINT =
  "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.";

function parseSizeOption(name: string, text: string): number {
  const size = parseSize(text);
  if (size !== undefined && size < 2 ** 64) return size;
  const stock = `Parameter '${name}' expects a non-negative number below 2^64\n${SIZE_HINT}`;
  throw invalid(name, text, "a size: a number of bytes, or one with a suffix k, M, G, T, P or E", stock);
}

function parseNumberOption(name: string, text: string): number {
  if (/^\s*[+-]?(\d+|0x[0-9a-f]+)$/i.test(text)) {
    const negative = text.trim().startsWith("-");
    const magnitude = Number(text.trim().replace(/^[+-]/, ""));
    return negative ? -magnitude : magnitude;
  }
  throw invalid(name, text, "a number", `Parameter '${name}' expects a number`);
}

function parseSwitch(name: string, text: string): boolean {
  if (["on", "yes", "true", "y"].includes(text)) return true;
  if (["off", "no", "false", "n"].includes(text)) return false;
  throw invalid(name, text, "'on' or 'off'", `Parameter '${name}' expects 'on' or 'off'`);
}

function parseChoice(spec: OptionSpec, name: string, text: string): string {
  const value = spec.choiceAliases?.[text] ?? text;
  if (spec.choices?.includes(value) === true) return value;
  const known = [...(spec.choices ?? []), ...Object.keys(spec.choiceAliases ?? {})];
  throw invalid(
    name,
    text,
    `one of ${known.join(", ")}`,
    `Parameter '${spec.stockParameter ?? name}' does not accept value '${text}'`,
  );
}

function invalid(name: string, value: string, expected: string, stockText: string): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", `Option ${name}: '${value}' is not ${expected}`, {
    data: { option: name, value, limit: expected },
    stockText,
  });
}
