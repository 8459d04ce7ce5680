import { parseSize } from "../../base/size-text.js";
import { inspectImage } from "../../jobs/inspect/inspect.js";
import type { InspectReport } from "../../jobs/inspect/report.js";
import { commandArguments } from "../command-arguments.js";
import {
  FORCE_SHARE_OPTION,
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  OBJECT_OPTION,
  OUTPUT_OPTION,
  outputForm,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { withSubject } from "../failure.js";
import { inspectText, inspectTree } from "../inspect-text.js";
import { jsonText } from "../json.js";
import type { CommandManual } from "../manual.js";
import { namedImage, withSource } from "../named-image.js";
import { lastValue, type ParsedArguments, saying } from "../options.js";
import { UsageError } from "../usage-error.js";

/** By verdict. 1 is left for what could not be inspected. */
const EXIT_STATUS: Readonly<Record<InspectReport["verdict"], number>> = { none: 0, danger: 2, decision: 3 };

export const INSPECT_MANUAL: CommandManual = {
  name: "inspect",
  synopsis: ["[-f FORMAT] [--max-size SIZE] [--output human|json] [-U] FILE"],
  about: [
    "Tells what is to be known of an image from somebody else before it is opened: its format by content, the files it names, its limits, what it holds that is not known, what it would take. Reads headers only and opens no other file.",
  ],
  options: [
    saying(FORMAT_OPTION, "what the image is said to be; something else is a danger"),
    {
      name: "max-size",
      long: "max-size",
      value: "SIZE",
      about: "largest disk that is fine (bytes, with suffix k, M, G, T, ...)",
    },
    OUTPUT_OPTION,
    FORCE_SHARE_OPTION,
    OBJECT_OPTION,
    IMAGE_OPTS_OPTION,
    HELP_OPTION,
  ],
  exitStatus: "0 nothing against it, 3 something to decide first, 2 a danger, 1 it could not be inspected.",
};

export async function inspectCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, INSPECT_MANUAL, context);
  if (parsed === undefined) return 0;
  const form = outputForm(parsed, ["human", "json"]);
  const maxVirtualSize = maxSize(parsed);
  const image = namedImage(parsed, await givenSecrets(parsed));
  const report = await withSource(image, "inspect", context, async ({ source, format, shownName }) => {
    try {
      const found = await inspectImage(source, {
        ...(format === "probe" ? {} : { expectedFormat: format }),
        ...(maxVirtualSize === undefined ? {} : { maxVirtualSize }),
        forceShare: image.forceShare,
      });
      return { ...found, filename: shownName };
    } catch (error) {
      throw withSubject(`Could not open '${image.name}'`, error);
    }
  });
  context.output.out(form === "json" ? jsonText(inspectTree(report)) : inspectText(report));
  return EXIT_STATUS[report.verdict];
}

function maxSize(parsed: ParsedArguments): number | undefined {
  const text = lastValue(parsed, "max-size");
  if (text === undefined) return undefined;
  const size = parseSize(text);
  if (size === undefined || size <= 0) throw new UsageError(`--max-size '${text}' is no size above 0`);
  return size;
}
