import { describeImage, type ImageInfo } from "../jobs/info.js";
import type { CommandContext } from "./context.js";
import { withSubject } from "./failure.js";
import type { ImageSource, NamedImage } from "./named-image.js";
import { guessedRawText } from "./open.js";

/**
 * What the image is that a command is about to change. What cannot be opened is told about as such, and that it was guessed to be raw is
 * printed, before anything is said of the change. `forceShare`: ignore the locks of other processes.
 */
export async function describeToChange(
  { source, format }: ImageSource,
  image: NamedImage,
  context: CommandContext,
  forceShare = false,
): Promise<ImageInfo> {
  const info = await describeImage(source, { format, forceShare, beforeWriting: true }).catch((error: unknown) => {
    throw withSubject(`Could not open '${image.name}'`, error);
  });
  if (format === "probe" && info.format === "raw") context.output.err(guessedRawText(image.name));
  return info;
}
