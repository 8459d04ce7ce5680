import { ZcowError } from "../base/errors.js";
import type { SecretLookup } from "../formats/qcow2/create-options-parse.js";
import { allValues, lastValue, type OptionSpec, type ParsedArguments } from "./options.js";
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

/** The secrets of the `--object` options. Throws `SECRET`. */
export async function givenSecrets(parsed: ParsedArguments): Promise<SecretLookup> {
  const objects = allValues(parsed, "object");
  if (objects.length === 0) return unknownSecret;
  const { readSecrets } = await import("./secrets.js");
  return readSecrets(objects);
}

/** For commands that take no secrets. */
export const unknownSecret: SecretLookup = (id) => () => {
  throw new ZcowError("SECRET", `No secret with id '${id}'`, {
    data: { option: "encrypt.key-secret", value: id },
    stockText: `No secret with id '${id}'`,
  });
};

/** The form of output that was asked for: one of `forms`, the first of which is the default. */
export function outputForm<Form extends string>(parsed: ParsedArguments, forms: readonly [Form, ...Form[]]): Form {
  const asked = lastValue(parsed, "output") ?? forms[0];
  const form = forms.find((known) => known === asked);
  if (form !== undefined) return form;
  const list = forms.length === 2 ? forms.join(" or ") : forms.join(", ");
  throw new UsageError(`--output must be used with ${list} as argument.`, false);
}
