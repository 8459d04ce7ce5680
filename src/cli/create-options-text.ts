import { parseSize } from "../base/size-text.js";
import { OPTION_SPECS, type OptionSpec } from "../formats/qcow2/create-options.js";

/** What `-o help` and the "Formatting" line need to know about an option. */
type ShownOption = Pick<OptionSpec, "name" | "type" | "help" | "aliases">;

const RAW_OPTIONS: readonly ShownOption[] = [
  {
    name: "preallocation",
    type: "choice",
    help: "Preallocation mode (allowed values: off, falloc, full)",
  },
  { name: "size", type: "size", help: "Virtual disk size" },
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
];
const STOCK_ORDER_RAW: typeof STOCK_ORDER = [
  ["size", undefined],
  ["preallocation", undefined],
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

/** The options of a format, or those called `names`, as the stock tools list them. */
export function optionHelp(format: string, names?: readonly string[]): string {
  const options: readonly ShownOption[] = format === "qcow2" ? OPTION_SPECS : RAW_OPTIONS;
  return options
    .filter(({ name }) => names?.includes(name) ?? true)
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
  const spec = OPTION_SPECS.find(
    (option) => option.name === name || option.aliases?.some((alias) => alias.name === name),
  );
  const scaled = spec?.aliases?.some((alias) => alias.name === name && alias.unit !== undefined) ?? false;
  if (spec?.type === "text") return value.replaceAll(",", ",,");
  return spec?.type === "size" && !scaled ? String(parseSize(value) ?? value) : value;
}
