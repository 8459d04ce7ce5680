import { ZcowError } from "../../../base/errors.js";
import { isPromise } from "../../../base/maybe-promise.js";
import type { Storage } from "../../../storage/storage.js";
import { EXTENSION, withExtension } from "../extensions.js";
import { INCOMPATIBLE, NO_FEATURES } from "../features.js";
import type { Qcow2Header } from "../header.js";
import { replaceHeader } from "../header-replace.js";
import { HEADER_LENGTH_V2, KNOWN_HEADER_LENGTH } from "../limits.js";
import { KNOWN_EXTRA_BYTES } from "../snapshots/snapshot-table.js";
import { replaceSnapshotTable } from "../snapshots/table-rewrite.js";
import { expandZeroClusters } from "./expand-zeroes.js";
import { ImageAtRest } from "./image-at-rest.js";

const REFCOUNT_ORDER_V2 = 4;
const MAX_VM_STATE_V2 = 0xffff_ffffn;

/**
 * Makes a version 2 image one of version 3. Its snapshots get the disk size that version 3 demands first. A crash leaves one or the
 * other.
 */
export async function upgradeImage(storage: Storage): Promise<void> {
  const image = await ImageAtRest.open(storage);
  const { snapshots } = image.snapshots;
  if (snapshots.some(({ extraLength }) => extraLength < KNOWN_EXTRA_BYTES)) {
    await image.commit(await replaceSnapshotTable(image, snapshots));
    return upgradeImage(storage);
  }
  await writeHeader(storage, {
    ...image.header,
    version: 3,
    headerLength: KNOWN_HEADER_LENGTH,
    refcountOrder: REFCOUNT_ORDER_V2,
    features: NO_FEATURES,
    unknownBytes: new Uint8Array(0),
  });
}

/**
 * Makes a version 3 image one of version 2. Zero clusters, which version 2 lacks, are taken out first; a crash then leaves a
 * version 3 image without them. Throws `DOWNGRADE` for what version 2 does not have; the image is unchanged then.
 */
export async function downgradeImage(storage: Storage, onProgress: (done: number) => void): Promise<void> {
  const image = await ImageAtRest.open(storage);
  requireDowngradable(image);
  await expandZeroClusters(image, onProgress);
  const { header } = await ImageAtRest.open(storage);
  await writeHeader(storage, {
    ...header,
    version: 2,
    headerLength: HEADER_LENGTH_V2,
    features: NO_FEATURES,
    unknownBytes: new Uint8Array(0),
    featureNames: [],
    extensions: withExtension(header.extensions, EXTENSION.featureNames, undefined),
  });
}

function requireDowngradable({ header, snapshots, storage }: ImageAtRest): void {
  const refuse = (what: string, stockText: string): never => {
    throw new ZcowError("DOWNGRADE", `${storage.name} cannot become version 2 (compat=0.10): ${what}`, {
      data: { path: storage.name, option: "compat" },
      stockText,
    });
  };
  if (header.refcountOrder !== REFCOUNT_ORDER_V2) {
    refuse(
      `its reference counts have ${2 ** header.refcountOrder} bits, not 16`,
      "compat=0.10 requires refcount_bits=16",
    );
  }
  if ((header.features.incompatible & INCOMPATIBLE.externalData) !== 0n) {
    refuse("it has an external data file", "Cannot downgrade an image with a data file");
  }
  const isOdd = snapshots.snapshots.some(
    ({ vmStateSize, diskSize }) =>
      vmStateSize > MAX_VM_STATE_V2 || (diskSize ?? BigInt(header.size)) !== BigInt(header.size),
  );
  if (isOdd)
    refuse("a snapshot has another disk size, or much VM state", "Internal snapshots prevent downgrade of image");
  if (header.cryptMethod !== 0 && header.backingFileName !== undefined) {
    // Zero clusters over a backing file become clusters of zeros, which would be decrypted to noise.
    refuse(
      "it is encrypted and has a backing file, which its zero clusters would have to hide with encrypted zeros",
      "Cannot downgrade an encrypted image with a backing file",
    );
  }
  if (header.zoned !== undefined) {
    throw new ZcowError("ZONED_VERSION", `${storage.name} is zoned, and a zoned image needs version 3 (compat=1.1)`, {
      data: { path: storage.name, option: "compat" },
    });
  }
  const features = header.features.incompatible & ~INCOMPATIBLE.dirty;
  if (features !== 0n) {
    const bits = `0x${features.toString(16)}`;
    refuse(
      `it has the incompatible features ${bits}`,
      `Cannot downgrade an image with incompatible features ${bits} set`,
    );
  }
  if (header.bitmaps !== undefined) {
    throw new ZcowError("BITMAPS_IN_THE_WAY", `${storage.name} has bitmaps, which version 2 cannot vouch for`, {
      data: { path: storage.name, structure: "bitmaps extension" },
    });
  }
}

async function writeHeader(storage: Storage, header: Qcow2Header): Promise<void> {
  const before = storage.flush();
  if (isPromise(before)) await before;
  await replaceHeader(storage, header, () => storage.flush());
}
