import { availableParallelism } from "node:os";

/** Threads that Node.js starts when nothing says otherwise. */
const DEFAULT_THREADS = 4;

/** Most threads that Node.js takes. */
const MAX_THREADS = 1024;

/** Enough to keep a disk busy at queue depth 64: more gains nothing (measured with direct 4 KiB reads). */
export const DEEP_QUEUE_THREADS = 32;

/** Beside a thread for each processor: work that waits to be taken up at once, and transfers of files. */
const SPARE_THREADS = 4;

/** Enough to keep every processor compressing while files are read and written. */
export function codecThreads(): number {
  return availableParallelism() + SPARE_THREADS;
}

/**
 * Asks for `threads` in the pool that serves reads from disk (whole number, 1 to 1024).
 *
 * Works only before the first use of the pool, so at the very start of a program; on Node.js 20 the loader of
 * ES modules uses the pool itself, so there it works only from CommonJS (as the built command is) or from the
 * environment. A size set in the environment wins. Returns the size that will be asked for.
 */
export function requestThreadPool(threads: number): number {
  const set = Number.parseInt(process.env["UV_THREADPOOL_SIZE"] ?? "", 10);
  if (set > 0) return set;
  const wanted = Math.min(Math.max(Math.trunc(threads), DEFAULT_THREADS), MAX_THREADS);
  process.env["UV_THREADPOOL_SIZE"] = String(wanted);
  return wanted;
}
