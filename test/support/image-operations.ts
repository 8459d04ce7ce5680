import type { ErrorCode } from "../../src/base/error-codes.js";
import type { BlockDevice } from "../../src/block/block-device.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { amendImage } from "../../src/jobs/amend.js";
import { type BitmapAction, changeBitmap } from "../../src/jobs/bitmap.js";
import { compactImage } from "../../src/jobs/compact.js";
import { resizeImage } from "../../src/jobs/resize.js";
import { applySnapshot, createSnapshot, deleteSnapshot } from "../../src/jobs/snapshot.js";
import { borrowedStorage } from "../../src/storage/borrowed-storage.js";
import { CRASH_PASSPHRASE } from "./crash-geometries.js";
import type { ImageOperation } from "./operation-crash.js";
import type { FeatureImage } from "./operation-images.js";

/** Every operation that rewrites an image in place. */

const KIB = 1024;
const qcow2 = { format: "qcow2" } as const;
const passphrase = CRASH_PASSPHRASE;
const SECOND_PASSPHRASE = "a second key";

function bitmap(name: string, ...actions: BitmapAction[]): ImageOperation["run"] {
  return (storage) => changeBitmap(storage, { ...qcow2, name, actions, passphrase });
}

function resize(size: number, more: Partial<Parameters<typeof resizeImage>[1]> = {}): ImageOperation["run"] {
  return (storage) => resizeImage(storage, { ...qcow2, size, implicitFiles: "allow", passphrase, ...more });
}

/** Grows the disk as one that is open and has been written to, then closes it. */
function growInUse(size: number): ImageOperation["run"] {
  return async (storage, { files }) => {
    const device: BlockDevice = await openQcow2(borrowedStorage(storage), { ...files?.(), passphrase });
    try {
      await device.grow?.(size);
    } finally {
      await device.close();
    }
  };
}

function amend(change: Omit<Parameters<typeof amendImage>[1], "format">): ImageOperation["run"] {
  return (storage) => amendImage(storage, { ...qcow2, passphrase, implicitFiles: "allow", ...change });
}

const OPERATION_LIST = [
  { name: "snapshot create", run: (storage) => createSnapshot(storage, { ...qcow2, name: "new" }) },
  { name: "snapshot apply", run: (storage) => applySnapshot(storage, { ...qcow2, snapshot: "old" }) },
  { name: "snapshot delete", run: (storage) => deleteSnapshot(storage, { ...qcow2, snapshot: "old" }) },
  { name: "bitmap add", run: bitmap("added", { do: "add", granularity: 512 }), leaks: true },
  { name: "bitmap remove", run: bitmap("kept", { do: "remove" }), leaks: true },
  { name: "bitmap clear", run: bitmap("kept", { do: "clear" }), leaks: true },
  { name: "bitmap disable", run: bitmap("kept", { do: "disable" }), leaks: true },
  { name: "bitmap merge", run: bitmap("rough", { do: "merge", from: "kept" }), leaks: true },
  { name: "grow", run: resize(400 * KIB), leaks: true },
  { name: "grow by a table", run: resize(9 * 1024 * KIB), leaks: true },
  { name: "grow with metadata", run: resize(400 * KIB, { preallocation: "metadata" }), leaks: true },
  { name: "grow with space", run: resize(400 * KIB, { preallocation: "full" }), leaks: true },
  { name: "grow in use", run: growInUse(400 * KIB), leaks: true },
  { name: "grow in use by a table", run: growInUse(9 * 1024 * KIB), leaks: true },
  { name: "shrink", run: resize(50 * KIB + 512, { shrink: true }), inSteps: true, leaks: true },
  { name: "narrower counts", run: amend({ refcountBits: 4 }) },
  { name: "wider counts", run: amend({ refcountBits: 64 }) },
  { name: "lazy counts", run: amend({ lazyRefcounts: true }) },
  { name: "version 2", run: amend({ compat: "0.10" }), inSteps: true },
  { name: "version 3", run: amend({ compat: "1.1" }), inSteps: true },
  { name: "data file name", run: amend({ dataFile: `/somewhere/else/${"long/".repeat(90)}data.raw` }) },
  { name: "data file not raw", run: amend({ dataFileRaw: false }) },
  {
    name: "key added",
    run: amend({ encrypt: { state: "active", newPassphrase: SECOND_PASSPHRASE, iterTime: 1 } }),
  },
  { name: "key erased", run: amend({ encrypt: { state: "inactive", keyslot: 0 } }), leaks: true },
  { name: "zone layout", run: amend({ zoneLayout: "current" }), leaks: true },
  { name: "compact", run: (storage) => compactImage(storage, { ...qcow2, passphrase }), leaks: true },
] as const satisfies readonly ImageOperation[];

