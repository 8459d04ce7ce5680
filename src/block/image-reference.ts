import { ZcowError } from "../base/errors.js";
import { nbdUri } from "../storage/nbd/nbd-uri.js";

/**
 * The names under which an image refers to other files: plain paths, names with a protocol (`file:disk.raw`) and descriptions
 * by driver options (`json:{"driver":"qcow2","file":{"driver":"file","filename":"disk.qcow2"}}`).
 */
export interface ImageReference {
  /** "file" for files of the host; otherwise the protocol that the name starts with, as in `nbd`. */
  readonly protocol: string;
  /** Path of a file; for other protocols the whole name. */
  readonly path: string;
  /** The format that the name itself gives, if any. */
  readonly format: string | undefined;
}

/** The protocols of which the rest of the name is a path. */
const FILE_PROTOCOLS: readonly string[] = ["file", "host_device"];
/** Options that change how a file is accessed, never which; they are of no consequence to a reader. */
const HARMLESS_OPTION =
  /^(file\.)?(node-name|read-only|auto-read-only|discard|detect-zeroes|force-share|cache\.(direct|no-flush)|locking|aio|aio-max-batch|drop-cache|x-check-cache-dropped)$/;

/** The protocol that `name` starts with: what stands before a colon that no slash precedes. */
export function protocolOf(name: string): string | undefined {
  return /^([^:/]*):/.exec(name)?.[1];
}

/**
 * `name` as seen from here: a relative path starts in the folder of `image`, the file that has the reference. Names with a
 * protocol stay as they are, whatever path follows it: so do the stock tools.
 */
export function resolveReference(name: string, image: string): string {
  if (name.startsWith("/") || protocolOf(name) !== undefined) return name;
  const protocol = protocolOf(image);
  if (protocol === "json") {
    throw badReference(name, `it is relative, and ${image} has no folder`, `Cannot generate a base directory`);
  }
  const pathStart = protocol === undefined ? 0 : protocol.length + 1;
  return image.slice(0, Math.max(pathStart, image.lastIndexOf("/") + 1)) + name;
}

/** What a resolved name stands for. Fails with `FILE_REFERENCE` when it cannot be understood. `format`: as recorded beside the name. */
export function parseReference(name: string, format: string | undefined): ImageReference {
  const protocol = protocolOf(name);
  if (protocol === undefined) return { protocol: "file", path: name, format };
  if (protocol === "json") return parseDescription(name, format);
  if (FILE_PROTOCOLS.includes(protocol)) return { protocol: "file", path: name.slice(protocol.length + 1), format };
  return { protocol, path: name, format };
}

function parseDescription(name: string, recorded: string | undefined): ImageReference {
  const options = new Map(flatten(parseJson(name), ""));
  const take = (key: string): string | undefined => {
    const value = options.get(key);
    options.delete(key);
    return value;
  };
  const driver = take("driver");
  const isProtocol =
    recorded === undefined && driver !== undefined && (driver === "nbd" || FILE_PROTOCOLS.includes(driver));
  const prefix = isProtocol ? "" : "file.";
  const protocol = isProtocol ? driver : (take("file.driver") ?? "file");
  const path = take(`${prefix}filename`);
  const format = recorded ?? (isProtocol ? "raw" : driver);
  if (protocol !== "nbd" && !FILE_PROTOCOLS.includes(protocol)) return { protocol, path: name, format };
  const place = path ?? (protocol === "nbd" ? exportAddress(name, prefix, take) : undefined);
  if (place === undefined) {
    throw badReference(name, `it has no ${prefix}filename`, 'A block device must be specified for "file"');
  }
  for (const key of options.keys()) {
    if (HARMLESS_OPTION.test(key)) continue;
    const stockText = `Block format '${format ?? "raw"}' does not support the option '${key}'`;
    throw badReference(name, `option '${key}' is not known`, stockText);
  }
  return { protocol: protocol === "nbd" ? protocol : "file", path: place, format };
}

/** The address that the options of an export stand for, those of its server with or without `server.` before them. */
function exportAddress(name: string, prefix: string, take: (key: string) => string | undefined): string {
  take(`${prefix}server.type`);
  const option = (key: string): string | undefined => take(`${prefix}${key}`) ?? take(`${prefix}server.${key}`);
  const address = nbdUri({
    host: option("host"),
    port: option("port"),
    path: option("path"),
    exportName: take(`${prefix}export`),
  });
  if (address === undefined) throw badReference(name, "it names no NBD server", "NBD server address missing");
  return address;
}

function parseJson(name: string): object {
  let value: unknown;
  try {
    value = JSON.parse(name.slice("json:".length));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw badReference(name, reason, `Could not parse the JSON options: ${reason}`);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw badReference(name, "it is no JSON object", "Invalid JSON object given");
}

/** `{"file":{"filename":"x"}}` and `{"file.filename":"x"}` are one and the same. */
function flatten(value: object, prefix: string): [key: string, value: string][] {
  return Object.entries(value).flatMap(([key, entry]: [string, unknown]): [string, string][] =>
    typeof entry === "object" && entry !== null
      ? flatten(entry, `${prefix}${key}.`)
      : [[`${prefix}${key}`, String(entry)]],
  );
}

function badReference(name: string, reason: string, stockText: string): ZcowError {
  return new ZcowError("FILE_REFERENCE", `The file name '${name}' cannot be used: ${reason}`, {
    data: { value: name },
    stockText,
  });
}
