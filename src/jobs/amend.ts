import { ZcowError } from "../base/errors.js";
import type { ImplicitFilePolicy } from "../block/open-policy.js";
import type { PassphraseSource } from "../block/passphrase.js";
import type { FormatChoice } from "../formats/open-image.js";
import type { KeySlotChange } from "../formats/qcow2/encryption/key-slots.js";
import { AUTOCLEAR, COMPATIBLE, INCOMPATIBLE } from "../formats/qcow2/features.js";
import type { Qcow2Header } from "../formats/qcow2/header.js";
import { readHeader } from "../formats/qcow2/header-read.js";
import { formatDriver, probeFormat } from "../formats/registry.js";
import { borrowedStorage } from "../storage/borrowed-storage.js";
import { openStorage } from "../storage/open-storage.js";
import type { Storage } from "../storage/storage.js";

/** What of an existing image is to change; what is left out stays as it is. */
export interface AmendImageOptions {
  readonly format: FormatChoice;
  /** Version of the format: `"0.10"` is version 2, `"1.1"` version 3. */
  readonly compat?: "0.10" | "1.1" | undefined;
  readonly lazyRefcounts?: boolean | undefined;
  /** Bits per reference count: a power of two from 1 to 64. */
  readonly refcountBits?: number | undefined;
  /** New size of the disk in bytes; a smaller one cuts it off. */
  readonly size?: number | undefined;
  /** Name of the external data file, for images that have one; an empty name takes it out of the image. */
  readonly dataFile?: string | undefined;
  /** `false` gives up the promise that the external data file is a raw image; it cannot be made later. */
  readonly dataFileRaw?: boolean | undefined;
  /** Converts the zoned extension and the write-pointer table, in place. */
  readonly zoneLayout?: "current" | undefined;
  /** Adds a passphrase to an image encrypted with LUKS, or erases some. */
  readonly encrypt?: KeySlotChange | undefined;
  /** Opens the image when it is encrypted. */
  readonly passphrase?: PassphraseSource | undefined;
  /** Files that the image names; default `"deny"`. Needed for `size` and `zoneLayout` where it names some. */
  readonly implicitFiles?: ImplicitFilePolicy | undefined;
  /** Told how much is done, from 0 to 1. */
  readonly onProgress?: ((done: number) => void) | undefined;
}

/**
 * Changes options of an existing image. Nobody may use it meanwhile. Each option is changed in one step that a crash cannot split; of
 * several, those before the crash are changed. An image that is already as asked stays untouched. A storage that was passed in stays open.
 *
 * Fails with `AMEND_UNSUPPORTED` for formats without options, `INVALID_ARGUMENT`, `DOWNGRADE`, `REFCOUNT_OVERFLOW` for counts that are too
 * narrow for the image, `NOT_SUPPORTED` and the `ZONED_*` codes for `zoneLayout`, the codes of `changeKeySlots` for `encrypt`, and as `openImage` and `resizeImage` do.
 */
export async function amendImage(source: string | Storage, options: AmendImageOptions): Promise<void> {
  if (typeof source !== "string") return amendStorage(borrowedStorage(source), options);
  if (options.format !== "probe") formatDriver(options.format);
  const storage = await openStorage(source, { writable: true });
  try {
    await amendStorage(storage, options);
  } finally {
    await storage.close();
  }
}

async function amendStorage(storage: Storage, options: AmendImageOptions): Promise<void> {
  const driver = options.format === "probe" ? await probeFormat(storage) : formatDriver(options.format);
  if (driver.name !== "qcow2") {
    throw new ZcowError("AMEND_UNSUPPORTED", `${storage.name} is ${driver.name}, which has no options to change`, {
      data: { path: storage.name, value: driver.name },
      stockText: `Format driver '${driver.name}' does not support option amendment`,
    });
  }
  const header = await readHeader(storage, { writable: true });
  requireConsistent(header, options);
  if (options.encrypt !== undefined) {
    const { changeKeySlots } = await import("../formats/qcow2/encryption/key-slots.js");
    await changeKeySlots(storage, header, options.passphrase, options.encrypt);
  }
  if (options.zoneLayout !== undefined) await convertLayout(storage, options);
  if (options.compat === "1.1" && header.version === 2) {
    await (await import("../formats/qcow2/rewrite/change-version.js")).upgradeImage(storage);
  }
  if (options.refcountBits !== undefined) await changeRefcountBits(storage, options.refcountBits, options);
  if (options.dataFile !== undefined || options.dataFileRaw === false) await changeDataFile(storage, options);
  if (options.lazyRefcounts !== undefined) await changeLazyRefcounts(storage, options.lazyRefcounts);
  if (options.size !== undefined && options.size !== header.size) {
    const { resizeImage } = await import("./resize.js");
    const { size, implicitFiles, passphrase } = options;
    await resizeImage(storage, { format: "qcow2", size, shrink: true, implicitFiles, passphrase });
  }
  if (options.compat === "0.10" && header.version === 3) {
    const { downgradeImage } = await import("../formats/qcow2/rewrite/change-version.js");
    await downgradeImage(storage, options.onProgress ?? (() => undefined));
  }
}

