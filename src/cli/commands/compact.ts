import { formatSize } from "../../base/size-text.js";
import type { CompactResult } from "../../formats/qcow2/compact/compact.js";
import { compactImage } from "../../jobs/compact.js";
import { commandArguments } from "../command-arguments.js";
import {
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  OBJECT_OPTION,
  OUTPUT_OPTION,
  outputForm,
  PROGRESS_OPTION,
  QUIET_OPTION,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { withSubject } from "../failure.js";
import { jsonText } from "../json.js";
import type { CommandManual } from "../manual.js";
import { namedImage, withSource } from "../named-image.js";
import { isGiven, saying } from "../options.js";

export const COMPACT_MANUAL: CommandManual = {
  name: "compact",
  synopsis: ["[-f FORMAT] [-p] [-q] [--output human|json] FILE"],
  about: [
    "Makes the file of an image shorter: moves what lies at its end into free space before it, and cuts the file off.",
  ],
  options: [
    saying(FORMAT_OPTION, "qcow2; recognised by content when left out"),
    PROGRESS_OPTION,
    QUIET_OPTION,
    OUTPUT_OPTION,
    OBJECT_OPTION,
    IMAGE_OPTS_OPTION,
    HELP_OPTION,
  ],
  notes: ["Nobody may use the image meanwhile. When it is interrupted, the image holds the same data; run it again."],
};

export async function compactCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, COMPACT_MANUAL, context);
  if (parsed === undefined) return 0;
  const form = outputForm(parsed, ["human", "json"]);
  const image = namedImage(parsed, await givenSecrets(parsed));
  const isQuiet = isGiven(parsed, "quiet");
  const showsProgress = isGiven(parsed, "progress") && !isQuiet && form === "human";
  const show = (done: number): void => {
    if (showsProgress) context.output.out(`    (${(done * 100).toFixed(2)}/100%)\r`);
  };
  show(0);
  const result = await withSource(image, "write", context, ({ source, format, passphrase }) =>
    compactImage(source, { format, passphrase, onProgress: show }).catch((error: unknown) => {
      throw withSubject(`Could not compact '${image.name}'`, error);
    }),
  );
  if (showsProgress) context.output.out("\n");
  if (!isQuiet) context.output.out(form === "json" ? resultJson(image.name, result) : resultText(result));
  return 0;
}

function resultText({ bytesBefore, bytesAfter, clustersMoved, leaksFixed, kept }: CompactResult): string {
  let text = `${clustersMoved} clusters moved, file ${formatSize(bytesBefore)} -> ${formatSize(bytesAfter)}\n`;
  if (leaksFixed > 0) text += `${leaksFixed} lost clusters freed\n`;
  for (const name of kept) text += `Kept in its place, no free piece is long enough: ${name}\n`;
  return text;
}

function resultJson(path: string, result: CompactResult): string {
  return jsonText({
    filename: path,
    "bytes-before": result.bytesBefore,
    "bytes-after": result.bytesAfter,
    "clusters-moved": result.clustersMoved,
    "leaks-fixed": result.leaksFixed,
    kept: [...result.kept],
  });
}
