import type { ErrorCode } from "../../base/error-codes.js";
import { ZcowError } from "../../base/errors.js";
import { ceilDiv } from "../../base/integers.js";
import { FIELD, type HeaderFields } from "./header-fields.js";
import type { Verdict } from "./header-verdict.js";
import {
  MAX_HOST_OFFSET,
  MAX_L1_BYTES,
  MAX_REFCOUNT_ORDER,
  MAX_REFTABLE_BYTES,
  MAX_SNAPSHOTS,
  MAX_TABLE_END,
  SNAPSHOT_ENTRY_MIN_BYTES,
  TABLE_ENTRY_BYTES,
} from "./limits.js";

/** Checks of the tables that the header points to, before any is read. */

interface TableRule {
  /** As stock tools name it. */
  readonly stockName: string;
  readonly name: string;
  readonly sizeField: string;
  readonly sizeAt: number;
  readonly offsetField: string;
  readonly offsetAt: number;
  readonly offset: bigint;
  readonly count: number;
  readonly maxCount: number;
  /** Bytes of one unit of `count`. */
  readonly unit: number;
  readonly tooLarge: ErrorCode;
  readonly badOffset: ErrorCode;
}

export function checkRefcountWidth(fields: HeaderFields): void {
  const { refcountOrder } = fields;
  if (refcountOrder <= MAX_REFCOUNT_ORDER) return;
  throw new ZcowError(
    "QCOW2_REFCOUNT_WIDTH",
    `Header: refcount_order ${refcountOrder} is above ${MAX_REFCOUNT_ORDER} (64-bit counts)`,
    {
      data: {
        structure: "header",
        field: "refcount_order",
        offset: FIELD.refcountOrder,
        value: refcountOrder,
        limit: MAX_REFCOUNT_ORDER,
      },
      stockText: "Reference count entry width too large; may not exceed 64 bits",
    },
  );
}

/** Refcount table: present, not too large, aligned. `check` can rebuild a table that is missing. */
export function checkRefcountTable(fields: HeaderFields, fileSize: number, verdict: Verdict): void {
  const { refcountTableClusters: clusters, clusterSize } = fields;
  const rule: TableRule = {
    stockName: "Reference count table",
    name: "refcount table",
    sizeField: "refcount_table_clusters",
    sizeAt: FIELD.refcountTableClusters,
    offsetField: "refcount_table_offset",
    offsetAt: FIELD.refcountTableOffset,
    offset: fields.refcountTableOffset,
    count: clusters,
    maxCount: MAX_REFTABLE_BYTES / clusterSize,
    unit: clusterSize,
    tooLarge: "QCOW2_REFTABLE_TOO_LARGE",
    badOffset: "QCOW2_REFTABLE_OFFSET",
  };
  checkSize(rule);
  if (clusters === 0) {
    verdict.refuseUnless(
      verdict.mode === "check",
      new ZcowError(
        "QCOW2_REFTABLE_MISSING",
        "Header: refcount_table_clusters is 0, so the image has no refcount table",
        {
          data: { structure: "header", field: rule.sizeField, offset: rule.sizeAt, value: 0, limit: 1 },
          stockText: "Image does not contain a reference count table",
        },
      ),
    );
    return;
  }
  checkAlignment(rule, clusterSize);
  const unusable = misplaced(rule, clusterSize, fileSize);
  if (unusable !== undefined) verdict.refuseLaterUnless(!verdict.writable || verdict.mode === "check", unusable);
}

/** L1 table: not too large, aligned, large enough for the virtual size. Throws `QCOW2_SIZE` too. */
export function checkL1Table(fields: HeaderFields, coverage: number, fileSize: number, verdict: Verdict): void {
  const rule: TableRule = {
    stockName: "Active L1 table",
    name: "L1 table",
    sizeField: "l1_size",
    sizeAt: FIELD.l1Size,
    offsetField: "l1_table_offset",
    offsetAt: FIELD.l1TableOffset,
    offset: fields.l1TableOffset,
    count: fields.l1Size,
    maxCount: MAX_L1_BYTES / TABLE_ENTRY_BYTES,
    unit: TABLE_ENTRY_BYTES,
    tooLarge: "QCOW2_L1_TOO_LARGE",
    badOffset: "QCOW2_L1_OFFSET",
  };
  checkSize(rule);
  checkAlignment(rule, fields.clusterSize);
  checkCoverage(fields, coverage);
  if (fields.l1Size === 0) return;
  const unusable = misplaced(rule, fields.clusterSize, fileSize);
  if (unusable !== undefined)
    verdict.refuseLaterUnless(verdict.mode === "check" && rule.offset <= MAX_HOST_OFFSET, unusable);
}

