import { formatSize } from "../../base/size-text.js";
import type { CompactResult } from "../../formats/qcow2/compact/compact.js";
import { compactImage } from "../../jobs/compact.js";
import {
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  namedImage,
  OBJECT_OPTION,
  OUTPUT_OPTION,
  outputForm,
  QUIET_OPTION,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { withSubject } from "../failure.js";
import { jsonText } from "../json.js";
import { formatChoice } from "../open.js";
import { isGiven, type OptionSpec, parseArguments } from "../options.js";

const OPTIONS: readonly OptionSpec[] = [
  FORMAT_OPTION,
  { name: "progress", short: "p" },
  QUIET_OPTION,
  OUTPUT_OPTION,
  IMAGE_OPTS_OPTION,
  OBJECT_OPTION,
  HELP_OPTION,
];

const HELP = `usage: zcow compact [-f FORMAT] [-p] [-q] [--output human|json] FILE

Makes the file of an image shorter: moves what lies at its end into free space before it, and cuts the file off.

  -f, --format FORMAT   qcow2; recognised by content when left out
  -p                    show progress
  -q, --quiet           say nothing but errors
      --output FORM     human (default) or json
      --object SECRET   secret,id=ID,data=TEXT or file=PATH: a passphrase for encrypt.key-secret=ID
      --image-opts      FILE is a list of options: driver=qcow2,file.filename=PATH,encrypt.key-secret=ID

Nobody may use the image meanwhile. When it is interrupted, the image holds the same data; run it again.
`;

export async function compactCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = parseArguments(args, OPTIONS);
  if (isGiven(parsed, "help")) {
    context.output.out(HELP);
    return 0;
  }
  const form = outputForm(parsed, ["human", "json"]);
  const image = namedImage(parsed, await givenSecrets(parsed));
  const isQuiet = isGiven(parsed, "quiet");
  const showsProgress = isGiven(parsed, "progress") && !isQuiet && form === "human";
  const show = (done: number): void => {
    if (showsProgress) context.output.out(`    (${(done * 100).toFixed(2)}/100%)\r`);
  };
  show(0);
  const { path, format, passphrase } = image;
  const result = await compactImage(path, { format: formatChoice(format), passphrase, onProgress: show }).catch(
    (error: unknown) => {
      throw withSubject(`Could not compact '${path}'`, error);
    },
  );
  if (showsProgress) context.output.out("\n");
  if (!isQuiet) context.output.out(form === "json" ? resultJson(path, result) : resultText(result));
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
