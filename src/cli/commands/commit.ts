import { isZcowError, type Warning } from "../../base/errors.js";
import { parseSize } from "../../base/size-text.js";
import { commitImage } from "../../jobs/commit/commit.js";
import { describeImage } from "../../jobs/info.js";
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
import { withSubject } from "../failure.js";
import type { CommandManual } from "../manual.js";
import { namedImage, onlyName, withSource } from "../named-image.js";
import { printWarning } from "../open.js";
import { isGiven, lastValue, type ParsedArguments } from "../options.js";
import { ProgressLine } from "../progress.js";
import { UsageError } from "../usage-error.js";

export const COMMIT_MANUAL: CommandManual = {
  name: "commit",
  synopsis: ["[-f FORMAT] [-d] [-b BASE] [-r RATE] [-t MODE] [-p] [-q] FILE"],
  about: [
    "Brings what an overlay holds into its backing file, which becomes larger if it has to be, and empties the overlay.",
    "The overlay is emptied last, in one step: an interrupted commit leaves a disk that reads the same, and can be begun again.",
  ],
  options: [
    FORMAT_OPTION,
    { name: "base", short: "b", value: "BASE", about: "bring it down to this image of the chain; implies -d" },
    { name: "keep", short: "d", about: "leave the overlay as it is" },
    { name: "rate", short: "r", value: "RATE", about: "at most so many bytes per second (with suffix k, M, G, ...)" },
    { name: "cache", short: "t", value: "MODE", about: "cache mode" },
    IMAGE_OPTS_OPTION,
    OBJECT_OPTION,
    PROGRESS_OPTION,
    QUIET_OPTION,
    HELP_OPTION,
  ],
};

export async function commitCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, COMMIT_MANUAL, context);
  if (parsed === undefined) return 0;
  const rate = rateOption(parsed);
  onlyName(parsed);
  const cache = givenCacheMode(lastValue(parsed, "cache"));
  const image = namedImage(parsed, await givenSecrets(parsed));
  const quiet = isGiven(parsed, "quiet");
  const base = lastValue(parsed, "base");
  const choice = { path: image.name, format: image.format, readOnly: false, forceShare: false, cache };
  const options = {
    base,
    keepOverlay: base !== undefined || isGiven(parsed, "keep"),
    rate,
    direct: cache.direct,
    implicitFiles: "probe" as const,
    onWarning: (warning: Warning) => printWarning(warning, choice, context),
  };
  await withSource(image, "write", context, async ({ source, format, passphrase }) => {
    try {
      // What cannot be opened is told about before any progress is.
      await describeImage(source, { format, beforeWriting: true });
      const line = new ProgressLine(context, isGiven(parsed, "progress") && !quiet);
      line.start();
      const onProgress = (done: number, total: number): void => line.report(done, total);
      await line.during(commitImage(source, { ...options, format, passphrase, onProgress }));
      line.finish();
    } catch (error) {
      if (isZcowError(error, "NO_BACKING_FILE") || isZcowError(error, "BASE_NOT_FOUND")) throw error;
      throw withSubject(`Could not open '${image.name}'`, error);
    }
  });
  if (!quiet) context.output.out("Image committed.\n");
  return 0;
}

function rateOption(parsed: ParsedArguments): number | undefined {
  const text = lastValue(parsed, "rate");
  if (text === undefined) return undefined;
  const rate = parseSize(text);
  if (rate !== undefined) return rate;
  throw new UsageError(
    "Invalid rate limit specified. You may use k, M, G, T, P or E suffixes for\n" +
      "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.",
    false,
  );
}
