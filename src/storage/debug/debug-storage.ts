import { alignDown, alignUp, isAligned } from "../../base/integers.js";
import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { ForwardingStorage } from "../forwarding-storage.js";
import { InFlight } from "../in-flight.js";
import type { Storage, StorageExtent } from "../storage.js";
import { rangeError } from "../storage-error.js";
import { Breakpoints, type BreakpointWatcher } from "./breakpoints.js";
import type { DebugEvent, StorageDebug } from "./events.js";
import { type DebugRules, injectedError, type RequestType, RuleMachine } from "./rules.js";

/** What requests of a storage must keep to, in bytes; 0 or undefined for no rule. */
export interface DebugLimits {
  /** A power of two. Requests that do not keep to it are widened: the rest is read before it is written back. */
  readonly align?: number | undefined;
  /** Longest read or write; longer ones are made in pieces. */
  readonly maxTransfer?: number | undefined;
  readonly maxWriteZero?: number | undefined;
  readonly maxDiscard?: number | undefined;
}

export interface DebugStorageOptions {
  readonly rules?: DebugRules;
  readonly limits?: DebugLimits;
  /** Told of calls that wait at breakpoints. Default: nobody. */
  readonly onBreakpoint?: BreakpointWatcher;
}

/** A storage that fails and waits as it is told, tied to what those who use it are doing. */
class DebugStorage extends ForwardingStorage implements StorageDebug {
  readonly #rules: RuleMachine;
  readonly #breakpoints: Breakpoints;
  readonly #limits: DebugLimits;
  readonly #align: number;
  /** Something was changed since the last flush. */
  #isChanged = false;
  /** Calls held back here, which the inner storage does not know of. */
  readonly #held = new InFlight();

  constructor(inner: Storage, { rules, limits = {}, onBreakpoint }: DebugStorageOptions) {
    const align = limits.align === undefined || limits.align === 0 ? 1 : limits.align;
    const alignment = Math.max(align, inner.capabilities.alignment);
    super(inner, Object.freeze({ ...inner.capabilities, alignment, synchronous: false }));
    this.#align = align;
    this.#limits = limits;
    this.#rules = new RuleMachine(rules ?? { inject: [], states: [] });
    this.#breakpoints = new Breakpoints(onBreakpoint ?? ((): void => undefined));
  }

  override get debug(): StorageDebug {
    return this;
  }

  event(event: DebugEvent): void {
    this.#breakpoints.event(event);
    this.#rules.event(event);
  }

  breakAt(event: DebugEvent, tag: string): void {
    this.#breakpoints.breakAt(event, tag);
  }

  resume(tag: string): boolean {
    return this.#breakpoints.resume(tag);
  }

  removeBreak(tag: string): boolean {
    return this.#breakpoints.removeBreak(tag);
  }

  waitFor(tag: string): Promise<void> {
    return this.#breakpoints.waitFor(tag);
  }

  override read(at: number, into: Uint8Array): MaybePromise<void> {
    const error = rangeError(this.name, at, into.length);
    if (error !== undefined) return Promise.reject(error);
    if (this.#fits(at, into.length, this.#limits.maxTransfer)) {
      return this.#call("read", at, into.length, () => this.inner.read(at, into));
    }
    return this.#held.track(this.#readPieces(at, into));
  }

