import * as fs from "node:fs";

/** Most bytes per system call: Linux moves at most 0x7ffff000, and Node.js wants lengths below 2^31. */
const MAX_TRANSFER = 0x4000_0000;

/** Reads on this thread until `into` is full or the file ends; returns where it stopped. */
export function readHere(fd: number, at: number, into: Uint8Array, from = 0): number {
  let done = from;
  while (done < into.length) {
    const count = fs.readSync(fd, into, done, Math.min(into.length - done, MAX_TRANSFER), at + done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

/** Like {@link readHere}, in the thread pool. */
export function readInPool(fd: number, at: number, into: Uint8Array, from = 0): Promise<number> {
  return new Promise((resolve, reject) => {
    let done = from;
    const next = (): void => {
      fs.read(fd, into, done, Math.min(into.length - done, MAX_TRANSFER), at + done, (error, count) => {
        if (error !== null) {
          reject(error);
          return;
        }
        done += count;
        if (count === 0 || done === into.length) resolve(done);
        else next();
      });
    };
    next();
  });
}

/** Writes all of `bytes` on this thread. */
export function writeHere(fd: number, at: number, bytes: Uint8Array): void {
  let done = 0;
  while (done < bytes.length) {
    done += fs.writeSync(fd, bytes, done, Math.min(bytes.length - done, MAX_TRANSFER), at + done);
  }
}

/** Writes all of `bytes` in the thread pool. */
export function writeInPool(fd: number, at: number, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    let done = 0;
    const next = (): void => {
      fs.write(fd, bytes, done, Math.min(bytes.length - done, MAX_TRANSFER), at + done, (error, count) => {
        if (error !== null) {
          reject(error);
          return;
        }
        done += count;
        if (done === bytes.length) resolve();
        else next();
      });
    };
    next();
  });
}