/** Snapshot table: not too many, aligned. `check` can cut a table that is too long. */
export function checkSnapshotTable(fields: HeaderFields, fileSize: number, verdict: Verdict): void {
  const rule: TableRule = {
    stockName: "Snapshot table",
    name: "snapshot table",
    sizeField: "nb_snapshots",
    sizeAt: FIELD.snapshotCount,
    offsetField: "snapshots_offset",
    offsetAt: FIELD.snapshotsOffset,
    offset: fields.snapshotsOffset,
    count: fields.snapshotCount,
    maxCount: MAX_SNAPSHOTS,
    unit: SNAPSHOT_ENTRY_MIN_BYTES,
    tooLarge: "QCOW2_SNAPSHOTS_TOO_LARGE",
    badOffset: "QCOW2_SNAPSHOTS_OFFSET",
  };
  verdict.attempt(verdict.mode === "check", () => {
    checkSize(rule);
    checkAlignment(rule, fields.clusterSize);
  });
  const unusable = rule.count === 0 ? undefined : misplaced(rule, fields.clusterSize, fileSize);
  if (unusable !== undefined) verdict.refuseLaterUnless(!verdict.writable || verdict.mode === "check", unusable);
}

function checkSize(rule: TableRule): void {
  if (rule.count <= rule.maxCount) return;
  throw new ZcowError(
    rule.tooLarge,
    `Header: ${rule.sizeField} ${rule.count} is above the limit ${rule.maxCount} (${rule.maxCount * rule.unit} bytes)`,
    {
      data: {
        structure: "header",
        field: rule.sizeField,
        offset: rule.sizeAt,
        value: rule.count,
        limit: rule.maxCount,
      },
      stockText: `${rule.stockName} too large`,
    },
  );
}

function checkAlignment(rule: TableRule, clusterSize: number): void {
  const end = rule.offset + BigInt(rule.count * rule.unit);
  if (rule.offset % BigInt(clusterSize) === 0n && end <= MAX_TABLE_END) return;
  throw new ZcowError(
    rule.badOffset,
    `Header: ${rule.offsetField} 0x${rule.offset.toString(16)} of the ${rule.name} is not a multiple of the cluster size ${clusterSize}, or the table ends past 2^63`,
    {
      data: {
        structure: "header",
        field: rule.offsetField,
        offset: rule.offsetAt,
        value: rule.offset,
        limit: clusterSize,
      },
      stockText: `${rule.stockName} offset invalid`,
    },
  );
}

/** A table over the header, past 2^53, or cut off by the end of the file by a whole cluster or more. */
function misplaced(rule: TableRule, clusterSize: number, fileSize: number): ZcowError | undefined {
  const end = rule.offset + BigInt(rule.count * rule.unit);
  const data = { structure: "header", field: rule.offsetField, offset: rule.offsetAt, value: rule.offset };
  if (rule.offset === 0n) {
    return new ZcowError(
      rule.badOffset,
      `Header: ${rule.offsetField} is 0, so the ${rule.name} would lie over the header`,
      {
        data: { ...data, limit: clusterSize },
      },
    );
  }
  if (end > MAX_HOST_OFFSET) {
    return new ZcowError(
      rule.badOffset,
      `Header: ${rule.offsetField} 0x${rule.offset.toString(16)} of the ${rule.name} is above 2^53`,
      {
        data: { ...data, limit: MAX_HOST_OFFSET },
      },
    );
  }
  if (Number(end) - fileSize < clusterSize) return undefined;
  return new ZcowError(
    "QCOW2_TRUNCATED",
    `The ${rule.name} ends at byte ${end} (${rule.offsetField} ${rule.offset}), but the file ends at byte ${fileSize}`,
    { data: { ...data, limit: fileSize } },
  );
}

/** Signed 32-bit: what QEMU counts L1 entries in. */
const MAX_L1_ENTRIES = 0x7fff_ffff;

function checkCoverage(fields: HeaderFields, coverage: number): void {
  const data = { structure: "header", field: "size", offset: FIELD.size, value: fields.size };
  const tooBig = (limit: bigint | number): ZcowError =>
    new ZcowError(
      "QCOW2_SIZE",
      `Header: size ${fields.size} is above ${limit}, the largest disk with clusters of ${fields.clusterSize} bytes`,
      {
        data: { ...data, limit },
        stockText: "Image is too big",
      },
    );
  const mappable = BigInt(MAX_L1_ENTRIES) * BigInt(coverage);
  if (fields.size > mappable) throw tooBig(mappable);
  if (fields.size > Number.MAX_SAFE_INTEGER) throw tooBig(Number.MAX_SAFE_INTEGER);
  const needed = ceilDiv(Number(fields.size), coverage);
  if (fields.l1Size >= needed) return;
  throw new ZcowError(
    "QCOW2_L1_TOO_SMALL",
    `Header: l1_size ${fields.l1Size} is below ${needed}, the entries that size ${fields.size} needs`,
    {
      data: { structure: "header", field: "l1_size", offset: FIELD.l1Size, value: fields.l1Size, limit: needed },
      stockText: "L1 table is too small",
    },
  );
}
