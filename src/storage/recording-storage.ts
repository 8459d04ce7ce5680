import { ZcowError } from "../base/errors.js";
import type { MaybePromise } from "../base/maybe-promise.js";
import { CrashImages, type CrashOptions, type RecordedChange, type RecordedFlush } from "./crash-image.js";
import { ForwardingStorage } from "./forwarding-storage.js";
import { type MemoryStorage, memoryStorage } from "./memory-storage.js";
import type { Storage } from "./storage.js";

/**
 * A storage that remembers every change, and can show what would be left if power had failed at any moment.
 *
 * Time is counted in steps: each change or flush takes one when it starts and one when it completes. A cut at moment `m`
 * means that steps with a number of at least `m` never happened.
 */
export interface RecordingStorage extends Storage {
  /** Changes in the order in which they started. */
  readonly changes: readonly RecordedChange[];
  readonly flushes: readonly RecordedFlush[];
  /** The present moment: all steps so far have a smaller number. Take it to remember what was promised when. */
  moment(): number;
  /** For each completed flush, ascending: the moment just before it completed and the moment just after. */
  flushMoments(): number[];
  /**
   * The storage after power failed at `moment`: changes that completed before the start of a flush that completed are
   * there; of the others started by then, any may be there, wholly or in part, as `options` decides.
   */
  crashImage(moment: number, options: CrashOptions): MemoryStorage;
}

/** Counts steps. Recordings that share one have comparable moments: power fails for all of them at once. */
export interface StepClock {
  now: number;
}

class ChangeRecorder extends ForwardingStorage implements RecordingStorage {
  readonly changes: RecordedChange[] = [];
  readonly flushes: RecordedFlush[] = [];
  readonly #crashes: CrashImages;
  readonly #clock: StepClock;

  constructor(inner: Storage, initial: MemoryStorage, clock: StepClock) {
    super(inner);
    this.#clock = clock;
    this.#crashes = new CrashImages(initial, this.changes, this.flushes);
  }

  moment(): number {
    return this.#clock.now;
  }

  flushMoments(): number[] {
    const moments: number[] = [];
    for (const { completed } of this.flushes) {
      if (completed !== undefined) moments.push(completed, completed + 1);
    }
    return moments.toSorted((a, b) => a - b);
  }

  crashImage(moment: number, options: CrashOptions): MemoryStorage {
    return this.#crashes.at(moment, options);
  }

  override write(at: number, from: Uint8Array): MaybePromise<void> {
    // The caller may reuse its buffer as soon as the write is done.
    const change = { kind: "write", at, length: from.length, bytes: from.slice() } as const;
    return this.#record(change, () => this.inner.write(at, from));
  }

  override writeZeroes(at: number, length: number, options?: { readonly unmap?: boolean }): MaybePromise<void> {
    return this.#record({ kind: "writeZeroes", at, length }, () => this.inner.writeZeroes(at, length, options));
  }

  override discard(at: number, length: number): MaybePromise<void> {
    return this.#record({ kind: "discard", at, length }, () => this.inner.discard(at, length));
  }

  override truncate(size: number): MaybePromise<void> {
    return this.#record({ kind: "truncate", at: 0, length: size }, () => this.inner.truncate(size));
  }

  override flush(): MaybePromise<void> {
    const flush: RecordedFlush = { started: this.#clock.now++, completed: undefined };
    this.flushes.push(flush);
    return this.#complete(flush, () => this.inner.flush());
  }

  #record(
    call: Pick<RecordedChange, "kind" | "at" | "length" | "bytes">,
    make: () => MaybePromise<void>,
  ): MaybePromise<void> {
    const change: RecordedChange = { ...call, started: this.#clock.now++, completed: undefined };
    this.changes.push(change);
    return this.#complete(change, make);
  }

  #complete(entry: { completed: number | undefined }, make: () => MaybePromise<void>): MaybePromise<void> {
    const wait = make();
    if (wait !== undefined) return this.#completeLater(entry, wait);
    entry.completed = this.#clock.now++;
    return undefined;
  }

  async #completeLater(entry: { completed: number | undefined }, wait: Promise<void>): Promise<void> {
    await wait;
    entry.completed = this.#clock.now++;
  }
}

/**
 * Records the changes of `inner`. `initial` holds the bytes that `inner` has now; it may be left out when `inner` is empty
 * or in memory. `clock`: shared by storages that lose power together.
 */
export function recordingStorage(
  inner: Storage,
  initial?: MemoryStorage,
  clock: StepClock = { now: 0 },
): RecordingStorage {
  return new ChangeRecorder(inner, initial?.clone() ?? presentBytes(inner), clock);
}

function presentBytes(inner: Storage): MemoryStorage {
  if (isMemoryStorage(inner)) return inner.clone();
  if (inner.size() === 0) return memoryStorage();
  throw new ZcowError(
    "INVALID_ARGUMENT",
    `${inner.name} has ${inner.size()} bytes already, and recording needs to know them`,
    {
      data: { path: inner.name, option: "initial", value: inner.size() },
    },
  );
}

function isMemoryStorage(storage: Storage): storage is MemoryStorage {
  return "clone" in storage && typeof storage.clone === "function";
}
