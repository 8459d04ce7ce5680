import type { MaybePromise } from "../../base/maybe-promise.js";
import type { DebugEvent, StorageDebug } from "../../storage/debug/events.js";
import type { Storage } from "../../storage/storage.js";
import type { GuestData } from "./guest-data.js";

/** Guest data that tells of what is read and written. There is no short way past it, so that images without it pay nothing. */
class DebuggedData implements GuestData {
  readonly storage: Storage;
  readonly direct = undefined;
  readonly isUntreated: boolean;
  readonly inImage: boolean;
  readonly freshIsZero: boolean;
  readonly #inner: GuestData;
  readonly #debug: StorageDebug;
  /** What the next call is, when it is no request of the guest's. */
  #next: DebugEvent | undefined;

  constructor(inner: GuestData, debug: StorageDebug) {
    this.#inner = inner;
    this.#debug = debug;
    this.storage = inner.storage;
    this.isUntreated = inner.direct !== undefined;
    this.inImage = inner.inImage;
    this.freshIsZero = inner.freshIsZero;
  }

  announce(event: DebugEvent): void {
    this.#next = event;
  }

  /** Old contents that are not stored need no read: then the announcement is of no call. */
  #tell(event: "read_aio" | "write_aio"): void {
    const next = this.#next;
    this.#next = undefined;
    const isMeant = (next === "cow_read" && event === "read_aio") || (next === "cow_write" && event === "write_aio");
    this.#debug.event(isMeant ? next : event);
  }

  read(host: number, guest: number, into: Uint8Array): MaybePromise<void> {
    this.#tell("read_aio");
    return this.#inner.read(host, guest, into);
  }

  write(host: number, guest: number, from: Uint8Array): MaybePromise<void> {
    this.#tell("write_aio");
    return this.#inner.write(host, guest, from);
  }

  writeZeroes(host: number, guest: number, length: number): MaybePromise<void> {
    this.#debug.event("cow_write");
    return this.#inner.writeZeroes(host, guest, length);
  }

  erased(guest: number, length: number, unmap: boolean): MaybePromise<void> {
    return this.#inner.erased(guest, length, unmap);
  }

  makeRoom(size: number): MaybePromise<void> {
    return this.#inner.makeRoom(size);
  }

  setEnd(size: number): void {
    this.#inner.setEnd(size);
  }

  flush(): MaybePromise<void> {
    return this.#inner.flush();
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}

/** `data`, of whose use `debug` is told; as it is where there is nobody to tell. */
export function debuggedData(data: GuestData, debug: StorageDebug | undefined): GuestData {
  return debug === undefined ? data : new DebuggedData(data, debug);
}
