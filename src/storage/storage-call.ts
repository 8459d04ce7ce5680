/** The calls of a storage that do something, by their name in the contract. */
export type StorageCallKind = "read" | "write" | "writeZeroes" | "discard" | "flush" | "truncate";

/** One call, as wrappers see it. Offsets and lengths in bytes. */
export interface StorageCall {
  readonly kind: StorageCallKind;
  /** 0 for `flush` and `truncate`. */
  readonly at: number;
  /** 0 for `flush`; the new size for `truncate`. */
  readonly length: number;
}
