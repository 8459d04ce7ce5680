import { ZcowError } from "../../base/errors.js";
import type { BlockDevice } from "../../block/block-device.js";
import type { FormatLookup, OpenDeviceOptions } from "../../block/format-driver.js";
import { parseReference } from "../../block/image-reference.js";
import { permitImplicitFile } from "../../block/open-policy.js";
import type { Storage } from "../../storage/storage.js";
import { openBackingImage, openReferencedFile } from "../backing-image.js";
import { ExternalData } from "./external-data.js";
import { AUTOCLEAR, INCOMPATIBLE } from "./features.js";
import type { GuestData } from "./guest-data.js";
import type { Qcow2Header } from "./header.js";

/** The files beside the image file, open. */
export interface ReferencedFiles {
  readonly data?: GuestData;
  readonly backing?: BlockDevice;
}

/**
 * Opens what the header names, or takes what the options give in its place: first the external data file, then the backing image.
 * Fails with `IMPLICIT_FILE_DENIED`, and as `openBackingImage` does; then nothing stays open.
 */
export async function openReferencedFiles(
  header: Qcow2Header,
  image: Storage,
  options: OpenDeviceOptions & { readonly writable: boolean },
  formats: FormatLookup,
): Promise<ReferencedFiles> {
  const data = await openData(header, image, options);
  try {
    const backing = await openBacking(header, image, options, formats);
    return { ...(data === undefined ? {} : { data }), ...(backing === undefined ? {} : { backing }) };
  } catch (error) {
    if (options.dataFile === undefined) await data?.close();
    throw error;
  }
}

async function openData(
  header: Qcow2Header,
  image: Storage,
  options: OpenDeviceOptions & { readonly writable: boolean },
): Promise<GuestData | undefined> {
  if ((header.features.incompatible & INCOMPATIBLE.externalData) === 0n) return undefined;
  const storage = options.dataFile ?? (await openDataFile(header, image, options));
  if (options.writable && !storage.capabilities.writable) {
    throw new ZcowError("READ_ONLY", `${storage.name}, the data file of ${image.name}, is open for reading only`, {
      data: { path: storage.name, structure: "data file" },
    });
  }
  return new ExternalData(storage, header.size, (header.features.autoclear & AUTOCLEAR.rawExternalData) !== 0n);
}

/** The name is used as it stands: as the stock tools have it, a relative one starts in the working directory. */
async function openDataFile(
  { dataFileName }: Qcow2Header,
  image: Storage,
  options: OpenDeviceOptions & { readonly writable: boolean },
): Promise<Storage> {
  if (dataFileName === undefined) throw new Error("a header without the name passes only where the file is given");
  const file = { role: "data file", name: dataFileName, format: "raw", image: image.name } as const;
  await permitImplicitFile(options.implicitFiles ?? "deny", file);
  return openReferencedFile(parseReference(dataFileName, "raw"), options.writable, options);
}

async function openBacking(
  header: Qcow2Header,
  image: Storage,
  options: OpenDeviceOptions,
  formats: FormatLookup,
): Promise<BlockDevice | undefined> {
  if (options.backing !== undefined) return options.backing === "none" ? undefined : options.backing;
  const { backingFileName: name, backingFormat: format } = header;
  return name === undefined ? undefined : openBackingImage({ name, format, image }, options, formats);
}
