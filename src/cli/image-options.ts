import { splitOptionList as optionsOfList } from "../base/option-list.js";
import { NodeOptions } from "../block/node-options.js";
import { withSubject } from "./failure.js";
import { UsageError } from "./usage-error.js";

/** An image described by driver options: `driver=qcow2,file.filename=disk.qcow2`. */
export interface ImageDescription {
  readonly path: string | undefined;
  readonly format: string | undefined;
  readonly readOnly: boolean;
  readonly forceShare: boolean;
  /** Name of the secret that opens an encrypted image. */
  readonly keySecret: string | undefined;
  /** How the image is said to be encrypted: "luks" or "aes". */
  readonly encryption: string | undefined;
}

/** The options of a list. Throws a usage error in the words of the stock tools for a list that is none. */
export function splitOptionList(text: string): [name: string, value: string][] {
  const options = optionsOfList(text);
  if (options === undefined) throw new UsageError(`Invalid option list: ${text}`, false);
  return options;
}

const JSON_PREFIX = "json:";
const FILE_DRIVERS = new Set(["file", "host_device"]);

/** Reads the options of `--image-opts`. */
export function parseImageDescription(text: string | undefined): ImageDescription {
  return description(text === undefined ? [] : splitOptionList(text));
}

/** What a name `json:{...}` says when it is about a file and its format alone; undefined for any other name. */
export function describedByName(name: string): ImageDescription | undefined {
  if (!name.startsWith(JSON_PREFIX)) return undefined;
  try {
    return description([...NodeOptions.ofJson(name.slice(JSON_PREFIX.length)).left]);
  } catch (error) {
    if (error instanceof UsageError) return undefined;
    throw withSubject(`Could not open '${name}'`, error);
  }
}

function description(options: readonly (readonly [name: string, value: string])[]): ImageDescription {
  let path: string | undefined;
  let format: string | undefined;
  let keySecret: string | undefined;
  let encryption: string | undefined;
  const flags = new Map<string, boolean>();
  for (const [name, value] of options) {
    if (name === "driver") format = FILE_DRIVERS.has(value) ? "raw" : value;
    else if (name === "file.filename" || name === "filename" || name === "file") path = value;
    else if (name === "encrypt.key-secret") keySecret = value;
    else if (name === "encrypt.format") encryption = value;
    else if (name === "read-only" || name === "force-share") flags.set(name, onOff(name, value));
    else if (name !== "file.driver" || !FILE_DRIVERS.has(value)) {
      throw new UsageError(`image option '${name}=${value}' is not supported`, false);
    }
  }
  return {
    path,
    format,
    keySecret,
    encryption,
    readOnly: flags.get("read-only") ?? false,
    forceShare: flags.get("force-share") ?? false,
  };
}

function onOff(name: string, value: string): boolean {
  if (value === "on") return true;
  if (value === "off") return false;
  throw new UsageError(`Parameter '${name}' expects 'on' or 'off'`, false);
}
