import { isZcowError, ZcowError } from "../../base/errors.js";
import { OPTION_SPECS } from "../../formats/qcow2/create-options.js";
import { parseCreateOptions } from "../../formats/qcow2/create-options-parse.js";
import { formatDriver } from "../../formats/registry.js";
import { type AmendImageOptions, amendImage } from "../../jobs/amend.js";
import type { ImageInfo } from "../../jobs/info.js";
import { amendOptionHelp, STOCK_AMENDABLE } from "../amend-options-text.js";
import { givenCacheMode } from "../cache-mode.js";
import { commandArguments } from "../command-arguments.js";
import {
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  OBJECT_OPTION,
  PROGRESS_OPTION,
  QUIET_OPTION,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { asksForOptions } from "../create-options-text.js";
import { unknownFileFormat } from "../creation-options.js";
import { withSubject } from "../failure.js";
import { splitOptionList } from "../image-options.js";
import { describeToChange } from "../image-to-change.js";
import { keySlotChange } from "../key-slot-options.js";
import type { CommandManual } from "../manual.js";
import { type ImageSource, type NamedImage, namedImage, withSource } from "../named-image.js";
import { allValues, isGiven, lastValue, saying } from "../options.js";
import { ProgressLine } from "../progress.js";
import { UsageError } from "../usage-error.js";

export const AMEND_MANUAL: CommandManual = {
  name: "amend",
  synopsis: ["[-f FORMAT] -o NAME=VALUE[,...] [-o ...] [-p] [-q] FILE"],
  about: ["Changes options of an image in place."],
  options: [
    {
      name: "options",
      short: "o",
      value: "NAME=VALUE[,...]",
      about: "may be repeated; '-o help' lists the options",
    },
    {
      name: "force",
      long: "force",
      about: "replace a key slot in use, or erase the last one: its data are lost then",
    },
    saying(OBJECT_OPTION, "secret,id=ID,data=TEXT or file=PATH: a passphrase"),
    IMAGE_OPTS_OPTION,
    saying(FORMAT_OPTION, "qcow2; recognised by content when left out"),
    PROGRESS_OPTION,
    {
      name: "cache",
      short: "t",
      value: "MODE",
      about: "cache mode: none, writeback, unsafe, directsync or writethrough",
    },
    QUIET_OPTION,
    HELP_OPTION,
  ],
};

const LAYOUT = "zone.layout";

export async function amendCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, AMEND_MANUAL, context);
  if (parsed === undefined) return 0;
  const lists = allValues(parsed, "options");
  if (lists.length === 0) throw new UsageError("Must specify options (-o)");
  const wantsHelp = asksForOptions(lists);
  const format = lastValue(parsed, "format");
  if (wantsHelp && format !== undefined) {
    requireKnown(format);
    if (format !== "qcow2") throw notAmendable(format, format);
    return printHelp(context);
  }
  const given = wantsHelp ? [] : lists.flatMap((list) => splitOptionList(list));
  if (parsed.positionals.length !== 1) throw new UsageError("Expecting one image file name", false);
  givenCacheMode(lastValue(parsed, "cache"));
  const secretOf = await givenSecrets(parsed);
  const image = namedImage(parsed, secretOf);
  const line = new ProgressLine(context, isGiven(parsed, "progress") && !isGiven(parsed, "quiet") && !wantsHelp);
  const work = withSource(image, "write", context, async (found) => {
    const info = await amendableInfo(found, image, context);
    if (wantsHelp) return;
    const options = new Map<string, string>();
    for (const [name, value] of given) {
      checkOption(name, value);
      options.set(name, value);
    }
    const encrypt = keySlotChange(options, secretOf, isGiven(parsed, "force"));
    refuseBacking(info, options);
    line.start();
    const onProgress = (done: number): void => line.report(done, 1);
    await amend(found, image, { ...parseOptions(options), encrypt, onProgress });
  });
  await line.during(work);
  line.finish();
  return wantsHelp ? printHelp(context) : 0;
}

function requireKnown(format: string): void {
  try {
    formatDriver(format);
  } catch (error) {
    throw isZcowError(error, "FORMAT_UNKNOWN") ? unknownFileFormat(error, format) : error;
  }
}

function printHelp(context: CommandContext): number {
  context.output.out(`Amend options for 'qcow2':\n${amendOptionHelp(context.standIn)}`);
  return 0;
}

