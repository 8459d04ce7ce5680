import { ZcowError } from "../../base/errors.js";
import { MiB } from "../../base/units.js";
import type { BlockDevice } from "../../block/block-device.js";
import type { FormatDriver, FormatLookup, OpenDeviceOptions } from "../../block/format-driver.js";
import type { Storage } from "../../storage/storage.js";
import { rawDriver } from "../raw/driver.js";
import type { ImageBitmaps } from "./bitmaps/image-bitmaps.js";
import { Qcow2Device } from "./device.js";
import { ClusterEngine } from "./engine.js";
import { INCOMPATIBLE } from "./features.js";
import { type Qcow2Geometry, qcow2Geometry } from "./geometry.js";
import { type GuestData, ImageFileData } from "./guest-data.js";
import type { Qcow2Header } from "./header.js";
import { hasQcow2Magic } from "./header-fields.js";
import { readHeader } from "./header-read.js";
import type { ReferencedFiles } from "./referenced-files.js";
import { readL1 } from "./root-table.js";
import { sessionOf, unfinishedSession } from "./session.js";
import type { OpenZonesOptions } from "./zones/open-zones.js";
import type { ZonedQcow2Device } from "./zones/zoned-device.js";

/** Cache for L2 tables and refcount blocks: maps 192 GiB at a time with 64 KiB clusters. */
export const DEFAULT_CACHE_BYTES = 32 * MiB;

/** The formats of backing images when nobody says which there are. */
const OWN_FORMATS: readonly FormatDriver[] = [
  {
    name: "qcow2",
    creatable: true,
    compresses: true,
    probe: hasQcow2Magic,
    open: (storage, options): Promise<BlockDevice> => openQcow2(storage, options),
  },
  rawDriver,
];
const OWN_LOOKUP: FormatLookup = {
  byName: (name) => {
    const driver = OWN_FORMATS.find((candidate) => candidate.name === name);
    if (driver !== undefined) return driver;
    throw new ZcowError("FORMAT_UNKNOWN", `there is no format '${name}' here; known formats: qcow2, raw`, {
      data: { option: "format", value: name },
      stockText: `Unknown driver '${name}'`,
    });
  },
  recognise: (head) => OWN_FORMATS.find((driver) => driver.probe(head)) ?? rawDriver,
};

/** What opening a qcow2 image can be told beside what every format can. */
export type OpenQcow2Options = OpenDeviceOptions & Pick<OpenZonesOptions, "upgradeSeedLayout">;

/**
 * Opens the disk of a qcow2 image; a zoned one when the image is zoned. Reads the header, the L1 table and the
 * write-pointer table only; the rest follows as it is needed.
 *
 * Its backing image and its data file are opened with it, and closed with it. They need the leave of `options.implicitFiles`
 * (`IMPLICIT_FILE_DENIED`), unless they are given in the options. Read-only opens change nothing. An image with the dirty bit is repaired first when it is opened for writing; bad write pointers are refused.
 * Throws the `QCOW2_*` and `ZONED_*` codes of the header, `BACKING_*` and `FILE_REFERENCE` for chains that cannot be, `UNSUPPORTED_*` for features that are not built yet, `IMAGE_CORRUPT` when a dirty image cannot be repaired, and the codes of the storage.
 */
export async function openQcow2(
  storage: Storage,
  options: OpenQcow2Options = {},
): Promise<Qcow2Device | ZonedQcow2Device> {
  const engine = await openEngine(storage, options);
  if (engine.header.zoned === undefined) return new Qcow2Device(engine);
  const { openZonedDevice } = await import("./zones/open-zones.js");
  try {
    return await openZonedDevice(engine, options);
  } catch (error) {
    await engine.closeReferenced();
    throw error;
  }
}

/** Opens the engine alone: what the plain and the zoned device share. */
export async function openEngine(storage: Storage, options: OpenEngineOptions = {}): Promise<ClusterEngine> {
  const cacheBytes = cacheBytesOf(options);
  const writable = !(options.readOnly ?? !storage.capabilities.writable);
  if (writable && !storage.capabilities.writable) {
    throw new ZcowError("READ_ONLY", `${storage.name} is open for reading only`, { data: { path: storage.name } });
  }
  const onWarning = options.onWarning ?? ((): void => undefined);
  const onFinding = (finding: ZcowError): void =>
    onWarning({ code: finding.code, message: finding.message, data: finding.data });
  const dataFileGiven = options.dataFile !== undefined;
  let header = await readHeader(storage, { writable, onFinding, dataFileGiven });
  const files = await openFiles(header, storage, { ...options, writable });
  try {
    // Before anything is changed: who cannot open the image does not repair it either.
    const data = await decrypted(storage, header, options, files.data);
    if (sessionOf(header) !== undefined) {
      if (writable) {
        const { resumeSession } = await import("./resume-session.js");
        header = await resumeSession(storage, header, onWarning, options.journal);
      } else {
        onWarning(unfinishedSession(storage.name));
      }
    }
    if (writable && (header.features.incompatible & INCOMPATIBLE.dirty) !== 0n)
      header = await repairDirty(storage, header, dataFileGiven);
    if (options.snapshot !== undefined) {
      const { headerOfSnapshot } = await import("./snapshots/snapshot-view.js");
      header = await headerOfSnapshot(storage, header, options.snapshot, writable);
    }
    const geometry = options.pastEnd === true ? geometryPastEnd(header) : geometryOf(header);
    const l1 = await readL1(storage, header);
    const bitmaps = writable ? (options.bitmaps ?? (await bitmapsOf(storage, header, options.withBitmaps))) : undefined;
    const { journal } = options;
    return new ClusterEngine({
      storage,
      geometry,
      header,
      l1,
      writable,
      cacheBytes,
      onWarning,
      journal,
      bitmaps,
      ...files,
      ...data,
    });
  } catch (error) {
    if (options.dataFile === undefined) await files.data?.close();
    if (options.backing === undefined) await files.backing?.close();
    throw error;
  }
}

