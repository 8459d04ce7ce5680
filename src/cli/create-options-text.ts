import { parseSize } from "../base/size-text.js";
import { OPTION_SPECS, type OptionSpec } from "../formats/qcow2/create-options.js";

/** What `-o help` and the "Formatting" line need to know about an option. */
type ShownOption = Pick<OptionSpec, "name" | "type" | "help" | "aliases">;

const RAW_OPTIONS: readonly ShownOption[] = [{ name: "size", type: "size", help: "Virtual disk size" }];
/** Options of the file that an image is made in. */
const FILE_OPTIONS: readonly ShownOption[] = [
  { name: "extent_size_hint", type: "size", help: "Extent size hint for the image file, 0 to disable" },
  { name: "nocow", type: "switch", help: "Turn off copy-on-write (valid only on btrfs)" },
  { name: "preallocation", type: "choice", help: "Preallocation mode (allowed values: off, falloc, full)" },
];

/** Options of the stock tool in the order of its "Formatting" line; those with a value are always shown. */
const STOCK_ORDER: readonly (readonly [name: string, shown: string | undefined])[] = [
  ["encryption", undefined],
  ["encrypt.format", undefined],
  ["encrypt.key-secret", undefined],
  ["encrypt.cipher-alg", undefined],
  ["encrypt.cipher-mode", undefined],
  ["encrypt.ivgen-alg", undefined],
  ["encrypt.ivgen-hash-alg", undefined],
  ["encrypt.hash-alg", undefined],
  ["encrypt.iter-time", undefined],
  ["cluster_size", "65536"],
  ["extended_l2", "off"],
  ["preallocation", undefined],
  ["compression_type", "zlib"],
  ["size", undefined],
  ["compat", undefined],
  ["backing_file", undefined],
  ["backing_fmt", undefined],
  ["data_file", undefined],
  ["data_file_raw", undefined],
  ["lazy_refcounts", "off"],
  ["refcount_bits", "16"],
  ["nocow", undefined],
  ["extent_size_hint", undefined],
];
const STOCK_ORDER_RAW: typeof STOCK_ORDER = [
  ["size", undefined],
  ["nocow", undefined],
  ["preallocation", undefined],
  ["extent_size_hint", undefined],
];

const TYPE_NAMES: Readonly<Record<OptionSpec["type"], string>> = {
  size: "size",
  number: "num",
  switch: "bool (on/off)",
  choice: "str",
  secret: "str",
  text: "str",
};

const NAME_COLUMN = 24;

/** True when one of the lists of `-o` asks which options there are. */
export function asksForOptions(lists: readonly string[]): boolean {
  return lists.some((list) => list.split(",").some((item) => item === "help" || item === "?"));
}

/** The answer to `-o help`: with the options of the file when it is known which one. `stockOnly`: those of the stock tools. */
export function optionHelp(format: string, path: string | undefined, stockOnly: boolean): string {
  const own: readonly ShownOption[] = format === "qcow2" ? OPTION_SPECS : RAW_OPTIONS;
  const wanted = stockOnly ? own.filter(({ name }) => STOCK_NAMES.has(name)) : own;
  if (path !== undefined) return `Supported options:\n${list([...wanted, ...FILE_OPTIONS])}`;
  return (
    `Supported ${format} options:\n${list(wanted)}\n` +
    "The protocol level may support further options.\nSpecify the target filename to include those options.\n"
  );
}

const STOCK_NAMES: ReadonlySet<string> = new Set(STOCK_ORDER.map(([name]) => name));

/** In the order of names; of two with one name the first. */
function list(options: readonly ShownOption[]): string {
  const byName = new Map(options.toReversed().map((option) => [option.name, option]));
  return [...byName.values()]
    .toSorted((one, other) => (one.name < other.name ? -1 : 1))
    .map(({ name, type, help }) => `${`  ${name}=<${TYPE_NAMES[type]}>`.padEnd(NAME_COLUMN)} - ${help}\n`)
    .join("");
}

/**
 * The line that tells what is being made: every option that was given, and some that were not, in the order of the
 * stock tool; options of zoned images follow.
 */
export function formattingLine(
  path: string,
  format: string,
  given: readonly (readonly [name: string, value: string])[],
  size: number,
): string {
  const values = new Map(given);
  values.set("size", String(size));
  const order = format === "qcow2" ? STOCK_ORDER : STOCK_ORDER_RAW;
  const shown = order.flatMap(([name, always]) => {
    const value = values.get(name) ?? always;
    return value === undefined ? [] : [`${name}=${plainValue(name, value)}`];
  });
  const known = new Set(order.map(([name]) => name));
  for (const [name, value] of values) if (!known.has(name)) shown.push(`${name}=${plainValue(name, value)}`);
  return `Formatting '${path}', fmt=${format} ${shown.join(" ")}\n`;
}

/** Sizes appear as numbers of bytes, everything else as it was written. */
function plainValue(name: string, value: string): string {
  const spec = [...OPTION_SPECS, ...FILE_OPTIONS].find(
    (option) => option.name === name || option.aliases?.some((alias) => alias.name === name),
  );
  const scaled = spec?.aliases?.some((alias) => alias.name === name && alias.unit !== undefined) ?? false;
  if (spec?.type === "text") return value.replaceAll(",", ",,");
  return spec?.type === "size" && !scaled ? String(parseSize(value) ?? value) : value;
}
