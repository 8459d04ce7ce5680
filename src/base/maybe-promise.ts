/**
 * A result that is there already, or will be.
 *
 * Hot paths return `void` when the bytes were in the page cache, sparing a promise and a turn of the
 * event loop per request. Callers write `const wait = s.read(…); if (wait) await wait;`.
 */
export type MaybePromise<T> = T | Promise<T>;

/** True when the result is still to come. */
export function isPromise<T>(value: MaybePromise<T>): value is Promise<T> {
  return value instanceof Promise;
}

/** Waits until all have ended, then fails with the first failure in the order given: no buffer is in use afterwards. */
export async function whenAll(waits: readonly MaybePromise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(waits)) {
    if (result.status === "rejected") throw result.reason;
  }
}
