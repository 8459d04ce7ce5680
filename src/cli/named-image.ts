import { ZcowError } from "../base/errors.js";
import { NodeOptions } from "../block/node-options.js";
import { type PassphraseSource, passphraseFor } from "../block/passphrase.js";
import { isNodeName } from "../formats/nodes/is-node-name.js";
import type { FormatChoice } from "../formats/open-image.js";
import type { SecretLookup } from "../formats/qcow2/create-options-parse.js";
import type { Storage } from "../storage/storage.js";
import { unknownSecret } from "./common-options.js";
import type { CommandContext } from "./context.js";
import { withSubject } from "./failure.js";
import { fileOfName } from "./file-name.js";
import { splitOptionList } from "./image-options.js";
import { accessTo, type DriverOptions, formatChoice } from "./open.js";
import { isGiven, lastValue, type ParsedArguments } from "./options.js";
import { UsageError } from "./usage-error.js";

/** The image that an argument stands for, as far as the argument tells. */
export interface NamedImage {
  /** The argument: what messages call the image. */
  readonly name: string;
  /** Its file, or the address of an export; the argument itself where driver options say more than a file and its format. */
  readonly path: string;
  /** Driver options that say what a path cannot; undefined for a file. */
  readonly options: DriverOptions | undefined;
  readonly format: string | undefined;
  readonly forceShare: boolean;
  /** To be opened for reading, whatever the command would do. */
  readonly readOnly: boolean;
  /** Opens an encrypted image. */
  readonly passphrase: PassphraseSource | undefined;
  readonly secretOf: SecretLookup;
}

/** The one image a command works on. Fails as {@link imageNamed}. */
export function namedImage(parsed: ParsedArguments, secretOf: SecretLookup = unknownSecret): NamedImage {
  return imageNamed(onlyName(parsed), parsed, secretOf, lastValue(parsed, "format"));
}

/** The one name that a command takes. */
export function onlyName({ positionals }: ParsedArguments): string {
  const [name, ...more] = positionals;
  if (name === undefined || more.length > 0) throw new UsageError("Expecting one image file name");
  return name;
}

/**
 * Refuses to ignore the locks of others on an image that is to be changed. To be called when it is known that there are such a node and such
 * a format, which the stock tools look at first.
 */
export function refuseForcedChange({ name, forceShare }: NamedImage): void {
  if (!forceShare) return;
  throw new UsageError(`Could not open '${name}': force-share=on can only be used with read-only images`, false);
}

/**
 * The image that the argument `name` stands for: a path, an address, `json:{...}` and the like, or with `--image-opts` a list of options. `format`:
 * as given for it. Fails with `INVALID_ARGUMENT`, `FILE_REFERENCE` and `PROTOCOL_UNKNOWN`, in the words of the stock tools.
 */
export function imageNamed(
  name: string,
  parsed: ParsedArguments,
  secretOf: SecretLookup,
  format: string | undefined,
): NamedImage {
  const isDescribed = isGiven(parsed, "image-opts");
  if (isDescribed && format !== undefined) {
    throw new UsageError("--image-opts and --format are mutually exclusive", false);
  }
  return imageOf(name, { isDescribed, format, forceShare: isGiven(parsed, "force-share"), secretOf });
}

/** What is said of an image beside its name. */
interface Beside extends Pick<NamedImage, "format" | "forceShare" | "secretOf"> {
  /** The name is a list of options. */
  readonly isDescribed: boolean;
}

/** {@link imageNamed}, where its options have other names than usual. */
export function imageOf(name: string, { isDescribed, ...beside }: Beside): NamedImage {
  const { format } = beside;
  const plain = { name, path: name, options: undefined, readOnly: false, passphrase: undefined, ...beside };
  try {
    if (isDescribed) return described(splitDescription(name), plain);
    if (name.startsWith(JSON_PREFIX)) return described(optionsOfJson(name, format), plain);
    if (isNodeName(name)) return { ...plain, options: [...formatOption(format), ["filename", name]] };
    if (isPlace(format))
      return described(
        [
          ["driver", format],
          ["filename", name],
        ],
        plain,
      );
    return { ...plain, path: fileOfName(name) };
  } catch (error) {
    throw withSubject(`Could not open '${name}'`, error);
  }
}

/** A name by itself, in front, refers to a node. */
function splitDescription(text: string): DriverOptions {
  if (text === "") return [];
  const end = text.search(/[=,]/);
  return splitOptionList(end >= 0 && text[end] === "=" ? text : `file=${text}`);
}

