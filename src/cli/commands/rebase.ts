import { isZcowError, ZcowError } from "../../base/errors.js";
import { formatDriver } from "../../formats/registry.js";
import { rebaseImage } from "../../jobs/rebase/rebase.js";
import { givenCacheMode, WRITE_BACK } from "../cache-mode.js";
import { commandArguments } from "../command-arguments.js";
import {
  FORCE_SHARE_OPTION,
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  OBJECT_OPTION,
  PROGRESS_OPTION,
  QUIET_OPTION,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { withSubject } from "../failure.js";
import type { CommandManual } from "../manual.js";
import { namedImage, withSource } from "../named-image.js";
import { printWarning } from "../open.js";
import { isGiven, lastValue, type ParsedArguments, saying } from "../options.js";
import { ProgressLine } from "../progress.js";
import { UsageError } from "../usage-error.js";

export const REBASE_MANUAL: CommandManual = {
  name: "rebase",
  synopsis: ["[-f FORMAT] [-u] [-c] [-p] [-q] -b BACKING -F BACKING_FORMAT FILE", '[OPTION]... -b "" FILE'],
  about: [
    "Gives an overlay another backing file, or none. What the disk reads as stays the same: what differs behind it is copied into it.",
    "An interrupted rebase leaves the old backing file in force, or the new one, and under both the disk reads the same.",
  ],
  options: [
    FORMAT_OPTION,
    {
      name: "backing",
      short: "b",
      long: "backing",
      value: "FILE",
      about: "the new backing file, as the image is to name it; empty: none",
    },
    { name: "backing-format", short: "F", long: "backing-format", value: "FORMAT", about: "its format" },
    {
      name: "unsafe",
      short: "u",
      long: "unsafe",
      about: "change the name only, whatever shows through then: for a backing file that was moved",
    },
    { name: "compress", short: "c", long: "compress", about: "store compressed what is copied" },
    { name: "cache", short: "t", value: "MODE", about: "cache mode of the image" },
    { name: "source-cache", short: "T", value: "MODE", about: "cache mode of the backing files" },
    IMAGE_OPTS_OPTION,
    OBJECT_OPTION,
    PROGRESS_OPTION,
    QUIET_OPTION,
    saying(FORCE_SHARE_OPTION, "ignore the locks of other programs on the backing files"),
    HELP_OPTION,
  ],
};

export async function rebaseCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, REBASE_MANUAL, context);
  if (parsed === undefined) return 0;
  const unsafe = isGiven(parsed, "unsafe");
  const backingFile = lastValue(parsed, "backing");
  if (parsed.positionals.length !== 1) throw new UsageError("Expecting one image file name");
  if (backingFile === undefined && !unsafe) {
    throw new UsageError("Must specify backing file (-b) or use unsafe mode (-u)");
  }
  const image = namedImage(parsed, await givenSecrets(parsed));
  givenCacheMode(lastValue(parsed, "cache"));
  const source = givenCacheMode(lastValue(parsed, "source-cache"), "source cache option");
  const line = new ProgressLine(context, isGiven(parsed, "progress") && !isGiven(parsed, "quiet"));
  line.start();
  const choice = { path: image.name, format: image.format, readOnly: false, forceShare: false, cache: WRITE_BACK };
  const work = withSource(image, "write", context, async (found) => {
    const backingFormat = givenBackingFormat(parsed);
    try {
      await rebaseImage(found.source, {
        format: found.format,
        backingFile,
        backingFormat,
        unsafe,
        forceShare: image.forceShare,
        compressed: isGiven(parsed, "compress"),
        passphrase: found.passphrase,
        direct: source.direct,
        implicitFiles: "probe",
        onWarning: (warning) => printWarning(warning, choice, context),
        onProgress: (done, total) => line.report(done, total),
      });
    } catch (error) {
      throw isAboutImage(error) ? withSubject(`Could not open '${image.name}'`, error) : error;
    }
  });
  await line.during(work);
  line.finish();
  return 0;
}

/** Errors of the new backing file, and of changing its name, say so themselves. */
function isAboutImage(error: unknown): boolean {
  if (!isZcowError(error) || error.stockText?.startsWith("Could not change the backing file") === true) return false;
  return error.stockText?.startsWith("Could not open new backing file") !== true;
}

function givenBackingFormat(parsed: ParsedArguments): string | undefined {
  const name = lastValue(parsed, "backing-format");
  if (name === undefined || name === "") return undefined;
  try {
    return formatDriver(name).name;
  } catch (error) {
    if (!isZcowError(error, "FORMAT_UNKNOWN")) throw error;
    throw new ZcowError("FORMAT_UNKNOWN", error.message, {
      data: error.data,
      stockText: `Invalid format name: '${name}'`,
    });
  }
}
