import { availableParallelism } from "node:os";

/** Most threads that Node.js takes. */
const MAX_THREADS = 1024;

/** Enough to keep a disk busy at queue depth 64: more gains nothing (measured with direct 4 KiB reads). */
export const DEEP_QUEUE_THREADS = 32;

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
  const wanted = Math.min(Math.max(Math.trunc(threads), 1), MAX_THREADS);
  process.env["UV_THREADPOOL_SIZE"] = String(wanted);
  return wanted;
}

/** A thread for each processor to compress, and one for files. More of them would sleep, and waking one takes the time of a small cluster. */
const SPARE_THREADS = 1;
/** Clusters that wait in the pool, and are in work there, for each thread. */
const WORK_PER_THREAD = 3;

let queue: number | undefined;

/**
 * For a program that does nothing but copy: few threads, which never run out of work. As `requestThreadPool`, before the first use of the
 * pool.
 */
export function prepareForCopies(): void {
  const threads = availableParallelism() + SPARE_THREADS;
  queue = WORK_PER_THREAD * Math.min(threads, requestThreadPool(threads));
}

/** Clusters that had better be in the pool at a time, where copies were prepared for. */
export function copyQueue(): number | undefined {
  return queue;
}