const JSON_PREFIX = "json:";

/** A format that is given beside a description counts more than the one in it. */
function optionsOfJson(name: string, format: string | undefined): DriverOptions {
  const options = NodeOptions.ofJson(name.slice(JSON_PREFIX.length));
  if (format !== undefined) options.take("driver");
  return [...formatOption(format), ...options.left];
}

function formatOption(format: string | undefined): DriverOptions {
  return format === undefined ? [] : [["driver", format]];
}

/** Drivers of places for bytes, which are no formats. */
const PLACES = ["file", "host_device", "nbd", "null-co", "null-aio", "blkdebug", "blkverify"] as const;

function isPlace(driver: string | undefined): driver is (typeof PLACES)[number] {
  return PLACES.some((place) => place === driver);
}

/** Most descriptions say no more than a path and a format can: then nothing else need be loaded. */
function described(options: DriverOptions, plain: NamedImage): NamedImage {
  const given = new Map(options);
  const take = (name: string): string | undefined => {
    const value = given.get(name);
    given.delete(name);
    return value;
  };
  const format = take("driver");
  const path = take("file.filename");
  const place = take("file.driver") ?? "file";
  if (path === undefined || place !== "file" || isPlace(format)) return byOptions(options, format, plain);
  const flags = {
    readOnly: takeSwitch(take, "read-only"),
    forceShare: takeSwitch(take, "force-share") || plain.forceShare,
  };
  const [encryption, secret] = [take("encrypt.format"), take("encrypt.key-secret")];
  const passphrase = passphraseFor(encryption, secret === undefined ? undefined : plain.secretOf(secret));
  if (given.size > 0 || isNodeName(path)) return byOptions(options, format, plain);
  return { ...plain, ...flags, path, format, passphrase };
}

function takeSwitch(take: (name: string) => string | undefined, name: string): boolean {
  const value = take(name) ?? "off";
  if (value === "on" || value === "off") return value === "on";
  const stockText = `Parameter '${name}' expects 'on' or 'off'`;
  throw new ZcowError("INVALID_ARGUMENT", stockText, { data: { option: name, value }, stockText });
}

function byOptions(options: DriverOptions, driver: string | undefined, plain: NamedImage): NamedImage {
  const has = (wanted: string): boolean => options.some(([name]) => name === wanted);
  if (!isPlace(driver) && has("filename")) {
    const stockText =
      driver === undefined ? "Must specify either driver or file" : 'A block device must be specified for "file"';
    throw new ZcowError("INVALID_ARGUMENT", stockText, { data: { option: "file.filename" }, stockText });
  }
  return { ...plain, options };
}

/** What a job works on that takes a path or an open storage. */
export interface ImageSource {
  readonly source: string | Storage;
  readonly format: FormatChoice;
  readonly passphrase: PassphraseSource | undefined;
  /** How the image is shown: its path, or all of its description where that says more. */
  readonly shownName: string;
  /** The driver of the place where the bytes are, when no format is on top of it. */
  readonly place: string | undefined;
  /** The image was described with other files than those that it names. */
  readonly replacesFiles: boolean;
}

function knownFormat({ name, format }: NamedImage): FormatChoice {
  try {
    return formatChoice(format);
  } catch (error) {
    throw withSubject(`Could not open '${name}'`, error);
  }
}

/**
 * Runs `work` on the image that was named. What is described is opened for that, and closed afterwards; a path is left to the job. `use`: as
 * for the locks of storages. Errors of opening say of which image; those of `work` are as it throws them.
 */
export async function withSource<T>(
  image: NamedImage,
  use: "write" | "read" | "inspect",
  context: CommandContext,
  work: (source: ImageSource) => Promise<T>,
): Promise<T> {
  const { path, options, passphrase } = image;
  if (options === undefined) {
    const format = knownFormat(image);
    return work({ source: path, format, passphrase, shownName: path, place: undefined, replacesFiles: false });
  }
  const { openAtRest } = await import("../formats/nodes/open-node.js");
  const access = { ...accessTo(image, use !== "write", context), lookOnly: use === "inspect" };
  const node = await openAtRest(new NodeOptions(options), access).catch((error: unknown) => {
    throw withSubject(`Could not open '${image.name}'`, error);
  });
  try {
    return await work({ ...node, source: node.storage });
  } finally {
    await node.storage.close();
  }
}
