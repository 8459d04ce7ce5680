import { ZcowError } from "../../base/errors.js";
import { splitOptionList } from "../../base/option-list.js";
import { parseSize } from "../../base/size-text.js";
import type { PassphraseSource } from "../../block/passphrase.js";
import { type CreateQcow2Options, OPTION_SPECS, type OptionSpec } from "./create-options.js";

/**
 * Parses the arguments of `-o`: `name=value` separated by commas, a comma in a value written twice, a name alone meaning
 * `on` (behind "no": `off`), sizes with a suffix k, M, G, T, P or E. Of an option given more than once the last one holds.
 *
 * `secretOf` finds the passphrases that options name. Throws `UNKNOWN_OPTION`, `INVALID_ARGUMENT` and `SECRET`.
 * Ranges are checked by `createQcow2`.
 */
export function parseCreateOptions(
  lists: string | readonly string[],
  secretOf: SecretLookup = noSecret,
): CreateQcow2Options {
  const assignments = (typeof lists === "string" ? [lists] : lists).flatMap(assignmentsOf);
  const options: Record<string, unknown> = {};
  const groups = new Map<string, Record<string, unknown>>();
  for (const [name, value] of assignments) {
    const found = findOption(name);
    if (found === undefined) throw unknownOption(name, value);
    const parsed = found.spec.type === "secret" ? secretOf(value) : parseValue(found.spec, name, value, found.unit);
    const [group, key] = found.spec.property.split(".") as [string, string | undefined];
    if (key === undefined) {
      options[group] = parsed;
    } else {
      const values = groups.get(group) ?? {};
      values[key] = parsed;
      groups.set(group, values);
    }
  }
  return { ...options, ...Object.fromEntries(groups) };
}

/** The passphrase of the secret called `id`; whether there is one may turn out when it is asked for. */
export type SecretLookup = (id: string) => PassphraseSource;

function noSecret(id: string): never {
  throw new ZcowError("SECRET", `There is no secret '${id}': no secrets were given`, {
    data: { option: "encrypt.key-secret", value: id },
    stockText: `No secret with id '${id}'`,
  });
}

function assignmentsOf(list: string): [name: string, value: string][] {
  const assignments = splitOptionList(list);
  if (assignments !== undefined) return assignments;
  throw new ZcowError("INVALID_ARGUMENT", `The option list '${list}' is empty or has an empty part at an end`, {
    data: { option: "-o", value: list },
    stockText: `Invalid option list: ${list}`,
  });
}

function findOption(name: string): { readonly spec: OptionSpec; readonly unit: number } | undefined {
  for (const spec of OPTION_SPECS) {
    if (spec.name === name) return { spec, unit: 1 };
    const alias = spec.aliases?.find((candidate) => candidate.name === name);
    if (alias !== undefined) return { spec, unit: alias.unit ?? 1 };
  }
  return undefined;
}

function unknownOption(name: string, value: string): ZcowError {
  return new ZcowError("UNKNOWN_OPTION", `qcow2 has no creation option '${name}'`, {
    data: { option: name, value },
    stockText: `Invalid parameter '${name}'`,
  });
}

function parseValue(spec: OptionSpec, name: string, text: string, unit: number): unknown {
  if (spec.type === "text") return text;
  if (spec.type === "switch") return parseSwitch(name, text);
  if (spec.type === "choice") return parseChoice(spec, name, text);
  // Under a name that counts units, a size is a plain number of them.
  if (spec.type === "size" && unit === 1) return parseSizeOption(name, text);
  return parseNumberOption(name, text) * unit;
}

const TWO_64 = 2 ** 64;
const SIZE_HINT =
  "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.";

function parseSizeOption(name: string, text: string): number {
  const size = parseSize(text);
  if (size !== undefined && size < TWO_64) return size;
  if (size !== undefined) {
    throw invalid(name, text, "below 2^64", `Value '${text}' is out of range for parameter '${name}'`);
  }
  const stock = `Parameter '${name}' expects a non-negative number below 2^64\n${SIZE_HINT}`;
  throw invalid(name, text, "a size: a number of bytes, or one with a suffix k, M, G, T, P or E", stock);
}

function parseNumberOption(name: string, text: string): number {
  if (/^\s*[+-]?(\d+|0x[0-9a-f]+)$/i.test(text)) {
    const negative = text.trim().startsWith("-");
    const magnitude = Number(text.trim().replace(/^[+-]/, ""));
    if (magnitude >= TWO_64) {
      throw invalid(name, text, "below 2^64", `Value '${text}' is too large for parameter '${name}'`);
    }
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
  const alias = Object.entries(spec.choiceAliases ?? {}).find(([word]) => word === text)?.[1];
  const value = alias ?? text;
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
