import { ZcowError } from "../../base/errors.js";
import { isPromise } from "../../base/maybe-promise.js";
import type { BlockDevice } from "../../block/block-device.js";
import type { OpenDeviceOptions } from "../../block/format-driver.js";
import type { PassphraseSource } from "../../block/passphrase.js";
import { isZonedDevice } from "../../block/zoned-device.js";
import { type FormatChoice, openImage, warnAboutGuess } from "../../formats/open-image.js";
import { readHeader } from "../../formats/qcow2/header-read.js";
import { FORMATS, formatDriver, probeFormat } from "../../formats/registry.js";
import { borrowedStorage } from "../../storage/borrowed-storage.js";
import { openFileStorage } from "../../storage/file-storage.js";
import type { Storage } from "../../storage/storage.js";
import { type ChainLink, linksTo, noBase, openLink, openOver } from "./chain.js";
import { committedRuns } from "./committed-runs.js";
import { type Pace, RunCopier } from "./copy-runs.js";

/** How an overlay is committed. */
export interface CommitImageOptions extends Pick<OpenDeviceOptions, "onWarning" | "implicitFiles" | "openFile"> {
  readonly format: FormatChoice;
  /** The image of the chain that gets the data, by the name that its overlay has for it or by path. Default: the one right behind. */
  readonly base?: string | undefined;
  /** Leave the overlay as it is, in place of emptying it. Default false. */
  readonly keepOverlay?: boolean;
  /** Bytes per second; 0 or left out: no limit. */
  readonly rate?: number | undefined;
  /** Opens images of the chain that are encrypted. */
  readonly passphrase?: PassphraseSource | undefined;
  /** Bypass the page cache. Default false. */
  readonly direct?: boolean;
  /** Bytes done, and to do. */
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Brings what an overlay, and the images between, have over a base into that base, which becomes larger if it has to be. The
 * overlay is emptied then: the disk reads the same. Nobody may use the images meanwhile; images between, and other overlays of
 * the base, read differently afterwards.
 *
 *     step                                           | a crash in this step leaves
 *     -----------------------------------------------+-----------------------------------------------------
 *     the base gets larger                           | the overlay reads the same: nothing shows there
 *     data and zeros are written to the base         | the overlay reads the same: it has its own of all that
 *     the base is flushed and closed                 | the same
 *     the overlay is emptied: one sector of its      | the overlay with its data, or empty over a base that has
 *     header (image-at-rest.ts)                      | them; both read the same
 *
 * A storage that was passed in stays open. Fails with `NO_BACKING_FILE`, `BASE_NOT_FOUND`, `NOT_SUPPORTED` for bases that
 * cannot hold it, and as `openImage` and `resizeImage` do.
 */
export async function commitImage(source: string | Storage, options: CommitImageOptions): Promise<void> {
  if (options.format !== "probe") formatDriver(options.format);
  const storage =
    typeof source === "string" ? await openFileStorage(source, fileOptions(options)) : borrowedStorage(source);
  try {
    const driver = options.format === "probe" ? await probeFormat(storage) : formatDriver(options.format);
    if (options.format === "probe" && driver.name === "raw") warnAboutGuess(storage, options.onWarning);
    await commitStorage(storage, driver.name === "qcow2", options);
  } finally {
    await storage.close();
  }
}

function fileOptions({ direct = false, onWarning }: CommitImageOptions): Parameters<typeof openFileStorage>[1] {
  return { writable: true, direct, ...(onWarning === undefined ? {} : { onWarning }) };
}

async function commitStorage(storage: Storage, hasBacking: boolean, options: CommitImageOptions): Promise<void> {
  if (!hasBacking) throw noBase(storage, options.base);
  // What is said to be qcow2 and is not is told about as such.
  await readHeader(storage, { writable: true });
  const surroundings = surroundingsOf(options);
  const links = await linksTo(storage, options.base, surroundings);
  const top = await openChain(storage, links, options);
  try {
    await copyDown(top, links.length, options);
    const wait = top.base.flush();
    if (isPromise(wait)) await wait;
  } finally {
    // Its chain, with the base, closes with it.
    await top.disk.close();
    await top.baseStorage.close();
  }
  if (options.keepOverlay !== true) await emptyOverlay(storage, options);
}

async function emptyOverlay(storage: Storage, { passphrase }: CommitImageOptions): Promise<void> {
  const { ImageAtRest } = await import("../../formats/qcow2/rewrite/image-at-rest.js");
  const { emptyDisk } = await import("../../formats/qcow2/rewrite/empty-disk.js");
  const image = await ImageAtRest.open(storage);
  await emptyDisk(image);
  // Next to nothing is left, at the end of the file; what snapshots hold is not worth moving.
  if (image.header.snapshotCount > 0 || image.geometry.externalData) return;
  const { compactQcow2 } = await import("../../formats/qcow2/compact/compact.js");
  await compactQcow2(storage, passphrase === undefined ? {} : { passphrase });
}

type Surroundings = Pick<OpenDeviceOptions, "implicitFiles" | "openFile" | "onWarning">;

function surroundingsOf({ implicitFiles, openFile, onWarning, direct }: CommitImageOptions): Surroundings {
  const file = (path: string, { writable }: { readonly writable: boolean }): Promise<Storage> =>
    openFileStorage(path, { writable, direct: true });
  return {
    ...(implicitFiles === undefined ? {} : { implicitFiles }),
    ...(onWarning === undefined ? {} : { onWarning }),
    ...(openFile === undefined ? (direct === true ? { openFile: file } : {}) : { openFile }),
  };
}

interface OpenedChain {
  readonly disk: BlockDevice;
  readonly base: BlockDevice;
  readonly baseStorage: Storage;
}

async function openChain(
  storage: Storage,
  links: readonly ChainLink[],
  options: CommitImageOptions,
): Promise<OpenedChain> {
  const surroundings = surroundingsOf(options);
  const { passphrase } = options;
  const baseStorage = await openLink((links.at(-1) as ChainLink).path, true, surroundings);
  let backing: BlockDevice | undefined;
  try {
    const size = await diskSize(storage, passphrase);
    const base = await openBase(baseStorage, links.at(-1) as ChainLink, size, options);
    backing = base;
    backing = await openOver(links, base, surroundings, passphraseBelow(passphrase));
    const image = borrowedStorage(storage);
    const disk = await openImage(image, { format: "qcow2", formats: FORMATS, passphrase, backing, ...surroundings });
    return { disk, base, baseStorage };
  } catch (error) {
    await backing?.close();
    await baseStorage.close();
    throw error;
  }
}

/** A passphrase by itself is that of the image it was given for; a function is told which image asks. */
function passphraseBelow(passphrase: PassphraseSource | undefined): PassphraseSource | undefined {
  return typeof passphrase === "function" ? passphrase : undefined;
}

async function diskSize(storage: Storage, passphrase: PassphraseSource | undefined): Promise<number> {
  const image = borrowedStorage(storage);
  const device = await openImage(image, {
    format: "qcow2",
    readOnly: true,
    backing: "none",
    passphrase,
    implicitFiles: "allow",
  });
  const { size } = device;
  await device.close();
  return size;
}

/** The base, as large as the disk that is brought into it at least. */
async function openBase(
  storage: Storage,
  { format }: ChainLink,
  size: number,
  options: CommitImageOptions,
): Promise<BlockDevice> {
  const open = (): Promise<BlockDevice> =>
    openImage(borrowedStorage(storage), {
      format,
      readOnly: false,
      passphrase: passphraseBelow(options.passphrase),
      ...surroundingsOf(options),
    });
  const base = await open();
  if (base.size >= size) return base;
  await base.close();
  const { resizeImage } = await import("../resize.js");
  const { implicitFiles = "deny" } = options;
  await resizeImage(borrowedStorage(storage), { format, size, implicitFiles });
  return open();
}

async function copyDown({ disk, base }: OpenedChain, baseDepth: number, options: CommitImageOptions): Promise<void> {
  if (!isZonedDevice(disk) && isZonedDevice(base)) {
    throw new ZcowError(
      "NOT_SUPPORTED",
      `${base.name} is zoned, and ${disk.name} over it is not: it may have been written anywhere`,
      {
        data: { path: base.name },
      },
    );
  }
  let total = 0;
  for await (const run of committedRuns(disk, baseDepth)) total += run.length;
  let done = 0;
  const pace: Pace = {
    rate: options.rate,
    onBytes: (count) => {
      done += count;
      options.onProgress?.(Math.min(done, total), total);
    },
  };
  if (isZonedDevice(disk)) {
    const { commitZones } = await import("./commit-zones.js");
    return commitZones(disk, base, baseDepth, pace);
  }
  const copier = new RunCopier(disk, base, pace);
  try {
    for await (const run of committedRuns(disk, baseDepth)) await copier.copy(run);
  } finally {
    await copier.settled();
  }
}
