import { isZcowError, ZcowError } from "../base/errors.js";
import { parseReference, resolveReference } from "../block/image-reference.js";
import { MAX_BACKING_DEPTH, refuseProtocol } from "../formats/backing-image.js";
import { type FormatName, formatDriver } from "../formats/registry.js";
import { fileIdentity } from "../storage/file-identity.js";
import type { Storage } from "../storage/storage.js";
import { type DescribeImageOptions, describeImage, type ImageInfo } from "./info.js";

/**
 * Describes the image `top`, a path or a storage, and all that are behind it, one after the other, nearest first; of each only the header is
 * read. The chain is followed as the images name it, whatever the open policy for reading would say. A storage that was passed in stays open.
 *
 * Fails as {@link describeImage}, with the name of the image that failed in `data.path`, with `BACKING_LOOP`,
 * `BACKING_TOO_DEEP`, `FILE_REFERENCE` and `PROTOCOL_UNKNOWN`.
 */
export async function* describeChain(top: string | Storage, options: DescribeImageOptions): AsyncGenerator<ImageInfo> {
  const seen = new Set<string>();
  let name = typeof top === "string" ? top : top.name;
  let source = top;
  let format = options.format;
  while (true) {
    const place = typeof source === "string" ? source : source.name;
    refuseEndless(seen, place, name);
    seen.add(fileIdentity(place));
    const info = await named(name, describeImage(source, { ...options, format }));
    yield info;
    if (info.backingFile === undefined) return;
    name = resolveReference(info.backingFile, info.filename);
    try {
      const reference = parseReference(name, info.backingFormat);
      refuseProtocol(reference);
      source = reference.path;
      format = reference.format === undefined ? "probe" : (formatDriver(reference.format).name as FormatName);
    } catch (error) {
      throw withName(name, error);
    }
  }
}

function refuseEndless(seen: ReadonlySet<string>, source: string, name: string): void {
  if (seen.has(fileIdentity(source))) {
    throw new ZcowError("BACKING_LOOP", `The backing file '${name}' is one of the images above it`, {
      data: { path: name, structure: "backing file", value: name },
      stockText: `Backing file '${name}' creates an infinite loop.`,
    });
  }
  if (seen.size <= MAX_BACKING_DEPTH) return;
  throw new ZcowError("BACKING_TOO_DEEP", `The chain of '${name}' is longer than ${MAX_BACKING_DEPTH} backing files`, {
    data: { path: name, structure: "backing file", value: name, limit: MAX_BACKING_DEPTH },
  });
}

async function named<T>(name: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw withName(name, error);
  }
}

/** The same error about the image as its overlay names it. */
function withName(name: string, error: unknown): unknown {
  if (!isZcowError(error)) return error;
  return new ZcowError(error.code, error.message, {
    data: { ...error.data, path: name },
    cause: error,
    ...(error.stockText === undefined ? {} : { stockText: error.stockText }),
  });
}
