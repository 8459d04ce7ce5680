import { viewOf } from "../../base/bytes.js";
import { isZcowError, ZcowError } from "../../base/errors.js";
import { EXTENSION } from "./extensions.js";
import { INCOMPATIBLE } from "./features.js";
import type { UnresolvedHeader } from "./header.js";
import { isWritePointerSound, writePointerTableBytes } from "./write-pointer-table.js";
import { ZONED_LAYOUTS, type ZonedExtension, type ZonedLayout } from "./zoned-extension.js";
import {
  checkReserved,
  decodeZonedExtension,
  LAYOUT_FORMATS,
  MIN_ZONED_EXTENSION_BYTES,
  zonedModel,
} from "./zoned-layouts.js";
import { checkTablePlacement, validateZonedConfig } from "./zoned-validation.js";

/**
 * Telling the layouts of the zoned extension apart (docs/format.md, section 2.3).
 *
 * Several share a length, so every candidate is decoded and must keep every rule; one must remain. Only when the
 * fields leave more than one, and to find the byte order of an old table, is the table looked at. A table with bad entries
 * does not hide its layout: whoever loads it reports the entries.
 */

export interface ZonedSource {
  readonly fileSize: number;
  /** Reads a piece of the image file; at most 8 MiB are asked for. */
  readonly read: (offset: number, length: number) => Promise<Uint8Array>;
}

/**
 * The zoned extension of an image, or undefined when it is not zoned. Throws `ZONED_FEATURE_BIT`, `ZONED_VERSION`,
 * `ZONED_EXTENSION_LENGTH`, `ZONED_MODEL`, `ZONED_RESERVED`; when the length leaves one layout, the code of the rule it
 * breaks; otherwise `ZONED_LAYOUT_UNKNOWN` or `ZONED_LAYOUT_AMBIGUOUS` with the reasons of each.
 */
export async function resolveZonedExtension(
  header: UnresolvedHeader,
  source: ZonedSource,
): Promise<ZonedExtension | undefined> {
  const data = header.extensions.find(({ type }) => type === EXTENSION.zoned)?.data;
  const hasBit = (header.features.incompatible & INCOMPATIBLE.zoned) !== 0n;
  if (data === undefined) {
    if (hasBit) throw featureBit("incompatible bit 5 (zoned format) is set, but the zoned extension is missing");
    return undefined;
  }
  checkFrame(header, data);
  if (zonedModel(data) === 0) {
    if (hasBit)
      throw featureBit("incompatible bit 5 (zoned format) is set, but the zoned extension says 0 (not zoned)");
    return undefined;
  }
  const candidates = candidateLayouts(data.length).map((layout) => judge(layout, data, header, source.fileSize));
  const consistent = candidates.flatMap(({ zoned }) => zoned ?? []);
  // The usual case: one layout fits, and it fixes the byte order. The table has nothing to say.
  const [only] = consistent;
  if (consistent.length === 1 && only !== undefined && LAYOUT_FORMATS[only.layout].table?.byteOrder === "big")
    return only;
  const ranked = await Promise.all(consistent.map((zoned) => fitTable(zoned, header, source)));
  return choose(candidates, ranked, data.length);
}

function checkFrame(header: UnresolvedHeader, data: Uint8Array): void {
  if (header.version !== 3) {
    throw new ZcowError("ZONED_VERSION", `Header: a zoned image needs version 3, not ${header.version}`, {
      data: { structure: "header", field: "version", value: header.version, limit: 3 },
    });
  }
  if (data.length < MIN_ZONED_EXTENSION_BYTES) throw badLength(data.length);
  const model = zonedModel(data);
  if (model > 1) {
    throw new ZcowError(
      "ZONED_MODEL",
      `Zoned extension: zoned ${model} is not a known zone model (0 none, 1 host-managed)`,
      {
        data: { structure: "zoned extension", field: "zoned", value: model, limit: 1 },
      },
    );
  }
  checkReserved(data);
}

/** Layouts of exactly that length; when there is none, the shorter ones with a table to judge them by, the rest being their tail. */
export function candidateLayouts(length: number): readonly ZonedLayout[] {
  const exact = ZONED_LAYOUTS.filter((layout) => LAYOUT_FORMATS[layout].length === length);
  if (exact.length > 0) return exact;
  const shorter = ZONED_LAYOUTS.filter(
    (layout) => LAYOUT_FORMATS[layout].length < length && LAYOUT_FORMATS[layout].table !== undefined,
  );
  if (shorter.length === 0) throw badLength(length);
  return shorter;
}

interface Candidate {
  readonly layout: ZonedLayout;
  readonly zoned: ZonedExtension | undefined;
  readonly fault: ZcowError | undefined;
}

