import { pbkdf2 } from "node:crypto";
import { ZcowError } from "../../base/errors.js";
import { MAX_LUKS_ITERATIONS, MIN_LUKS_ITERATIONS } from "./luks-limits.js";

export interface Derivation {
  readonly passphrase: Uint8Array;
  readonly salt: Uint8Array;
  readonly iterations: number;
  /** Bytes wanted. */
  readonly length: number;
  readonly hash: string;
}

/** PBKDF2 (RFC 8018, section 5.2), in the thread pool: it takes seconds by design. The caller clears the result. */
export function deriveKey({ passphrase, salt, iterations, length, hash }: Derivation): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    pbkdf2(passphrase, salt, iterations, length, hash, (error, key) => (error === null ? resolve(key) : reject(error)));
  });
}

/** A measurement shorter than this is mostly noise. */
const LONG_ENOUGH_MS = 40;
const FIRST_TRY = 8192;

/** Iterations of a derivation of `length` bytes that keep this machine busy for a second. */
export async function iterationsPerSecond(hash: string, length: number): Promise<number> {
  const passphrase = new Uint8Array(16);
  const salt = new Uint8Array(32);
  for (let iterations = FIRST_TRY; ; ) {
    const milliseconds = await busyTime(() => deriveKey({ passphrase, salt, iterations, length, hash }));
    if (milliseconds >= LONG_ENOUGH_MS) return (iterations * 1000) / milliseconds;
    iterations *= Math.min(16, Math.max(2, Math.ceil((LONG_ENOUGH_MS * 1.25) / milliseconds)));
  }
}

/** Time that `work` kept a processor busy: others that want it too must not make the derivation weaker. */
async function busyTime(work: () => Promise<unknown>): Promise<number> {
  const wallBefore = performance.now();
  const cpuBefore = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(cpuBefore);
  return Math.max(0.01, Math.min(performance.now() - wallBefore, (user + system) / 1000));
}

/** The iteration count for `milliseconds` of work at `perSecond`; `INVALID_ARGUMENT` when that is more than is ever read back. */
export function iterationsFor(perSecond: number, milliseconds: number): number {
  const count = Math.max(MIN_LUKS_ITERATIONS, Math.floor((perSecond * milliseconds) / 1000));
  if (count <= MAX_LUKS_ITERATIONS) return count;
  throw new ZcowError(
    "INVALID_ARGUMENT",
    `Option encrypt.iter-time: ${milliseconds} ms would take ${count} iterations, above the limit ${MAX_LUKS_ITERATIONS}`,
    { data: { option: "encrypt.iter-time", value: milliseconds, limit: MAX_LUKS_ITERATIONS } },
  );
}
