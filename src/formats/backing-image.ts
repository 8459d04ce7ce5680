import { ZcowError } from "../base/errors.js";
import type { BlockDevice } from "../block/block-device.js";
import { type FormatDriver, type FormatLookup, type OpenDeviceOptions, PROBE_LENGTH } from "../block/format-driver.js";
import { type ImageReference, parseReference, resolveReference } from "../block/image-reference.js";
import { permitImplicitFile } from "../block/open-policy.js";
import { fileIdentity } from "../storage/file-identity.js";
import { isRemoteName, openStorage } from "../storage/open-storage.js";
import type { Storage } from "../storage/storage.js";

/**
 * Longest chain of backing images below one image. Each takes an open file, a cache and a level of nested calls per read; the
 * tools that manage chains stop at 200 as well.
 */
export const MAX_BACKING_DEPTH = 200;
/** Bytes for cached tables of a backing image: many may be open at once, and each is read only where those above have nothing. */
const BACKING_CACHE_BYTES = 4 * 2 ** 20;

/** What an image says about the image behind it. */
export interface BackingReference {
  /** As the image has it. */
  readonly name: string;
  readonly format: string | undefined;
  /** The storage that the image is in. */
  readonly image: Storage;
}

/**
 * Opens the backing image that an image names, read-only, with all that is behind it.
 *
 * Fails with `IMPLICIT_FILE_DENIED`, `FORMAT_UNKNOWN` (none recorded, and guessing is not allowed), `FILE_REFERENCE`,
 * `PROTOCOL_UNKNOWN`, `BACKING_LOOP`, `BACKING_TOO_DEEP`, and as opening an image does.
 */
export async function openBackingImage(
  reference: BackingReference,
  options: OpenDeviceOptions,
  formats: FormatLookup,
): Promise<BlockDevice> {
  const { name, format, image } = reference;
  const file = { role: "backing file", name, format, image: image.name } as const;
  const mayGuess = await permitImplicitFile(options.implicitFiles ?? "deny", file);
  try {
    return await openNamed(
      parseReference(resolveReference(name, image.name), format),
      { reference, mayGuess },
      options,
      formats,
    );
  } catch (error) {
    throw withBackingSubject(error);
  }
}

interface Asked {
  readonly reference: BackingReference;
  readonly mayGuess: boolean;
}

async function openNamed(
  parsed: ImageReference,
  { reference, mayGuess }: Asked,
  options: OpenDeviceOptions,
  formats: FormatLookup,
): Promise<BlockDevice> {
  const { image } = reference;
  const overlays = [fileIdentity(image.name), ...(options.overlays ?? [])];
  refuseEndless(parsed.path, reference, overlays);
  const driver = parsed.format === undefined ? undefined : formats.byName(parsed.format);
  if (driver === undefined && !mayGuess) throw formatMissing(reference);
  const storage = await openReferencedFile(parsed, false, options);
  try {
    const found = driver ?? (await recognise(storage, formats));
    return await found.open(storage, {
      readOnly: true,
      cacheBytes: Math.min(BACKING_CACHE_BYTES, options.cacheBytes ?? BACKING_CACHE_BYTES),
      formats,
      overlays,
      ...(options.implicitFiles === undefined ? {} : { implicitFiles: options.implicitFiles }),
      ...(options.onWarning === undefined ? {} : { onWarning: options.onWarning }),
      ...(options.openFile === undefined ? {} : { openFile: options.openFile }),
      // A function is told which image asks; a passphrase by itself is that of the image it was given for.
      passphrase: typeof options.passphrase === "function" ? options.passphrase : undefined,
    });
  } catch (error) {
    await storage.close();
    throw error;
  }
}

/** Opens the file that a name stands for. */
export function openReferencedFile(
  reference: ImageReference,
  writable: boolean,
  { openFile, onWarning }: OpenDeviceOptions,
): Promise<Storage> {
  refuseProtocol(reference);
  const { path } = reference;
  if (openFile !== undefined) return openFile(path, { writable });
  return openStorage(path, { writable, ...(onWarning === undefined ? {} : { onWarning }) });
}

/** Fails with `PROTOCOL_UNKNOWN` for what is no file of the host. */
export function refuseProtocol({ protocol, path }: ImageReference): void {
  if (protocol === "file" || isRemoteName(path)) return;
  throw new ZcowError("PROTOCOL_UNKNOWN", `'${path}' needs the protocol ${protocol}, which is not known`, {
    data: { path, value: protocol },
    stockText: `Unknown protocol '${protocol}'`,
  });
}

async function recognise(storage: Storage, formats: FormatLookup): Promise<FormatDriver> {
  const head = new Uint8Array(Math.min(PROBE_LENGTH, storage.size()));
  await storage.read(0, head);
  return formats.recognise(head);
}

function refuseEndless(path: string, { name, image }: BackingReference, overlays: readonly string[]): void {
  const data = { path: image.name, structure: "backing file", value: name };
  if (overlays.includes(fileIdentity(path))) {
    throw new ZcowError("BACKING_LOOP", `${image.name}: its backing file '${path}' is one of the images above it`, {
      data,
      stockText: `Backing file '${path}' creates an infinite loop.`,
    });
  }
  if (overlays.length <= MAX_BACKING_DEPTH) return;
  throw new ZcowError(
    "BACKING_TOO_DEEP",
    `${image.name}: its backing file '${path}' is number ${overlays.length} of the chain, and the limit is ${MAX_BACKING_DEPTH}`,
    { data: { ...data, limit: MAX_BACKING_DEPTH } },
  );
}

function formatMissing({ name, image }: BackingReference): ZcowError {
  return new ZcowError(
    "FORMAT_UNKNOWN",
    `${image.name} does not record the format of its backing file '${name}', and the open policy does not allow guessing`,
    { data: { path: image.name, structure: "backing file", value: name } },
  );
}

/** The stock tools say at each level of a chain that the backing file could not be opened. */
function withBackingSubject(error: unknown): unknown {
  if (!(error instanceof ZcowError)) return error;
  return new ZcowError(error.code, error.message, {
    data: error.data,
    cause: error,
    stockText: `Could not open backing file: ${error.stockText ?? error.message}`,
  });
}