/** What contradicts itself or the image is refused before anything is changed. */
function requireConsistent(header: Qcow2Header, options: AmendImageOptions): void {
  const { refcountBits, lazyRefcounts, compat } = options;
  const version = compat === undefined ? header.version : compat === "1.1" ? 3 : 2;
  if (refcountBits !== undefined && ![1, 2, 4, 8, 16, 32, 64].includes(refcountBits)) {
    const stockText = "Refcount width must be a power of two and may not exceed 64 bits";
    throw invalid("refcount_bits", refcountBits, "is not a power of two from 1 to 64", stockText);
  }
  if (refcountBits !== undefined && refcountBits !== 16 && version === 2) {
    const stockText =
      "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)";
    throw invalid("refcount_bits", refcountBits, "needs version 3", stockText);
  }
  if (lazyRefcounts === true && version === 2) {
    const stockText =
      "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)";
    throw invalid("lazy_refcounts", true, "needs version 3", stockText);
  }
  const isExternal = (header.features.incompatible & INCOMPATIBLE.externalData) !== 0n;
  if (options.dataFile !== undefined && !isExternal) {
    const stockText = "data-file can only be set for images that use an external data file";
    throw invalid("data_file", options.dataFile, "is for images with an external data file", stockText);
  }
  if (options.dataFileRaw === true && !isRaw(header)) {
    throw invalid(
      "data_file_raw",
      true,
      "can be chosen for new images only",
      "data-file-raw cannot be set on existing images",
    );
  }
}

const RAW_EXTERNAL = AUTOCLEAR.rawExternalData;

function isRaw(header: Qcow2Header): boolean {
  return (header.features.autoclear & RAW_EXTERNAL) !== 0n;
}

function invalid(option: string, value: string | number | boolean, why: string, stockText: string): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", `Option ${option}: ${value} ${why}`, { data: { option, value }, stockText });
}

async function convertLayout(
  storage: Storage,
  { passphrase, implicitFiles = "deny" }: AmendImageOptions,
): Promise<void> {
  const { openEngine } = await import("../formats/qcow2/open.js");
  const { convertZonedLayout } = await import("../formats/qcow2/zones/open-zones.js");
  const engine = await openEngine(borrowedStorage(storage), { readOnly: false, passphrase, implicitFiles });
  try {
    await convertZonedLayout(engine);
  } finally {
    await engine.close();
  }
}

async function changeRefcountBits(storage: Storage, bits: number, options: AmendImageOptions): Promise<void> {
  const { ImageAtRest } = await import("../formats/qcow2/rewrite/image-at-rest.js");
  const image = await ImageAtRest.open(storage, Math.log2(bits));
  if (image.geometry.refcountBits !== bits) await image.commit({}, options.onProgress);
}

async function changeLazyRefcounts(storage: Storage, lazy: boolean): Promise<void> {
  const { ImageAtRest } = await import("../formats/qcow2/rewrite/image-at-rest.js");
  const { header } = await ImageAtRest.open(storage);
  const others = header.features.compatible & ~COMPATIBLE.lazyRefcounts;
  const compatible = lazy ? others | COMPATIBLE.lazyRefcounts : others;
  if (compatible === header.features.compatible || header.version === 2) return;
  const { switchTables } = await import("../formats/qcow2/rewrite/switch-header.js");
  await switchTables(storage, { ...header, features: { ...header.features, compatible } });
}

/** The name and the promise of the external data file are words in the header. */
async function changeDataFile(storage: Storage, { dataFile, dataFileRaw }: AmendImageOptions): Promise<void> {
  const { replaceHeader } = await import("../formats/qcow2/header-replace.js");
  const { EXTENSION, withExtension } = await import("../formats/qcow2/extensions.js");
  const { encodeFileName } = await import("../formats/qcow2/file-name.js");
  const header = await readHeader(storage, { writable: true });
  const autoclear = dataFileRaw === false ? header.features.autoclear & ~RAW_EXTERNAL : header.features.autoclear;
  const name = dataFile === undefined || dataFile === "" ? undefined : encodeFileName(dataFile);
  const extensions =
    dataFile === undefined ? header.extensions : withExtension(header.extensions, EXTENSION.dataFile, name);
  const changed = { ...header, features: { ...header.features, autoclear }, extensions };
  await replaceHeader(storage, changed, () => storage.flush());
}