/** The format is told about before the options, as in the stock tool. */
async function amendableInfo(found: ImageSource, image: NamedImage, context: CommandContext): Promise<ImageInfo> {
  const info = await describeToChange(found, image, context, image.forceShare);
  if (info.qcow2 !== undefined) return info;
  throw notAmendable(image.name, info.format);
}

function notAmendable(path: string, format: string): ZcowError {
  return new ZcowError("AMEND_UNSUPPORTED", `${path} is ${format}, which has no options to change`, {
    data: { path, value: format },
    stockText: `Format driver '${format}' does not support option amendment`,
  });
}

async function amend(
  { source, format, passphrase }: ImageSource,
  image: NamedImage,
  options: Omit<AmendImageOptions, "format">,
): Promise<void> {
  try {
    await amendImage(source, { format, passphrase, implicitFiles: "allow", ...options });
  } catch (error) {
    throw error instanceof ZcowError && (error.category === "storage" || error.code.startsWith("PASSPHRASE"))
      ? withSubject(`Could not open '${image.name}'`, error)
      : error;
  }
}

function checkOption(name: string, value: string): void {
  const data = { option: name, value };
  if (name === LAYOUT) {
    if (value === "current") return;
    throw new ZcowError("INVALID_ARGUMENT", `an image can be converted to ${LAYOUT}=current only, not to '${value}'`, {
      data,
    });
  }
  if (STOCK_AMENDABLE.includes(name)) return;
  const creatable =
    CREATION_ONLY.includes(name) ||
    name.startsWith("encrypt.") ||
    OPTION_SPECS.some((spec) => spec.name === name || spec.aliases?.some((alias) => alias.name === name));
  throw new ZcowError(
    "UNKNOWN_OPTION",
    creatable ? `option '${name}' is fixed when an image is created` : `qcow2 has no option '${name}'`,
    {
      data,
      stockText: `Invalid parameter '${name}'${creatable ? "\nThis option is only supported for image creation" : ""}`,
    },
  );
}

/** Options of creation in the stock tool, whether they can be created here or not. */
const CREATION_ONLY = ["cluster_size", "compression_type", "encryption", "extended_l2", "preallocation"];

/** As in the stock tool: the backing file is not one of the options, although it is listed. */
function refuseBacking(info: ImageInfo, options: ReadonlyMap<string, string>): void {
  const changes = (name: string, present: string | undefined): boolean => {
    const wanted = options.get(name);
    return wanted !== undefined && wanted !== present;
  };
  if (!changes("backing_file", info.backingFile) && !changes("backing_fmt", info.backingFormat)) return;
  throw new ZcowError("NOT_SUPPORTED", "the backing file cannot be amended; rebase changes it", {
    data: { option: "backing_file" },
    stockText: "Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.",
  });
}

function parseOptions(options: ReadonlyMap<string, string>): Omit<AmendImageOptions, "format"> {
  const parsed = parseCreateOptions(
    ["lazy_refcounts", "refcount_bits", "size"].flatMap((name) => {
      const value = options.get(name);
      return value === undefined ? [] : [`${name}=${value}`];
    }),
  );
  return {
    compat: compatLevel(options.get("compat")),
    lazyRefcounts: parsed.lazyRefcounts,
    refcountBits: parsed.refcountBits,
    size: parsed.size,
    dataFile: options.get("data_file"),
    dataFileRaw: switchOf("data_file_raw", options.get("data_file_raw")),
    zoneLayout: options.has(LAYOUT) ? "current" : undefined,
  };
}

function compatLevel(text: string | undefined): "0.10" | "1.1" | undefined {
  if (text === undefined) return undefined;
  if (text === "0.10" || text === "v2") return "0.10";
  if (text === "1.1" || text === "v3") return "1.1";
  throw new ZcowError("INVALID_ARGUMENT", `compat=${text} is neither 0.10 nor 1.1`, {
    data: { option: "compat", value: text },
    stockText: `Unknown compatibility level ${text}`,
  });
}

function switchOf(name: string, text: string | undefined): boolean | undefined {
  if (text === undefined) return undefined;
  if (["on", "yes", "true", "y"].includes(text)) return true;
  if (["off", "no", "false", "n"].includes(text)) return false;
  throw new ZcowError("INVALID_ARGUMENT", `Option ${name}: '${text}' is neither 'on' nor 'off'`, {
    data: { option: name, value: text },
    stockText: `Parameter '${name}' expects 'on' or 'off'`,
  });
}
