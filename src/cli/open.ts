import type { Warning } from "../base/errors.js";
import type { BlockDevice } from "../block/block-device.js";
import { NodeOptions } from "../block/node-options.js";
import type { PassphraseSource } from "../block/passphrase.js";
import type { NodeAccess } from "../formats/nodes/storage-node.js";
import { openImage } from "../formats/open-image.js";
import type { SecretLookup } from "../formats/qcow2/create-options-parse.js";
import { type FormatName, formatDriver } from "../formats/registry.js";
import { DEEP_QUEUE_THREADS, requestThreadPool } from "../host/thread-pool.js";
import type { IoMode } from "../storage/file-storage.js";
import type { CacheMode } from "./cache-mode.js";
import type { CommandContext } from "./context.js";
import { printError } from "./failure.js";

/** Which image a command works on, and how. */
export interface ImageChoice {
  readonly path: string;
  /** Format by name; recognised by content when left out. */
  readonly format: string | undefined;
  readonly readOnly: boolean;
  /** Ignore the locks of other processes. */
  readonly forceShare: boolean;
  readonly cache: CacheMode;
  /** An internal snapshot to read instead of the disk, by id or name. */
  readonly snapshot?: string | undefined;
  /** Opens an encrypted image. */
  readonly passphrase?: PassphraseSource | undefined;
  /** How transfers are made; see `FileStorageOptions.io`. */
  readonly io?: IoMode;
  /** Driver options in place of `path`. */
  readonly options?: DriverOptions | undefined;
  /** The secrets that driver options may name. */
  readonly secretOf?: SecretLookup;
}

/** Driver options, by name. */
export type DriverOptions = readonly (readonly [name: string, value: string])[];

/** The format to open `name` with; fails with `FORMAT_UNKNOWN`. */
export function formatChoice(name: string | undefined): FormatName | "probe" {
  return name === undefined ? "probe" : (formatDriver(name).name as FormatName);
}

/** Opens the image that a command works on; warnings go to standard error. */
export async function openForCommand(choice: ImageChoice, context: CommandContext): Promise<BlockDevice> {
  // Direct transfers wait for the disk in the thread pool; nothing has used it yet.
  if (choice.cache.direct) requestThreadPool(DEEP_QUEUE_THREADS);
  if (choice.options !== undefined) return openDescribed(choice.options, choice, context);
  return openImage(choice.path, {
    format: formatChoice(choice.format),
    readOnly: choice.readOnly,
    // Who names an image on the command line means what belongs to it, too, as with the stock tools.
    implicitFiles: "probe",
    ...(choice.snapshot === undefined ? {} : { snapshot: choice.snapshot }),
    passphrase: choice.passphrase,
    onWarning: (warning) => printWarning(warning, choice, context),
    file: {
      forceShare: choice.forceShare,
      direct: choice.cache.direct,
      ...(choice.io === undefined ? {} : { io: choice.io }),
    },
  });
}

async function openDescribed(
  options: DriverOptions,
  choice: ImageChoice,
  context: CommandContext,
): Promise<BlockDevice> {
  const { openNode } = await import("../formats/nodes/open-node.js");
  const { snapshot } = choice;
  return openNode(new NodeOptions(options), {
    ...accessTo(choice, choice.readOnly, context),
    direct: choice.cache.direct,
    ...(snapshot === undefined ? {} : { snapshot }),
  });
}

/** How what driver options describe is opened by a command. */
export function accessTo(
  image: Pick<ImageChoice, "path" | "forceShare" | "secretOf">,
  readOnly: boolean,
  context: CommandContext,
): NodeAccess {
  const { path, forceShare, secretOf } = image;
  return {
    writable: !readOnly,
    forceShare,
    implicitFiles: "probe",
    onWarning: (warning) => printWarning(warning, { path, readOnly }, context),
    secretOf,
  };
}

/** `choice`: which image is opened, and whether it can be changed. */
export function printWarning(
  warning: Warning,
  choice: Pick<ImageChoice, "path" | "readOnly">,
  context: CommandContext,
): void {
  if (warning.code === "FORMAT_GUESSED_RAW") {
    if (!choice.readOnly) context.output.err(guessedRawText(choice.path));
  } else {
    printError(context, `warning: ${warning.message}`);
  }
}

/** What the stock tools say before a disk that was guessed to be raw is changed. */
export function guessedRawText(path: string): string {
  return `WARNING: Image format was not specified for '${path}' and probing guessed raw.
         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.
         Specify the 'raw' format explicitly to remove the restrictions.
`;
}
