import * as fs from "node:fs";
import { loadedNativeCalls } from "../host/native.js";

/** Most bytes per system call: Linux moves at most 0x7ffff000, and Node.js wants lengths below 2^31. */
const MAX_TRANSFER = 0x4000_0000;

/**
 * One read on this thread. A native call costs a fifth less than `fs.readSync`, when the helper is there anyway; should
 * it fail, Node.js makes the call again and words the error.
 */
function readOnce(fd: number, at: number, into: Uint8Array, from: number): number {
  const length = Math.min(into.length - from, MAX_TRANSFER);
  const calls = loadedNativeCalls();
  if (calls !== undefined) {
    const count = calls.pread(fd, from === 0 ? into : into.subarray(from), length, at);
    if (count >= 0) return count;
  }
  return fs.readSync(fd, into, from, length, at);
}

function writeOnce(fd: number, at: number, bytes: Uint8Array, from: number): number {
  const length = Math.min(bytes.length - from, MAX_TRANSFER);
  const calls = loadedNativeCalls();
  if (calls !== undefined) {
    const count = calls.pwrite(fd, from === 0 ? bytes : bytes.subarray(from), length, at);
    if (count > 0) return count;
  }
  return fs.writeSync(fd, bytes, from, length, at);
}

/** Reads on this thread until `into` is full or the file ends; returns where it stopped. */
export function readHere(fd: number, at: number, into: Uint8Array): number {
  let done = 0;
  while (done < into.length) {
    const count = readOnce(fd, at + done, into, done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

/** Writes all of `bytes` on this thread. */
export function writeHere(fd: number, at: number, bytes: Uint8Array): void {
  let done = 0;
  while (done < bytes.length) {
    const count = writeOnce(fd, at + done, bytes, done);
    if (count === 0) throw new Error("the operating system wrote nothing and gave no reason");
    done += count;
  }
}

/** One read in the thread pool, from position `from` of `into`; may be short. */
export function readOnceInPool(fd: number, at: number, into: Uint8Array, from: number): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.read(fd, into, from, Math.min(into.length - from, MAX_TRANSFER), at, (error, count) => {
      if (error === null) resolve(count);
      else reject(error);
    });
  });
}

/** One write in the thread pool; may be short. */
export function writeOnceInPool(fd: number, at: number, bytes: Uint8Array, from: number): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.write(fd, bytes, from, Math.min(bytes.length - from, MAX_TRANSFER), at, (error, count) => {
      if (error === null) resolve(count);
      else reject(error);
    });
  });
}

/** Fills `into` from position `from` on in the thread pool; what is past the end of the file becomes zeros. */
export async function fillInPool(fd: number, at: number, into: Uint8Array, from: number): Promise<void> {
  let done = from;
  while (done < into.length) {
    const count = await readOnceInPool(fd, at + done, into, done);
    if (count === 0) break;
    done += count;
  }
  into.fill(0, done);
}

/** Writes `bytes` from position `from` on in the thread pool. */
export async function writeInPool(fd: number, at: number, bytes: Uint8Array, from = 0): Promise<void> {
  let done = from;
  while (done < bytes.length) {
    const count = await writeOnceInPool(fd, at + done, bytes, done);
    if (count === 0) throw new Error("the operating system wrote nothing and gave no reason");
    done += count;
  }
}
