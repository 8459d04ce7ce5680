import { viewOf } from "../../src/base/bytes.js";
import type { Qcow2Header } from "../../src/formats/qcow2/header.js";
import { decodeWritePointer } from "../../src/formats/qcow2/write-pointer-table.js";

/** The write pointers that a zoned image stores, one per zone. Throws the fault of a bad entry. */
export function pointersOf(image: Uint8Array, { zoned, size }: Qcow2Header): number[] {
  if (zoned?.tableOffset === undefined) throw new Error("no table");
  const table = viewOf(image.subarray(zoned.tableOffset));
  return Array.from({ length: zoned.zoneCount }, (_, zone) => decodeWritePointer(table, zone, zoned, size));
}
