import { isZcowError, ZcowError } from "../../../base/errors.js";
import { ceilDiv } from "../../../base/integers.js";
import { EXTENSION, withExtension } from "../extensions.js";
import { INCOMPATIBLE } from "../features.js";
import type { UnresolvedHeader } from "../header.js";
import { isWritePointerSound, writePointerTableBytes } from "../write-pointer-table.js";
import type { ZonedExtension } from "../zoned-extension.js";
import { LAYOUT_FORMATS } from "../zoned-layouts.js";
import { resolveZonedExtension, type ZonedSource } from "../zoned-resolve.js";
import { type MendedZones, mendZones } from "./zoned-mending.js";

/**
 * What is wrong with the zoned metadata of a header, and what it should be (docs/check.md, "Zoned images").
 * An image that cannot be opened for it must still be checked and, where nothing has to be guessed, repaired.
 */
export interface ZonedDiagnosis {
  /** The zones to check the image with: as stored, or as they should be when only the header is wrong. */
  readonly zoned: ZonedExtension | undefined;
  /** Each with the code that refuses the image; empty for a sound one. */
  readonly faults: readonly ZcowError[];
  /** The zones as they should be; `tableOffset` undefined when the table has to be made anew. Undefined when that is not certain. */
  readonly remedy: ZonedExtension | undefined;
  /** Why there is no remedy. */
  readonly obstacle: string | undefined;
}

/** Looks at the zoned extension of `header`, however damaged. Throws the codes of the storage only. */
export async function diagnoseZones(header: UnresolvedHeader, source: ZonedSource): Promise<ZonedDiagnosis> {
  const stored = header.extensions.filter(({ type }) => type === EXTENSION.zoned);
  const duplicate = stored.length > 1 ? twice(stored.length) : undefined;
  const [first, ...others] = stored;
  if (duplicate !== undefined && others.some(({ data }) => !sameBytes(data, first?.data))) {
    return refused(duplicate, "they differ, and which one holds cannot be told");
  }
  try {
    const zoned = await resolveZonedExtension(header, source);
    if (duplicate === undefined) return { zoned, faults: [], remedy: undefined, obstacle: undefined };
    return { zoned, faults: [duplicate], remedy: zoned, obstacle: undefined };
  } catch (fault) {
    if (!isZcowError(fault) || fault.category === "storage") throw fault;
    return diagnoseFault(header, source, fault, first?.data);
  }
}

async function diagnoseFault(
  header: UnresolvedHeader,
  source: ZonedSource,
  fault: ZcowError,
  data: Uint8Array | undefined,
): Promise<ZonedDiagnosis> {
  if (data === undefined) return refused(fault, "zone size and write pointers are not known without the extension");
  const mended = mendZones(data, header, source.fileSize, fault);
  if ("obstacle" in mended) return refused(fault, mended.obstacle);
  const { faults } = mended;
  if (mended.tableLost) {
    if (mended.needsTable) return { ...refused(fault, NO_EVIDENCE), faults };
    return { zoned: undefined, faults, remedy: { ...mended.zoned, tableOffset: undefined }, obstacle: undefined };
  }
  const zoned = await resolveMended(mended, header, source);
  if (zoned === undefined)
    return { ...refused(fault, "the zoned extension does not tell its layout any more"), faults };
  if (mended.needsTable && !(await tableAgrees(zoned, header, source))) {
    return { ...refused(fault, NO_EVIDENCE), faults };
  }
  return { zoned, faults, remedy: zoned, obstacle: undefined };
}

const NO_EVIDENCE =
  "the write-pointer table does not bear it out, so another field or the size of the disk may be the wrong one";

function refused(fault: ZcowError, obstacle: string): ZonedDiagnosis {
  return { zoned: undefined, faults: [fault], remedy: undefined, obstacle };
}

/** The mended extension read as any other would be: finds the byte order of its table, and judges it once more. */
async function resolveMended(
  mended: MendedZones,
  header: UnresolvedHeader,
  source: ZonedSource,
): Promise<ZonedExtension | undefined> {
  const { incompatible } = header.features;
  const hasBit = LAYOUT_FORMATS[mended.zoned.layout].featureBit;
  const bits = hasBit ? incompatible | INCOMPATIBLE.zoned : incompatible & ~INCOMPATIBLE.zoned;
  const features = { ...header.features, incompatible: bits };
  const extensions = withExtension(header.extensions, EXTENSION.zoned, mended.data);
  try {
    const zoned = await resolveZonedExtension({ ...header, features, extensions }, source);
    return zoned?.layout === mended.zoned.layout ? zoned : undefined;
  } catch (fault) {
    if (!isZcowError(fault) || fault.category === "storage") throw fault;
    return undefined;
  }
}

/** The table has a sound entry for each zone and, where its cluster goes on, nothing after the last. */
async function tableAgrees(zoned: ZonedExtension, header: UnresolvedHeader, source: ZonedSource): Promise<boolean> {
  if (zoned.tableOffset === undefined) return false;
  const length = writePointerTableBytes(zoned.zoneCount);
  const clusterSize = 2 ** header.clusterBits;
  const bytes = await source.read(zoned.tableOffset, ceilDiv(length, clusterSize) * clusterSize);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let zone = 0; zone < zoned.zoneCount; zone++) {
    if (!isWritePointerSound(view, zone, zoned, header.size)) return false;
  }
  return bytes.subarray(length).every((byte) => byte === 0);
}

function sameBytes(a: Uint8Array, b: Uint8Array | undefined): boolean {
  return a.length === b?.length && a.every((byte, index) => byte === b[index]);
}

function twice(count: number): ZcowError {
  return new ZcowError(
    "QCOW2_EXTENSION_DUPLICATE",
    `Header: the zoned extension appears ${count} times; at most one is allowed`,
    { data: { structure: "header extension", field: "type", value: EXTENSION.zoned, limit: 1 } },
  );
}
