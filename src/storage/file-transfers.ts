import type { MaybePromise } from "../base/maybe-promise.js";
import { fillInPool, readHere, writeHere } from "./file-transfer.js";
import { ReadPath } from "./read-path.js";
import { WriteQueue } from "./write-queue.js";

/** How calls reach the operating system; see `FileStorageOptions.io`. */
export type IoMode = "auto" | "sync" | "pool";

/** Moves bytes between a file and memory. Failures are those of the operating system, thrown or rejected. */
export interface FileTransfers {
  /** Fills `into`; what is past the end of the file becomes zeros. */
  read(at: number, into: Uint8Array): MaybePromise<void>;
  /** Writes all of `from`, which is not empty. */
  write(at: number, from: Uint8Array): MaybePromise<void>;
}

/** Everything on this thread. */
class HereTransfers implements FileTransfers {
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  read(at: number, into: Uint8Array): undefined {
    const done = readHere(this.#fd, at, into);
    if (done < into.length) into.fill(0, done);
    return undefined;
  }

  write(at: number, from: Uint8Array): undefined {
    writeHere(this.#fd, at, from);
    return undefined;
  }
}

/** Everything in the thread pool, one write at a time. */
class PoolTransfers implements FileTransfers {
  readonly #fd: number;
  readonly #writes: WriteQueue;

  constructor(fd: number) {
    this.#fd = fd;
    this.#writes = new WriteQueue(fd);
  }

  read(at: number, into: Uint8Array): Promise<void> {
    return fillInPool(this.#fd, at, into, 0);
  }

  write(at: number, from: Uint8Array): Promise<void> {
    return this.#writes.write(at, from);
  }
}

/** Cached reads and all writes (which end in the page cache) on this thread, other reads in the pool. */
class AutoTransfers implements FileTransfers {
  readonly #fd: number;
  readonly #path: ReadPath;

  constructor(fd: number) {
    this.#fd = fd;
    this.#path = new ReadPath(fd);
  }

  read(at: number, into: Uint8Array): Promise<void> | undefined {
    const done = this.#path.attempt(at, into);
    return done === into.length ? undefined : fillInPool(this.#fd, at, into, done);
  }

  write(at: number, from: Uint8Array): undefined {
    writeHere(this.#fd, at, from);
    return undefined;
  }
}

/** Transfers through the page cache. */
export function bufferedTransfers(fd: number, io: IoMode): FileTransfers {
  if (io === "sync") return new HereTransfers(fd);
  return io === "pool" ? new PoolTransfers(fd) : new AutoTransfers(fd);
}