type OperationName = (typeof OPERATION_LIST)[number]["name"];

/** What is done to an image of a kind; `refused`: the code of the error instead. */
export interface PlannedOperation {
  readonly operation: ImageOperation;
  readonly refused: ErrorCode | undefined;
}

const SNAPSHOT_WORK: readonly OperationName[] = ["snapshot create", "snapshot apply", "snapshot delete"];
const RESIZES: readonly OperationName[] = [
  "grow",
  "grow by a table",
  "grow with metadata",
  "grow with space",
  "grow in use",
  "grow in use by a table",
  "shrink",
];
const COUNTS: readonly OperationName[] = ["narrower counts", "wider counts", "lazy counts"];

/** Every operation that makes sense for such an image. */
export function operationsOn(feature: FeatureImage): PlannedOperation[] {
  return OPERATION_LIST.filter(({ name }) => makesSense(name, feature)).map((operation) => ({
    operation,
    refused: refusal(operation.name, feature),
  }));
}

/** False where there is nothing that the operation could work on. */
function makesSense(name: OperationName, { options, snapshots, bitmaps, dataFile }: FeatureImage): boolean {
  if (name === "snapshot apply" || name === "snapshot delete") return snapshots === true || dataFile !== undefined;
  if (name.startsWith("bitmap ") && name !== "bitmap add") return bitmaps === true;
  if (name.startsWith("data file ")) return dataFile !== undefined;
  if (name.startsWith("key ")) return options.encrypt !== undefined;
  if (name.startsWith("grow in use")) return options.zone === undefined;
  return name !== "zone layout" || options.zone !== undefined;
}

/** What cannot be, and why it is refused: the reasons are in the documentation of the options and of zoned images. */
function refusal(name: OperationName, feature: FeatureImage): ErrorCode | undefined {
  const { options, snapshots, bitmaps, dataFile, behind } = feature;
  const isResize = RESIZES.includes(name);
  if (options.zone !== undefined && isResize) return "NOT_SUPPORTED";
  if (options.zone !== undefined && name === "version 2") return "ZONED_VERSION";
  if (dataFile !== undefined && (SNAPSHOT_WORK.includes(name) || name === "compact")) return "NOT_SUPPORTED";
  if (options.encrypt?.format === "aes" && name.startsWith("key ")) return "NOT_SUPPORTED";
  if (bitmaps === true && name === "snapshot apply") return "BITMAPS_IN_THE_WAY";
  const isEncryptedOverlay = options.encrypt !== undefined && behind !== undefined && options.compat !== "0.10";
  const cannotDowngrade = dataFile !== undefined || options.extendedL2 === true || isEncryptedOverlay;
  if (name === "version 2" && cannotDowngrade) return "DOWNGRADE";
  if (name === "version 2" && bitmaps === true) return "BITMAPS_IN_THE_WAY";
  if (options.compat !== "0.10") return undefined;
  if (name === "bitmap add" || (isResize && snapshots === true)) return "NOT_SUPPORTED";
  return COUNTS.includes(name) ? "INVALID_ARGUMENT" : undefined;
}
