import { isZcowError } from "../../base/errors.js";
import { describeImage, type ImageInfo } from "../../jobs/info.js";
import {
  FORCE_SHARE_OPTION,
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  namedImage,
  OBJECT_OPTION,
  OUTPUT_OPTION,
  outputForm,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { withSubject } from "../failure.js";
import { helpText } from "../help-text.js";
import { infoText, infoTree } from "../info-text.js";
import { jsonText } from "../json.js";
import { type CommandManual, optionsOf } from "../manual.js";
import { formatChoice } from "../open.js";
import { isGiven, parseArguments, saying } from "../options.js";

export const INFO_MANUAL: CommandManual = {
  name: "info",
  synopsis: ["[-f FORMAT] [--output human|json] [--backing-chain] [-U] FILE"],
  about: ["Shows what the image is, from its header alone."],
  options: [
    saying(FORMAT_OPTION, "qcow2, raw, vmdk, vhdx, vpc or vdi; recognised by content"),
    OUTPUT_OPTION,
    { name: "backing-chain", long: "backing-chain", about: "show the images behind it, too" },
    FORCE_SHARE_OPTION,
    OBJECT_OPTION,
    IMAGE_OPTS_OPTION,
    HELP_OPTION,
  ],
};

export async function infoCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = parseArguments(args, optionsOf(INFO_MANUAL));
  if (isGiven(parsed, "help")) {
    context.output.out(helpText(INFO_MANUAL, context));
    return 0;
  }
  const form = outputForm(parsed, ["human", "json"]);
  const { path, format, forceShare } = namedImage(parsed, await givenSecrets(parsed));
  if (isGiven(parsed, "backing-chain")) {
    const chain = await describeAll(path, format, forceShare);
    context.output.out(form === "json" ? jsonText(chain.map(infoTree)) : chain.map(infoText).join("\n"));
    return 0;
  }
  const info = await describe(path, format, forceShare);
  context.output.out(form === "json" ? jsonText(infoTree(info)) : infoText(info));
  return 0;
}

async function describeAll(path: string, format: string | undefined, forceShare: boolean): Promise<ImageInfo[]> {
  const { describeChain } = await import("../../jobs/info-chain.js");
  const chain: ImageInfo[] = [];
  try {
    const options = { format: formatChoice(format), forceShare, implicitFiles: "allow" } as const;
    for await (const info of describeChain(path, options)) chain.push(info);
    return chain;
  } catch (error) {
    if (!isZcowError(error) || error.code === "BACKING_LOOP") throw error;
    throw withSubject(`Could not open '${error.data.path ?? path}'`, error);
  }
}

async function describe(path: string, format: string | undefined, forceShare: boolean): Promise<ImageInfo> {
  try {
    return await describeImage(path, { format: formatChoice(format), forceShare, implicitFiles: "allow" });
  } catch (error) {
    throw withSubject(`Could not open '${path}'`, error);
  }
}
