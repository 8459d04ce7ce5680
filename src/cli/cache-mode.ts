import { UsageError } from "./usage-error.js";

/** How writes reach the disk, by the names of the stock tools. */
export interface CacheMode {
  /** Bypass the page cache of the host. */
  readonly direct: boolean;
  /** Every write is durable before it is acknowledged. */
  readonly writeThrough: boolean;
  /** Nothing waits for the disk: what is written is where the host crashes with it. Heeded by `convert`, elsewhere flushes are kept. */
  readonly noFlush?: boolean;
}

const CACHE_MODES: Readonly<Record<string, CacheMode>> = {
  writeback: { direct: false, writeThrough: false },
  unsafe: { direct: false, writeThrough: false, noFlush: true },
  writethrough: { direct: false, writeThrough: true },
  none: { direct: true, writeThrough: false },
  off: { direct: true, writeThrough: false },
  directsync: { direct: true, writeThrough: true },
};

export const WRITE_BACK: CacheMode = { direct: false, writeThrough: false };

/** The cache mode called `name`, or undefined. */
export function cacheMode(name: string): CacheMode | undefined {
  return Object.hasOwn(CACHE_MODES, name) ? CACHE_MODES[name] : undefined;
}

/** The cache mode that an option gives, write-back without it. `words`: how the stock tool calls the option when the name is none. */
export function givenCacheMode(name: string | undefined, words = "cache option"): CacheMode {
  const mode = name === undefined ? WRITE_BACK : cacheMode(name);
  if (mode === undefined) throw new UsageError(`Invalid ${words}: ${name}`, false);
  return mode;
}
