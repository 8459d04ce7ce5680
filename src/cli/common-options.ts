import { ZcowError } from "../base/errors.js";
import type { PassphraseSource } from "../block/passphrase.js";
import type { SecretLookup } from "../formats/qcow2/create-options-parse.js";
import { describedByName, type ImageDescription, parseImageDescription } from "./image-options.js";
import { allValues, isGiven, lastValue, type OptionSpec, type ParsedArguments } from "./options.js";
import { UsageError } from "./usage-error.js";

export const FORMAT_OPTION: OptionSpec = {
  name: "format",
  short: "f",
  long: "format",
  value: "FORMAT",
  about: "qcow2 or raw; recognised by content when left out",
};
export const OUTPUT_OPTION: OptionSpec = {
  name: "output",
  long: "output",
  value: "FORM",
  about: "human (default) or json",
  choices: ["human", "json"],
};
export const FORCE_SHARE_OPTION: OptionSpec = {
  name: "force-share",
  short: "U",
  long: "force-share",
  about: "ignore the locks of other programs",
};
export const IMAGE_OPTS_OPTION: OptionSpec = {
  name: "image-opts",
  long: "image-opts",
  about: "FILE is a list of options: driver=qcow2,file.filename=PATH",
};
export const OBJECT_OPTION: OptionSpec = {
  name: "object",
  long: "object",
  value: "SECRET",
  about: "secret,id=ID,data=TEXT or file=PATH: a passphrase for encrypt.key-secret=ID",
};
export const QUIET_OPTION: OptionSpec = {
  name: "quiet",
  short: "q",
  long: "quiet",
  about: "say nothing but errors",
};
export const HELP_OPTION: OptionSpec = { name: "help", short: "h", long: "help" };
export const PROGRESS_OPTION: OptionSpec = { name: "progress", short: "p", about: "show progress" };

/** Which image, and how to open it for looking. */
export interface NamedImage {
  readonly path: string;
  readonly format: string | undefined;
  readonly forceShare: boolean;
  /** Opens an encrypted image. */
  readonly passphrase: PassphraseSource | undefined;
}

/** The secrets of the `--object` options. Throws `SECRET`. */
export async function givenSecrets(parsed: ParsedArguments): Promise<SecretLookup> {
  const objects = allValues(parsed, "object");
  if (objects.length === 0) return unknownSecret;
  const { readSecrets } = await import("./secrets.js");
  return readSecrets(objects);
}

const unknownSecret: SecretLookup = (id) => () => {
  throw new ZcowError("SECRET", `No secret with id '${id}'`, {
    data: { option: "encrypt.key-secret", value: id },
    stockText: `No secret with id '${id}'`,
  });
};

/** What opens the image of a description; says so when the image is encrypted in another way than described. */
export function describedPassphrase(
  { keySecret, encryption }: ImageDescription,
  secretOf: SecretLookup = unknownSecret,
): PassphraseSource | undefined {
  if (keySecret === undefined && encryption === undefined) return undefined;
  const source = keySecret === undefined ? undefined : secretOf(keySecret);
  return (request) => {
    if (encryption !== undefined && encryption !== request.encryption) {
      const stockText = `Header reported '${request.encryption}' encryption format but options specify '${encryption}'`;
      throw new ZcowError("INVALID_ARGUMENT", stockText, {
        data: { option: "encrypt.format", value: encryption },
        stockText,
      });
    }
    return typeof source === "function" ? source(request) : source;
  };
}

/** The one image a command works on. */
export function namedImage(parsed: ParsedArguments, secretOf: SecretLookup = unknownSecret): NamedImage {
  const [name, ...more] = parsed.positionals;
  if (name === undefined || more.length > 0) throw new UsageError("Expecting one image file name");
  return imageNamed(name, parsed, secretOf, lastValue(parsed, "format"));
}

/** The image that the argument `name` stands for: a path, or with `--image-opts` a list of options. `format`: as given for it. */
export function imageNamed(
  name: string,
  parsed: ParsedArguments,
  secretOf: SecretLookup,
  format: string | undefined,
): NamedImage {
  const forceShare = isGiven(parsed, "force-share");
  const isDescribed = isGiven(parsed, "image-opts");
  if (isDescribed && format !== undefined) {
    throw new UsageError("--image-opts and --format are mutually exclusive", false);
  }
  const described = isDescribed ? parseImageDescription(name) : describedByName(name);
  if (described === undefined) return { path: name, format, forceShare, passphrase: undefined };
  if (described.path === undefined) throw new UsageError(`image options '${name}' name no file`, false);
  return {
    path: described.path,
    format: format ?? described.format,
    forceShare: forceShare || described.forceShare,
    passphrase: describedPassphrase(described, secretOf),
  };
}

/** The form of output that was asked for: one of `forms`, the first of which is the default. */
export function outputForm<Form extends string>(parsed: ParsedArguments, forms: readonly [Form, ...Form[]]): Form {
  const asked = lastValue(parsed, "output") ?? forms[0];
  const form = forms.find((known) => known === asked);
  if (form !== undefined) return form;
  const list = forms.length === 2 ? forms.join(" or ") : forms.join(", ");
  throw new UsageError(`--output must be used with ${list} as argument.`, false);
}
