/** What the stock tool says of the options that it can change, in its order. */
const AMEND_OPTIONS: readonly (readonly [name: string, type: string, help: string])[] = [
  ["backing_file", "str", "File name of a base image"],
  ["backing_fmt", "str", "Image format of the base image"],
  ["compat", "str", "Compatibility level (v2 [0.10] or v3 [1.1])"],
  ["data_file", "str", "File name of an external data file"],
  ["data_file_raw", "bool (on/off)", "The external data file must stay valid as a raw image"],
  ["encrypt.iter-time", "num", "Time to spend in PBKDF in milliseconds"],
  ["encrypt.keyslot", "num", "Select a single keyslot to modify explicitly"],
  ["encrypt.new-secret", "str", "New secret to set in the matching keyslots. Empty string to erase"],
  ["encrypt.old-secret", "str", "Select all keyslots that match this password"],
  ["encrypt.state", "str", "Select new state of affected keyslots (active/inactive)"],
  ["lazy_refcounts", "bool (on/off)", "Postpone refcount updates"],
  ["refcount_bits", "num", "Width of a reference count entry in bits"],
  ["size", "size", "Virtual disk size"],
];
const ZONE_OPTIONS: typeof AMEND_OPTIONS = [
  ["zone.layout", "str", "Layout of the zoned extension (allowed values: current)"],
];

/** Names of the options that the stock tool lists. */
export const STOCK_AMENDABLE: readonly string[] = AMEND_OPTIONS.map(([name]) => name);

const NAME_COLUMN = 24;

/** The list of `-o help`; the stock tool knows no zones. */
export function amendOptionHelp(stockOnly: boolean): string {
  const options = stockOnly ? AMEND_OPTIONS : [...AMEND_OPTIONS, ...ZONE_OPTIONS];
  return options.map(([name, type, help]) => `${`  ${name}=<${type}>`.padEnd(NAME_COLUMN)} - ${help}\n`).join("");
}
