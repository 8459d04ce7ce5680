import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";
import { all, type Change, fields, put32, put64, put8, putExtensions, text } from "./images.js";

/** Unusual plain images that keep the rules, or break none that matters: refusing one would lock people out of their data. */
export interface GoodHeader {
  readonly what: string;
  readonly change: Change;
  readonly base?: CreateQcow2Options;
}

const UNKNOWN = 0x12345678;

export const GOOD_HEADERS: readonly GoodHeader[] = [
  { what: "as created", change: () => undefined },
  { what: "version 2", change: () => undefined, base: { compat: "0.10" } },
  { what: "the shortest header of version 3", change: all(put32(100, 104), put32(104, 0), put32(108, 0)) },
  {
    what: "a longer header with unknown bytes",
    change: all(put32(100, 144), put64(112, 0x1122_3344_5566_7788n), put64(136, 1), putExtensions([[UNKNOWN, text("after")]], 144)),
  },
  { what: "padding behind the compression type that is not zero", change: put8(105, 1) },
  { what: "unknown compatible bits", change: put64(80, (1n << 63n) | (1n << 40n)) },
  { what: "unknown autoclear bits", change: put64(88, 1n << 40n) },
  { what: "the dirty bit", change: put64(72, 1) },
  { what: "a disk size that is no multiple of a sector", change: put64(24, 1001) },
  { what: "an L1 table that is larger than needed", change: put32(36, 4096) },
  { what: "a backing file size without an offset", change: put32(16, 5000) },
  { what: "a backing file offset without a size", change: put64(8, 0x1000) },
  { what: "a backing file offset inside the header, without a size", change: put64(8, 100) },
  { what: "an unknown extension twice", change: putExtensions([[UNKNOWN, text("one")], [UNKNOWN, text("two")]]) },
  { what: "an extension that fills the cluster to the end", change: put32(116, 0x10000 - 120) },
  { what: "a name table that is not a whole number of entries", change: putExtensions([[0x6803f857, new Uint8Array(50)]]) },
  { what: "a backing format of 15 bytes without a backing file", change: putExtensions([[0xe2792aca, text("a".repeat(15))]]) },
  { what: "the name of a data file that is not used", change: putExtensions([[0x44415441, text("data.raw")]]) },
  { what: "bitmaps that a program without bitmaps has made stale", change: putExtensions([[0x23852875, fields(1, 0, 32n, 0x30000n)]]) },
  { what: "one-bit counts", change: () => undefined, base: { refcountBits: 1 } },
];
