/** Zone conditions and types, numbered as ZBC, NVMe ZNS and zone reports print them. */

export const ZONE_CONDITION = {
  "not-wp": 0,
  empty: 1,
  "implicitly-open": 2,
  "explicitly-open": 3,
  closed: 4,
  "read-only": 13,
  full: 14,
  offline: 15,
} as const;

/** The state of a zone. `not-wp` is the state of conventional zones. */
export type ZoneState = keyof typeof ZONE_CONDITION;

/** Numbers of the zone types. */
export const ZONE_TYPE = { conventional: 1, "sequential-write-required": 2 } as const;

/** Whether a zone takes writes anywhere or only at its write pointer. */
export type ZoneType = keyof typeof ZONE_TYPE;

/** One line of a zone report. All positions and lengths in bytes. */
export interface ZoneDescriptor {
  readonly index: number;
  /** First byte of the zone. */
  readonly start: number;
  /** Zone size; shorter for a last zone cut by the end of the disk. */
  readonly length: number;
  /** Bytes that can be written, from the start; at most `length`. */
  readonly capacity: number;
  /** Where the next write must go. Full zones: start + capacity. Conventional zones: start. */
  readonly writePointer: number;
  readonly state: ZoneState;
  readonly type: ZoneType;
}
