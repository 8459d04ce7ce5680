import { isZcowError } from "../../base/errors.js";
import { type DescribeImageOptions, describeImage, type ImageInfo } from "../../jobs/info.js";
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
import { infoText, infoTree } from "../info-text.js";
import { jsonText } from "../json.js";
import type { CommandManual } from "../manual.js";
import { type ImageSource, type NamedImage, namedImage, onlyName, withSource } from "../named-image.js";
import { isGiven, saying } from "../options.js";

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
  const parsed = commandArguments(args, INFO_MANUAL, context);
  if (parsed === undefined) return 0;
  onlyName(parsed);
  const form = outputForm(parsed, ["human", "json"]);
  const image = namedImage(parsed, await givenSecrets(parsed));
  if (isGiven(parsed, "backing-chain")) {
    const chain = await describeAll(image, context);
    const json = (): string => jsonText(chain.map(({ info, shownName }) => infoTree(info, shownName)));
    const text = (): string => chain.map(({ info, shownName }) => infoText(info, shownName)).join("\n");
    context.output.out(form === "json" ? json() : text());
    return 0;
  }
  const { info, shownName } = await describe(image, context);
  context.output.out(form === "json" ? jsonText(infoTree(info, shownName)) : infoText(info, shownName));
  return 0;
}

function describeAll(image: NamedImage, context: CommandContext): Promise<DescribedImage[]> {
  return withSource(image, "inspect", context, async (found) => {
    const { describeChain } = await import("../../jobs/info-chain.js");
    const chain: DescribedImage[] = [];
    try {
      for await (const info of describeChain(found.source, optionsFor(image, found))) {
        chain.push(chain.length === 0 ? asNamed(info, found) : { info, shownName: info.filename });
      }
      return chain;
    } catch (error) {
      if (!isZcowError(error) || error.code === "BACKING_LOOP") throw error;
      const name = chain.length === 0 ? image.name : (error.data.path ?? image.name);
      throw withSubject(`Could not open '${name}'`, error);
    }
  });
}

function describe(image: NamedImage, context: CommandContext): Promise<DescribedImage> {
  return withSource(image, "inspect", context, async (found) => {
    try {
      return asNamed(await describeImage(found.source, optionsFor(image, found)), found);
    } catch (error) {
      throw withSubject(`Could not open '${image.name}'`, error);
    }
  });
}

interface DescribedImage {
  readonly info: ImageInfo;
  readonly shownName: string;
}

function asNamed(info: ImageInfo, { shownName, place }: ImageSource): DescribedImage {
  return { info: place === undefined ? info : { ...info, format: place }, shownName };
}

function optionsFor({ forceShare }: NamedImage, { format }: ImageSource): DescribeImageOptions {
  return { format, forceShare, implicitFiles: "allow" };
}
