import type { ErrorCode } from "../base/error-codes.js";
import { ZcowError } from "../base/errors.js";
import type { MaybePromise } from "../base/maybe-promise.js";
import { ForwardingStorage } from "./forwarding-storage.js";
import { InFlight } from "./in-flight.js";
import type { Storage } from "./storage.js";
import type { StorageCall, StorageCallKind } from "./storage-call.js";

const SECTOR_BYTES = 512;

/** What happens to a call that a rule picks. */
export type Fault =
  /** Fails and does nothing. Default code `IO_ERROR`. */
  | { readonly type: "error"; readonly code?: ErrorCode }
  /** Does only the first `bytes` of a read or a write, then fails. Other calls fail and do nothing. */
  | { readonly type: "torn"; readonly bytes: number; readonly code?: ErrorCode }
  /** Does everything, then fails: the answer got lost. */
  | { readonly type: "lost"; readonly code?: ErrorCode }
  /** Succeeds, after a delay in milliseconds. */
  | { readonly type: "delay"; readonly milliseconds: number };

/** Picks calls by kind, place and number. The conditions given must all hold. */
export interface FaultRule {
  readonly fault: Fault;
  /** Kinds of call that are counted. Default: all. */
  readonly kinds?: readonly StorageCallKind[];
  /** Further condition on the calls that are counted. */
  readonly where?: (call: StorageCall) => boolean;
  /** Picks the n-th counted call only (from 1). */
  readonly nth?: number;
  /** Picks every n-th counted call. */
  readonly every?: number;
  /** Picks all counted calls from the n-th on. */
  readonly from?: number;
}

/** Everything that shall go wrong. */
export interface FaultPlan {
  readonly rules?: readonly FaultRule[];
  /**
   * Bytes that writes may still store in all. The write that crosses the limit stores what fits, up to the end of a sector
   * (512 bytes: a disk never stores a part of one), then fails with `NO_SPACE`, and so does every write after it.
   */
  readonly space?: number;
}

/** A call that was made to fail or wait. */
export interface FaultRecord extends StorageCall {
  /** Number of the call among all calls, from 1. */
  readonly call: number;
  readonly fault: Fault;
}

/** A storage that fails as planned, the same way on every run. */
export interface FaultStorage extends Storage {
  /** Every call that a fault was put on, in order. */
  readonly faults: readonly FaultRecord[];
  /** Calls made so far: of one kind, or of all. */
  calls(kind?: StorageCallKind): number;
  /** From now on nothing fails. */
  heal(): void;
  /** Replaces the plan; its rules count from now. */
  plan(next: FaultPlan): void;
}

interface CountedRule {
  readonly rule: FaultRule;
  count: number;
}

class PlannedFaultStorage extends ForwardingStorage implements FaultStorage {
  readonly faults: FaultRecord[] = [];
  readonly #calls = new Map<StorageCallKind, number>();
  #total = 0;
  #rules: CountedRule[] = [];
  #space = Number.POSITIVE_INFINITY;
  /** Calls held back here, which the inner storage does not know of. */
  readonly #held = new InFlight();

  constructor(inner: Storage, plan: FaultPlan) {
    super(inner);
    this.plan(plan);
  }

  calls(kind?: StorageCallKind): number {
    return kind === undefined ? this.#total : (this.#calls.get(kind) ?? 0);
  }

  heal(): void {
    this.plan({});
  }

  plan(next: FaultPlan): void {
    this.#rules = (next.rules ?? []).map((rule) => ({ rule, count: 0 }));
    this.#space = next.space ?? Number.POSITIVE_INFINITY;
  }

  override read(at: number, into: Uint8Array): MaybePromise<void> {
    return this.#run({ kind: "read", at, length: into.length }, (length) =>
      this.inner.read(at, into.subarray(0, length)),
    );
  }

  override write(at: number, from: Uint8Array): MaybePromise<void> {
    return this.#run({ kind: "write", at, length: from.length }, (length) =>
      this.inner.write(at, from.subarray(0, length)),
    );
  }

  override writeZeroes(at: number, length: number, options?: { readonly unmap?: boolean }): MaybePromise<void> {
    return this.#run({ kind: "writeZeroes", at, length }, (part) => this.inner.writeZeroes(at, part, options));
  }

  override discard(at: number, length: number): MaybePromise<void> {
    return this.#run({ kind: "discard", at, length }, (part) => this.inner.discard(at, part));
  }

  override flush(): MaybePromise<void> {
    return this.#run({ kind: "flush", at: 0, length: 0 }, () => this.inner.flush());
  }

  override truncate(size: number): MaybePromise<void> {
    return this.#run({ kind: "truncate", at: 0, length: size }, () => this.inner.truncate(size));
  }

  override async close(): Promise<void> {
    await this.#held.idle();
    await super.close();
  }

  /** `make` does the first `length` bytes of the call. */
  #run(call: StorageCall, make: (length: number) => MaybePromise<void>): MaybePromise<void> {
    const fault = this.#pick(call);
    if (fault === undefined) return make(call.length);
    this.faults.push({ ...call, call: this.#total, fault });
    return this.#held.track(this.#suffer(call, fault, make));
  }

  async #suffer(call: StorageCall, fault: Fault, make: (length: number) => MaybePromise<void>): Promise<void> {
    switch (fault.type) {
      case "delay":
        await new Promise((resolve) => {
          setTimeout(resolve, fault.milliseconds);
        });
        await make(call.length);
        return;
      case "torn": {
        const part = Math.min(fault.bytes, call.length);
        const divisible = call.kind !== "flush" && call.kind !== "truncate";
        if (divisible && part > 0) await make(part);
        break;
      }
      case "lost":
        await make(call.length);
        break;
      case "error":
        break;
    }
    throw this.#failure(call, fault.code ?? "IO_ERROR");
  }

  #failure(call: StorageCall, code: ErrorCode): ZcowError {
    const message = `planned failure of call ${this.#total}: ${call.kind} of ${call.length} bytes at ${call.at} of ${this.name}`;
    return new ZcowError(code, message, { data: { path: this.name, offset: call.at, length: call.length } });
  }

  #pick(call: StorageCall): Fault | undefined {
    this.#total++;
    this.#calls.set(call.kind, this.calls(call.kind) + 1);
    let picked: Fault | undefined;
    for (const counted of this.#rules) {
      if (!counts(counted.rule, call)) continue;
      counted.count++;
      if (picks(counted.rule, counted.count)) picked ??= counted.rule.fault;
    }
    return picked ?? this.#pickFull(call);
  }

  #pickFull(call: StorageCall): Fault | undefined {
    if (call.kind !== "write") return undefined;
    const fits = Math.min(this.#space, call.length);
    if (fits === call.length) {
      this.#space -= fits;
      return undefined;
    }
    this.#space = 0;
    const wholeSectors = fits - ((call.at + fits) % SECTOR_BYTES);
    return { type: "torn", bytes: Math.max(0, wholeSectors), code: "NO_SPACE" };
  }
}

function counts(rule: FaultRule, call: StorageCall): boolean {
  return (rule.kinds?.includes(call.kind) ?? true) && (rule.where?.(call) ?? true);
}

function picks(rule: FaultRule, count: number): boolean {
  if (rule.nth !== undefined && count !== rule.nth) return false;
  if (rule.every !== undefined && count % rule.every !== 0) return false;
  return rule.from === undefined || count >= rule.from;
}

/** `inner` with planned failures, for tests of what stands above. */
export function faultStorage(inner: Storage, plan: FaultPlan = {}): FaultStorage {
  return new PlannedFaultStorage(inner, plan);
}
