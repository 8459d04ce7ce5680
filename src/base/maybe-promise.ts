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
