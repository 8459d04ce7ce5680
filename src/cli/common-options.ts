import { parseImageDescription } from "./image-options.js";
import { isGiven, lastValue, type OptionSpec, type ParsedArguments } from "./options.js";
import { UsageError } from "./usage-error.js";

export const FORMAT_OPTION: OptionSpec = { name: "format", short: "f", long: "format", value: true };
export const OUTPUT_OPTION: OptionSpec = { name: "output", long: "output", value: true };
export const FORCE_SHARE_OPTION: OptionSpec = { name: "force-share", short: "U", long: "force-share" };
export const IMAGE_OPTS_OPTION: OptionSpec = { name: "image-opts", long: "image-opts" };
export const QUIET_OPTION: OptionSpec = { name: "quiet", short: "q", long: "quiet" };
export const HELP_OPTION: OptionSpec = { name: "help", short: "h", long: "help" };

/** Which image, and how to open it for looking. */
export interface NamedImage {
  readonly path: string;
  readonly format: string | undefined;
  readonly forceShare: boolean;
}

/** The one image a command works on. */
export function namedImage(parsed: ParsedArguments): NamedImage {
  const [name, ...more] = parsed.positionals;
  if (name === undefined || more.length > 0) throw new UsageError("Expecting one image file name");
  const format = lastValue(parsed, "format");
  const forceShare = isGiven(parsed, "force-share");
  if (!isGiven(parsed, "image-opts")) return { path: name, format, forceShare };
  if (format !== undefined) throw new UsageError("--image-opts and --format are mutually exclusive", false);
  const described = parseImageDescription(name);
  if (described.path === undefined) throw new UsageError(`image options '${name}' name no file`, false);
  return { path: described.path, format: described.format, forceShare: forceShare || described.forceShare };
}

/** The form of output that was asked for: one of `forms`, the first of which is the default. */
export function outputForm<Form extends string>(parsed: ParsedArguments, forms: readonly [Form, ...Form[]]): Form {
  const asked = lastValue(parsed, "output") ?? forms[0];
  const form = forms.find((known) => known === asked);
  if (form !== undefined) return form;
  const list = forms.length === 2 ? forms.join(" or ") : forms.join(", ");
  throw new UsageError(`--output must be used with ${list} as argument.`, false);
}
