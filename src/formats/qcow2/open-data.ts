import type { FormatLookup, OpenDeviceOptions } from "../../block/format-driver.js";
import type { Storage } from "../../storage/storage.js";
import { INCOMPATIBLE } from "./features.js";
import { type GuestData, ImageFileData } from "./guest-data.js";
import type { Qcow2Header } from "./header.js";

/**
 * Where the guest bytes of a writable image live, without the rest of the image: in the image file or in the data file that it names,
 * behind the cipher of the image if it is encrypted. Closing it leaves `storage` open. Fails as opening the image does.
 */
export async function openGuestData(
  header: Qcow2Header,
  storage: Storage,
  options: OpenDeviceOptions,
  formats: FormatLookup,
): Promise<GuestData> {
  const data = await placeOf(header, storage, options, formats);
  if (header.cryptMethod === 0) return data;
  try {
    const { openEncryptedData } = await import("./encryption/open-encryption.js");
    return await openEncryptedData(storage, header, options.passphrase, data);
  } catch (error) {
    await data.close();
    throw error;
  }
}

async function placeOf(
  header: Qcow2Header,
  storage: Storage,
  options: OpenDeviceOptions,
  formats: FormatLookup,
): Promise<GuestData> {
  if ((header.features.incompatible & INCOMPATIBLE.externalData) === 0n) return new ImageFileData(storage);
  const { openReferencedFiles } = await import("./referenced-files.js");
  const { data } = await openReferencedFiles(header, storage, { ...options, backing: "none", writable: true }, formats);
  if (data === undefined) throw new Error("a header with the feature names a data file");
  return data;
}
