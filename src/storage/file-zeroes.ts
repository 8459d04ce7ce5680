import type { MaybePromise } from "../base/maybe-promise.js";
import { MiB } from "../base/units.js";
import { nativeCalls } from "../host/native.js";
import { type CallPlace, punchHole, zeroRange } from "../host/punch-hole.js";
import { writeInPool } from "./file-transfer.js";
import type { FileTransfers, IoMode } from "./file-transfers.js";

/** Written over and over where the system cannot make zeros itself. */
const ZEROS_SIZE = MiB;

/** Makes zeros and gives space back inside a file, in the cheapest way the system has. Lengths are above 0. */
export class FileZeroes {
  readonly #fd: number;
  readonly #transfers: FileTransfers;
  readonly #io: IoMode;

  constructor(fd: number, transfers: FileTransfers, io: IoMode) {
    this.#fd = fd;
    this.#transfers = transfers;
    this.#io = io;
  }

  /** Makes [at, at + length), which lies inside the file, read as zeros. */
  zero(at: number, length: number, unmap: boolean): MaybePromise<void> {
    const done = this.#zeroByCall(at, length, unmap);
    if (done === true) return undefined;
    if (done === false) return this.#writeZeros(at, length);
    return this.#writeUnless(done, at, length);
  }

  /** Gives space back where the system can. */
  discard(at: number, length: number): MaybePromise<void> {
    const calls = nativeCalls();
    const punched = calls !== undefined && punchHole(calls, this.#fd, at, length, this.#place());
    return typeof punched === "boolean" ? undefined : ignoreResult(punched);
  }

  /** True when the system made the zeros; false when they have to be written. */
  #zeroByCall(at: number, length: number, unmap: boolean): MaybePromise<boolean> {
    const calls = nativeCalls();
    if (calls === undefined) return false;
    const place = this.#place();
    const zero = (): MaybePromise<boolean> => zeroRange(calls, this.#fd, at, length, place);
    if (!unmap) return zero();
    const punched = punchHole(calls, this.#fd, at, length, place);
    if (typeof punched === "boolean") return punched || zero();
    return punched.then((done) => done || zero());
  }

  async #writeUnless(done: Promise<boolean>, at: number, length: number): Promise<void> {
    if (!(await done)) await this.#writeZeros(at, length);
  }

  #writeZeros(at: number, length: number): MaybePromise<void> {
    if (length <= ZEROS_SIZE) return this.#transfers.write(at, new Uint8Array(length));
    return this.#writeManyZeros(at, length);
  }

  /** Long ranges go through the pool even where writes are made on this thread: they would stop everything else. */
  async #writeManyZeros(at: number, length: number): Promise<void> {
    const zeros = new Uint8Array(ZEROS_SIZE);
    for (let done = 0; done < length; done += ZEROS_SIZE) {
      const piece = zeros.subarray(0, Math.min(ZEROS_SIZE, length - done));
      await (this.#io === "auto" ? writeInPool(this.#fd, at + done, piece) : this.#transfers.write(at + done, piece));
    }
  }

  #place(): CallPlace {
    if (this.#io === "auto") return "auto";
    return this.#io === "sync" ? "here" : "pool";
  }
}

async function ignoreResult(work: Promise<boolean>): Promise<void> {
  await work;
}
