import type { MaybePromise } from "../base/maybe-promise.js";
import type { StorageDebug } from "./debug/events.js";

/** What a storage can do. Frozen for the life of the storage, so callers may decide once. */
export interface StorageCapabilities {
  /** Writes, truncation and the rest of the changing calls are allowed. */
  readonly writable: boolean;
  /** `truncate` works, and writes past the end make the storage longer. */
  readonly resizable: boolean;
  /** Of those that are resizable: `truncate` makes it longer only. Default false. */
  readonly growsOnly?: boolean;
  /** `discard` gives space back; otherwise it does nothing. */
  readonly discard: boolean;
  /** `writeZeroes` is cheaper than writing a buffer of zeros. */
  readonly efficientZeroes: boolean;
  /** `extents` can tell holes from data; otherwise everything is data. */
  readonly holes: boolean;
  /** Cached reads and all writes complete synchronously (return `undefined`). */
  readonly synchronous: boolean;
  /** Offsets, lengths and buffer addresses should be multiples of this many bytes (1 = no rule). */
  readonly alignment: number;
  /** `flush` makes data survive loss of power, as far as the operating system can tell. */
  readonly durable: boolean;
}

/** A run of bytes that is either stored or a hole that reads as zeros. */
export interface StorageExtent {
  /** Byte offset. */
  readonly offset: number;
  /** Length in bytes, never 0. */
  readonly length: number;
  readonly hole: boolean;
  /** Where it lies in the file, if that is somewhere else than `offset`. */
  readonly hostOffset?: number;
}

/**
 * Where bytes live.
 *
 * All offsets and lengths are bytes, safe integers and not negative. Calls may overlap in time. Calls
 * that touch the same bytes at the same time have no defined order: ordering is the caller's
 * business. A failed call rejects with a `ZcowError` of category `storage`; after a failed
 * write the bytes of that range are undefined.
 */
export interface Storage {
  /** How messages call this storage: a path or URL. */
  readonly name: string;
  readonly capabilities: StorageCapabilities;
  /** Where faults are tied to what the users of the storage do: told of it, right before the call that it is about. */
  readonly debug?: StorageDebug | undefined;
  /** Descriptor of a file that is open and has the bytes of the storage at the same offsets, in the page cache. */
  readonly descriptor?: number | undefined;

  /** Current length in bytes. */
  size(): number;

  /** Fills `into` from `at`. Bytes past the end of the storage read as zeros. Never a short read. */
  read(at: number, into: Uint8Array): MaybePromise<void>;

  /** Writes all of `from` at `at`, extending a resizable storage. Never a short write. */
  write(at: number, from: Uint8Array): MaybePromise<void>;

  /** Makes the range read as zeros, extending if needed. With `unmap` the space may be given back. */
  writeZeroes(at: number, length: number, options?: { readonly unmap?: boolean }): MaybePromise<void>;

  /**
   * Tells that the range is no longer needed. Afterwards it reads as zeros or as before. Never
   * changes the size. Does nothing where `capabilities.discard` is false.
   */
  discard(at: number, length: number): MaybePromise<void>;

  /** All writes that completed before this call are durable when it completes. */
  flush(): MaybePromise<void>;

  /** Sets the length; new bytes read as zeros. */
  truncate(size: number): MaybePromise<void>;

  /**
   * Runs of data and holes covering exactly [at, at + length), in order, neighbours of one kind merged
   * where that is cheap. The part past the end of the storage is a hole.
   */
  extents(at: number, length: number): AsyncIterable<StorageExtent>;

  /** Bytes of host space in use, where known. */
  allocatedSize(): number | undefined;

  /** Idempotent. Waits for calls in flight. Does not flush. */
  close(): Promise<void>;
}