  async #readPieces(at: number, into: Uint8Array): Promise<void> {
    const from = alignDown(at, this.#align);
    const whole = new Uint8Array(alignUp(at + into.length, this.#align) - from);
    for (const [offset, length] of pieces(from, whole.length, this.#limits.maxTransfer)) {
      const part = whole.subarray(offset - from, offset - from + length);
      await this.#call("read", offset, length, () => this.inner.read(offset, part));
    }
    into.set(whole.subarray(at - from, at - from + into.length));
  }

  override write(at: number, from: Uint8Array): MaybePromise<void> {
    const error = rangeError(this.name, at, from.length);
    if (error !== undefined) return Promise.reject(error);
    if (this.#fits(at, from.length, this.#limits.maxTransfer)) return this.#writeOne(at, from);
    return this.#held.track(this.#writePieces(at, from));
  }

  #writeOne(at: number, from: Uint8Array): MaybePromise<void> {
    this.event("pwritev");
    const wait = this.#call("write", at, from.length, () => this.inner.write(at, from));
    if (isPromise(wait)) return wait.then(() => this.event("pwritev_done"));
    this.event("pwritev_done");
    return undefined;
  }

  async #writePieces(at: number, bytes: Uint8Array): Promise<void> {
    const from = alignDown(at, this.#align);
    const to = alignUp(at + bytes.length, this.#align);
    const whole = new Uint8Array(to - from);
    if (at > from) await this.#readEdge(from, whole.subarray(0, this.#align), "head");
    if (at + bytes.length < to) await this.#readEdge(to - this.#align, whole.subarray(-this.#align), "tail");
    whole.set(bytes, at - from);
    for (const [offset, length] of pieces(from, whole.length, this.#limits.maxTransfer)) {
      await this.#writeOne(offset, whole.subarray(offset - from, offset - from + length));
    }
  }

  async #readEdge(at: number, into: Uint8Array, edge: "head" | "tail"): Promise<void> {
    this.event(`pwritev_rmw.${edge}`);
    await this.#call("read", at, into.length, () => this.inner.read(at, into));
    this.event(`pwritev_rmw.after_${edge}`);
  }

  override writeZeroes(at: number, length: number, options?: { readonly unmap?: boolean }): MaybePromise<void> {
    const error = rangeError(this.name, at, length);
    if (error !== undefined) return Promise.reject(error);
    if (!isAligned(at, this.#align) || !isAligned(length, this.#align)) return this.write(at, new Uint8Array(length));
    this.event("pwritev_zero");
    return this.#inPieces(at, length, this.#limits.maxWriteZero, (offset, part) =>
      this.#call("write-zeroes", offset, part, () => this.inner.writeZeroes(offset, part, options)),
    );
  }

  override discard(at: number, length: number): MaybePromise<void> {
    const error = rangeError(this.name, at, length);
    if (error !== undefined) return Promise.reject(error);
    const from = alignUp(at, this.#align);
    const to = alignDown(at + length, this.#align);
    if (to <= from) return this.inner.discard(at, 0);
    return this.#inPieces(from, to - from, this.#limits.maxDiscard, (offset, part) =>
      this.#call("discard", offset, part, () => this.inner.discard(offset, part)),
    );
  }

  /** Nothing is asked of what has nothing to do, as in the stock tools. */
  override flush(): MaybePromise<void> {
    if (!this.#isChanged) return this.inner.flush();
    this.event("flush_to_disk");
    const flushed = this.#call("flush", 0, 0, () => this.inner.flush());
    if (isPromise(flushed)) return flushed.then(() => this.#unchanged());
    this.#unchanged();
    return undefined;
  }

  #unchanged(): void {
    this.#isChanged = false;
  }

  override truncate(size: number): MaybePromise<void> {
    this.#isChanged = true;
    return this.inner.truncate(size);
  }

  override async *extents(at: number, length: number): AsyncGenerator<StorageExtent> {
    const errno = this.#rules.errnoFor("block-status", at, length);
    if (errno !== undefined) throw injectedError(errno, "map", this.name, at, length);
    yield* this.inner.extents(at, length);
  }

  override async close(): Promise<void> {
    this.#breakpoints.clear();
    await this.#held.idle();
    await super.close();
  }

  #fits(at: number, length: number, most: number | undefined): boolean {
    const isShort = most === undefined || most === 0 || length <= most;
    return isShort && (this.#align === 1 || (isAligned(at, this.#align) && isAligned(length, this.#align)));
  }

  #inPieces(
    at: number,
    length: number,
    most: number | undefined,
    call: (at: number, length: number) => MaybePromise<void>,
  ): MaybePromise<void> {
    if (most === undefined || most === 0 || length <= most) return call(at, length);
    const all = async (): Promise<void> => {
      for (const [offset, part] of pieces(at, length, most)) await call(offset, part);
    };
    return this.#held.track(all());
  }

  #call(type: RequestType, at: number, length: number, make: () => MaybePromise<void>): MaybePromise<void> {
    if (type !== "read" && type !== "flush") this.#isChanged = true;
    const gate = this.#breakpoints.gate();
    const errno = this.#rules.errnoFor(type, at, length);
    if (gate !== undefined) return this.#held.track(this.#behind(gate, type, at, length, errno, make));
    if (errno !== undefined) return Promise.reject(injectedError(errno, verbOf(type), this.name, at, length));
    return make();
  }

  async #behind(
    gate: Promise<void>,
    type: RequestType,
    at: number,
    length: number,
    errno: number | undefined,
    make: () => MaybePromise<void>,
  ): Promise<void> {
    await gate;
    if (errno !== undefined) throw injectedError(errno, verbOf(type), this.name, at, length);
    await make();
  }
}

function verbOf(type: RequestType): string {
  return type === "write-zeroes" ? "write zeros to" : type;
}

function* pieces(at: number, length: number, most: number | undefined): Generator<[at: number, length: number]> {
  const step = most === undefined || most === 0 ? length : most;
  for (let done = 0; done < length; done += step) yield [at + done, Math.min(step, length - done)];
}

/** `inner` with faults, breakpoints and limits, for tests of what stands above. Closing it closes `inner`. */
export function debugStorage(inner: Storage, options: DebugStorageOptions = {}): Storage {
  return new DebugStorage(inner, options);
}
