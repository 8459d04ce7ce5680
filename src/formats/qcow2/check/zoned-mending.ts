import { isZcowError, ZcowError } from "../../../base/errors.js";
import { ceilDiv } from "../../../base/integers.js";
import { INCOMPATIBLE } from "../features.js";
import type { UnresolvedHeader } from "../header.js";
import type { ZonedExtension, ZonedLayout } from "../zoned-extension.js";
import {
  checkReserved,
  LAYOUT_FORMATS,
  MIN_ZONED_EXTENSION_BYTES,
  setStoredField,
  storedField,
  WRITE_POINTER_BYTES,
  zonedModel,
} from "../zoned-layouts.js";
import { candidateLayouts, decodeAs } from "../zoned-resolve.js";
import { checkTablePlacement } from "../zoned-validation.js";

/** An extension put right, and every fault found on the way. */
export interface MendedZones {
  readonly faults: readonly ZcowError[];
  readonly zoned: ZonedExtension;
  /** The extension's bytes without the faults (but for the place of a lost table). */
  readonly data: Uint8Array;
  /** The stored offset leads nowhere a table can be. */
  readonly tableLost: boolean;
  /** A value follows from others that might be the wrong ones: only a sound table proves it. */
  readonly needsTable: boolean;
}

/** Each remedy changes a field; one that has not helped by then never will. */
const MAX_REMEDIES = 12;

/**
 * Puts right the fields that follow from others. Where several layouts have the extension's length, one of them must need
 * a single remedy and all others more. `first` is the fault that refused the extension as it is.
 */
export function mendZones(
  data: Uint8Array,
  header: UnresolvedHeader,
  fileSize: number,
  first: ZcowError,
): MendedZones | { readonly obstacle: string } {
  if (first.code === "ZONED_LAYOUT_AMBIGUOUS") return { obstacle: "which layout it has cannot be told" };
  if (header.version !== 3) return { obstacle: "an image of version 2 has no zones" };
  if (data.length < MIN_ZONED_EXTENSION_BYTES) return { obstacle: "its fields are cut off" };
  const layouts = candidateLayoutsOf(data.length);
  const attempts = layouts.map((layout) => new Mending(layout, data, header, fileSize).run());
  const mended = attempts.flatMap((attempt) => ("zoned" in attempt ? [attempt] : []));
  if (layouts.length === 1) return attempts[0] ?? { obstacle: "it has no known layout" };
  const [only, second] = mended.filter(({ faults }) => faults.length === 1);
  if (only !== undefined && second === undefined) return only;
  return { obstacle: "which layout it has cannot be told" };
}

function candidateLayoutsOf(length: number): readonly ZonedLayout[] {
  try {
    return candidateLayouts(length);
  } catch (fault) {
    if (!isZcowError(fault)) throw fault;
    return [];
  }
}

/** The extension read as one layout, fault after fault. */
class Mending {
  readonly #layout: ZonedLayout;
  readonly #data: Uint8Array;
  readonly #fileSize: number;
  readonly #faults: ZcowError[] = [];
  #header: UnresolvedHeader;
  #tableLost = false;
  #needsTable = false;

  constructor(layout: ZonedLayout, data: Uint8Array, header: UnresolvedHeader, fileSize: number) {
    this.#layout = layout;
    this.#data = data.slice();
    this.#header = header;
    this.#fileSize = fileSize;
  }

  run(): MendedZones | { readonly obstacle: string } {
    for (let remedies = 0; remedies <= MAX_REMEDIES; remedies++) {
      try {
        const zoned = this.#judge();
        const { faults, data, tableLost, needsTable } = this.#result();
        return { zoned, faults, data, tableLost, needsTable };
      } catch (fault) {
        if (!isZcowError(fault)) throw fault;
        const obstacle = this.#remedy(fault);
        if (obstacle !== undefined) return { obstacle };
        this.#faults.push(fault);
      }
    }
    return { obstacle: "too many of its fields are wrong" };
  }

  #result(): Omit<MendedZones, "zoned"> {
    return { faults: this.#faults, data: this.#data, tableLost: this.#tableLost, needsTable: this.#needsTable };
  }

