import * as fs from "node:fs";
import { MiB } from "../base/units.js";
import { isInMemory } from "../host/memory-files.js";
import { writeInPool } from "./file-transfer.js";

/**
 * Most bytes, and most writes, that go out as one: while they do, as many are made ready. Files that are in memory only gain by more; on ext4
 * the same write of 4 MiB takes the kernel twice the time.
 */
const TOGETHER_BYTES = 2 * MiB;
const TOGETHER_BYTES_IN_MEMORY = 4 * MiB;
const TOGETHER_COUNT = 64;

interface Waiting {
  readonly at: number;
  readonly bytes: Uint8Array;
  readonly resolve: () => void;
  readonly reject: (cause: unknown) => void;
}

/**
 * Writes to one file in the thread pool, one at a time: file systems let only one writer change a file, and others that wait for it keep
 * processors busy. Neighbours that have come together meanwhile are one call.
 */
export class WriteQueue {
  readonly #fd: number;
  readonly #waiting: Waiting[] = [];
  readonly #togetherBytes: number;
  #busy = false;

  constructor(fd: number) {
    this.#fd = fd;
    this.#togetherBytes = isInMemory(fd) ? TOGETHER_BYTES_IN_MEMORY : TOGETHER_BYTES;
  }

  /** Writes all of `bytes`. Fails as the operating system does. */
  write(at: number, bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ at, bytes, resolve, reject });
      if (!this.#busy) this.#goOn();
    });
  }

  /** Whoever is told of a write does something about it: so the next one goes out before anybody is told. */
  #goOn(): void {
    const group = this.#next();
    const [first, ...others] = group;
    this.#busy = first !== undefined;
    if (first === undefined) return;
    if (others.length === 0) this.#writeOne(first);
    else this.#writeTogether(first, group);
  }

  #writeOne({ at, bytes, resolve, reject }: Waiting): void {
    writeInPool(this.#fd, at, bytes).then(
      () => {
        this.#goOn();
        resolve();
      },
      (cause: unknown) => {
        this.#goOn();
        reject(cause);
      },
    );
  }

  /** When it fails or not all of it is written, each is written by itself, and has its own failure. */
  #writeTogether(first: Waiting, group: readonly Waiting[]): void {
    const length = group.reduce((sum, { bytes }) => sum + bytes.length, 0);
    const parts = group.map(({ bytes }) => bytes);
    fs.writev(this.#fd, parts, first.at, (error, count) => {
      if (error === null && count === length) {
        this.#goOn();
        for (const { resolve } of group) resolve();
      } else {
        void this.#writeEach(group);
      }
    });
  }

  async #writeEach(group: readonly Waiting[]): Promise<void> {
    for (const { at, bytes, resolve, reject } of group) {
      await writeInPool(this.#fd, at, bytes).then(resolve, reject);
    }
    this.#goOn();
  }

  /** What is next, with what follows it in the file and came right after it. */
  #next(): Waiting[] {
    let count = 0;
    let length = 0;
    const start = this.#waiting[0]?.at ?? 0;
    for (const { at, bytes } of this.#waiting) {
      const fits = length + bytes.length <= this.#togetherBytes && count < TOGETHER_COUNT;
      if (count > 0 && !(fits && at === start + length)) break;
      count += 1;
      length += bytes.length;
    }
    return this.#waiting.splice(0, count);
  }
}
