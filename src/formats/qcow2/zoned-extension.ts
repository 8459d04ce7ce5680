/** The published layouts of the zoned header extension (docs/format.md, sections 2.1 and 2.2). */
export const ZONED_LAYOUTS = ["current", "append-limit", "v8", "v5", "v3", "seed"] as const;
/** Name of a layout of the zoned extension; new images have `current`. */
export type ZonedLayout = (typeof ZONED_LAYOUTS)[number];

/** The zoned header extension, decoded. Sizes and offsets in bytes. */
export interface ZonedExtension {
  readonly layout: ZonedLayout;
  readonly zoneCount: number;
  readonly zoneSize: number;
  readonly zoneCapacity: number;
  readonly conventionalZones: number;
  /** 0 = no limit. */
  readonly maxActiveZones: number;
  /** 0 = no limit. */
  readonly maxOpenZones: number;
  /** Stored append limit; undefined in layouts without the field. */
  readonly maxAppendBytes: number | undefined;
  /** File offset of the write-pointer table; undefined in layout `seed`, which has none. */
  readonly tableOffset: number | undefined;
  /** Byte order of the table's entries. */
  readonly tableByteOrder: "big" | "little";
  /** Unknown bytes after the last field of the layout, kept verbatim. */
  readonly tail: Uint8Array;
}