/** Most images stand alone. */
async function openFiles(
  header: Qcow2Header,
  storage: Storage,
  options: OpenDeviceOptions & { readonly writable: boolean },
): Promise<ReferencedFiles> {
  const external = (header.features.incompatible & INCOMPATIBLE.externalData) !== 0n;
  if (!external && header.backingFileName === undefined && options.backing === undefined) return {};
  const { openReferencedFiles } = await import("./referenced-files.js");
  return openReferencedFiles(header, storage, options, options.formats ?? OWN_LOOKUP);
}

/** What opening the engine alone can be told besides. */
export interface OpenEngineOptions extends OpenDeviceOptions {
  /** Bitmaps may be added to an image that has none. */
  readonly withBitmaps?: boolean;
  /** What lies behind the end of the disk can be reached, too, as far as the L1 table goes. Default false. */
  readonly pastEnd?: boolean;
  /** Stand in for the bitmaps as they are in the file. */
  readonly bitmaps?: ImageBitmaps;
}

/** Most images have no bitmaps. */
async function bitmapsOf(storage: Storage, header: Qcow2Header, always = false): Promise<ImageBitmaps | undefined> {
  if (header.bitmaps === undefined && !always) return undefined;
  const { ImageBitmaps } = await import("./bitmaps/image-bitmaps.js");
  return ImageBitmaps.load(storage, header);
}

/** Guest data as it lies in `data` (default: in the image file), behind the cipher of the image if it is encrypted. */
async function decrypted(
  storage: Storage,
  header: Qcow2Header,
  { passphrase }: OpenDeviceOptions,
  data: GuestData = new ImageFileData(storage),
): Promise<{ readonly data?: GuestData }> {
  if (header.cryptMethod === 0) return {};
  const { openEncryptedData } = await import("./encryption/open-encryption.js");
  return { data: await openEncryptedData(storage, header, passphrase, data) };
}

function geometryOf(header: Qcow2Header): Qcow2Geometry {
  return qcow2Geometry({
    size: header.size,
    version: header.version,
    clusterBits: header.clusterBits,
    refcountOrder: header.refcountOrder,
    extendedL2: (header.features.incompatible & INCOMPATIBLE.extendedL2) !== 0n,
    externalData: (header.features.incompatible & INCOMPATIBLE.externalData) !== 0n,
  });
}

function geometryPastEnd(header: Qcow2Header): Qcow2Geometry {
  const { l2Coverage } = geometryOf(header);
  return geometryOf({ ...header, size: header.l1Size * l2Coverage });
}

function cacheBytesOf({ cacheBytes = DEFAULT_CACHE_BYTES }: OpenDeviceOptions): number {
  if (Number.isSafeInteger(cacheBytes) && cacheBytes >= 0) return cacheBytes;
  throw new ZcowError("INVALID_ARGUMENT", `cacheBytes ${cacheBytes} is not a whole number of bytes from 0 to 2^53-1`, {
    data: { option: "cacheBytes", value: cacheBytes, limit: Number.MAX_SAFE_INTEGER },
  });
}

/** Refcounts were not up to date when the image was last in use: rebuilds them, silently as the stock tool does. */
export async function repairDirty(storage: Storage, damaged: Qcow2Header, dataFileGiven = false): Promise<Qcow2Header> {
  const { requireSoundPointers } = await import("./zones/stored-pointers.js");
  await requireSoundPointers(storage, damaged);
  const { checkQcow2 } = await import("./check/check.js");
  const result = await checkQcow2(storage, { repair: "all", structures: false });
  const header = await readHeader(storage, { writable: true, dataFileGiven });
  if ((header.features.incompatible & INCOMPATIBLE.dirty) === 0n) return header;
  throw new ZcowError(
    result.findings.some(({ kind }) => kind === "io-error") ? "IO_ERROR" : "IMAGE_CORRUPT",
    `${storage.name} was not closed properly and could not be repaired: ${result.corruptions} corruptions and ${result.checkErrors} errors are left`,
    {
      data: { structure: "header", field: "incompatible_features", path: storage.name },
      stockText: "Could not repair dirty image: Input/output error",
    },
  );
}