/** Decodes `data` as `layout` and checks all rules but those of the table's place and entries. Throws their codes. */
export function decodeAs(layout: ZonedLayout, data: Uint8Array, header: UnresolvedHeader): ZonedExtension {
  const byteOrder = LAYOUT_FORMATS[layout].table?.byteOrder === "big" ? "big" : "little";
  const zoned = decodeZonedExtension(data, layout, byteOrder);
  checkFeatureBit(layout, header);
  validateZonedConfig(zoned, { size: header.size, clusterSize: 2 ** header.clusterBits }, "open");
  return zoned;
}

function judge(layout: ZonedLayout, data: Uint8Array, header: UnresolvedHeader, fileSize: number): Candidate {
  try {
    const zoned = decodeAs(layout, data, header);
    checkTablePlacement(zoned, header, fileSize);
    return { layout, zoned, fault: undefined };
  } catch (fault) {
    if (!isZcowError(fault)) throw fault;
    return { layout, zoned: undefined, fault };
  }
}

function checkFeatureBit(layout: ZonedLayout, header: UnresolvedHeader): void {
  const hasBit = (header.features.incompatible & INCOMPATIBLE.zoned) !== 0n;
  const needsBit = LAYOUT_FORMATS[layout].featureBit;
  if (hasBit === needsBit) return;
  throw featureBit(
    needsBit
      ? `the zoned extension in layout ${layout} is present, but incompatible bit 5 (zoned format) is clear`
      : `incompatible bit 5 (zoned format) is set, but layout ${layout} is older than the bit`,
  );
}

interface Fit {
  readonly zoned: ZonedExtension;
  readonly badEntries: number;
}

/** The candidate with the byte order that makes most sense of its table, and how many entries make none. */
async function fitTable(zoned: ZonedExtension, header: UnresolvedHeader, source: ZonedSource): Promise<Fit> {
  const format = LAYOUT_FORMATS[zoned.layout].table;
  if (format === undefined || zoned.tableOffset === undefined) return { zoned, badEntries: 0 };
  const table = viewOf(await source.read(zoned.tableOffset, writePointerTableBytes(zoned.zoneCount)));
  const big: Fit = fit({ ...zoned, tableByteOrder: "big" });
  if (format.byteOrder === "big") return big;
  const little: Fit = fit({ ...zoned, tableByteOrder: "little" });
  return big.badEntries < little.badEntries ? big : little;

  function fit(shape: ZonedExtension): Fit {
    let badEntries = 0;
    for (let zone = 0; zone < shape.zoneCount; zone++) {
      if (!isWritePointerSound(table, zone, shape, header.size)) badEntries++;
    }
    return { zoned: shape, badEntries };
  }
}

function choose(candidates: readonly Candidate[], fits: readonly Fit[], length: number): ZonedExtension {
  const [only, second] = fits;
  if (only !== undefined && second === undefined) return only.zoned;
  const clean = fits.filter(({ badEntries }) => badEntries === 0);
  const [best, other] = clean;
  if (best !== undefined && other === undefined) return best.zoned;
  const [lone] = candidates;
  if (candidates.length === 1 && lone?.fault !== undefined) throw lone.fault;
  const reasons = candidates.map(({ layout, fault }) => `${layout}: ${fault?.message ?? tableReason(layout, fits)}`);
  const code = fits.length === 0 ? "ZONED_LAYOUT_UNKNOWN" : "ZONED_LAYOUT_AMBIGUOUS";
  const verb = fits.length === 0 ? "fits no layout" : `fits ${fits.length} layouts`;
  throw new ZcowError(code, `Zoned extension: ${length} bytes ${verb}: ${reasons.join("; ")}`, {
    data: { structure: "zoned extension", field: "length", value: length, reasons },
  });
}

function tableReason(layout: ZonedLayout, fits: readonly Fit[]): string {
  const bad = fits.find(({ zoned }) => zoned.layout === layout)?.badEntries ?? 0;
  return bad === 0 ? "all fields and table entries fit" : `all fields fit, ${bad} table entries do not`;
}

function badLength(length: number): ZcowError {
  const known = [...new Set(ZONED_LAYOUTS.map((layout) => LAYOUT_FORMATS[layout].length))].sort((a, b) => a - b);
  return new ZcowError(
    "ZONED_EXTENSION_LENGTH",
    `Zoned extension: length ${length} is too short for its fields (layouts have ${known.join(", ")} bytes)`,
    {
      data: { structure: "zoned extension", field: "length", value: length, limit: MIN_ZONED_EXTENSION_BYTES },
    },
  );
}

function featureBit(explanation: string): ZcowError {
  return new ZcowError("ZONED_FEATURE_BIT", `Header: ${explanation}`, {
    data: { structure: "header", field: "incompatible_features", limit: INCOMPATIBLE.zoned },
  });
}