  #judge(): ZonedExtension {
    if (zonedModel(this.#data) !== 1) throw badModel(zonedModel(this.#data));
    checkReserved(this.#data);
    const zoned = decodeAs(this.#layout, this.#data, this.#header);
    if (!this.#tableLost) checkTablePlacement(zoned, this.#header, this.#fileSize);
    return zoned;
  }

  /** Takes away the cause of `fault`; the reason when that would be guessing. */
  #remedy(fault: ZcowError): string | undefined {
    switch (fault.code) {
      case "ZONED_MODEL":
        return this.#setModel();
      case "ZONED_RESERVED":
        this.#data.fill(0, 1, 4);
        return undefined;
      case "ZONED_FEATURE_BIT":
        this.#setFeatureBit();
        return undefined;
      case "ZONED_TABLE_SIZE":
      case "ZONED_ZONE_COUNT":
        return this.#setZoneCount(fault);
      case "ZONED_ZONE_SIZE":
      case "ZONED_ZONE_SIZE_POWER":
      case "ZONED_ZONE_SIZE_CLUSTER":
        return this.#setZoneSize();
      case "ZONED_MAX_APPEND":
        // 0: no limit of its own, as published writers store it.
        setStoredField(this.#data, this.#layout, "maxAppend", 0);
        return undefined;
      case "ZONED_TABLE_OFFSET":
      case "ZONED_TABLE_OVERLAP":
        this.#tableLost = true;
        return undefined;
      case "ZONED_FIELD_TOO_LARGE":
        if (fault.data.field !== "zonedmeta_offset") break;
        setStoredField(this.#data, this.#layout, "tableOffset", 0);
        this.#tableLost = true;
        return undefined;
      default:
    }
    return `the right value of ${fault.data.field ?? "the field"} does not follow from anything else`;
  }

  #setModel(): string | undefined {
    if (zonedModel(this.#data) !== 0) return "zones of another model would be another format";
    this.#data[0] = 1;
    this.#needsTable = true;
    return undefined;
  }

  #setFeatureBit(): void {
    const { features } = this.#header;
    const incompatible = features.incompatible ^ INCOMPATIBLE.zoned;
    this.#header = { ...this.#header, features: { ...features, incompatible } };
  }

  #setZoneCount(fault: ZcowError): string | undefined {
    const zoneSize = storedField(this.#data, this.#layout, "zoneSize") ?? 0;
    const zoneCount = storedField(this.#data, this.#layout, "zoneCount") ?? 0;
    const needed = zoneSize === 0 ? 0 : ceilDiv(this.#header.size, zoneSize);
    if (needed === 0) return "a disk without bytes has no zones";
    const countIsRight = zoneCount === needed;
    if (fault.code === "ZONED_ZONE_COUNT" || !countIsRight) this.#needsTable = true;
    if (needed > 0xffff_ffff) return "the disk has too many zones of that size";
    setStoredField(this.#data, this.#layout, "zoneCount", needed);
    setStoredField(this.#data, this.#layout, "tableSize", needed * WRITE_POINTER_BYTES);
    return undefined;
  }

  /** The one power of two that makes the stored number of zones out of the disk. */
  #setZoneSize(): string | undefined {
    const zoneCount = storedField(this.#data, this.#layout, "zoneCount") ?? 0;
    const fitting: number[] = [];
    for (let size = 2 ** this.#header.clusterBits; size <= 2 ** 52; size *= 2) {
      if (ceilDiv(this.#header.size, size) === zoneCount) fitting.push(size);
    }
    const [only, second] = fitting;
    if (only === undefined || second !== undefined)
      return "more than one zone size, or none, makes that number of zones";
    const bytes = LAYOUT_FORMATS[this.#layout].fields.zoneSize?.bytes;
    if (bytes === 4 && only > 0xffff_ffff) return "the zone size does not fit its field";
    setStoredField(this.#data, this.#layout, "zoneSize", only);
    this.#needsTable = true;
    return undefined;
  }
}

function badModel(model: number): ZcowError {
  const data = { structure: "zoned extension", field: "zoned", value: model, limit: 1 };
  return model === 0
    ? new ZcowError(
        "ZONED_MODEL",
        "Zoned extension: zoned is 0 (not zoned), but incompatible bit 5 (zoned format) is set",
        { data },
      )
    : new ZcowError(
        "ZONED_MODEL",
        `Zoned extension: zoned ${model} is not a known zone model (0 none, 1 host-managed)`,
        {
          data,
        },
      );
}
