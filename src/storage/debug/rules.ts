import { constants } from "node:os";
import { type ZcowError } from "../../base/errors.js";
import { storageError } from "../storage-error.js";
import type { DebugEvent } from "./events.js";

/** Kinds of calls that a fault can be limited to. */
export const REQUEST_TYPES = ["read", "write", "write-zeroes", "discard", "flush", "block-status"] as const;

export type RequestType = (typeof REQUEST_TYPES)[number];

/** From `event` on, while the state is `state`, calls fail. */
export interface InjectRule {
  readonly event: DebugEvent;
  /** 0 for any. */
  readonly state: number;
  /** Undefined for all but "block-status". */
  readonly type: RequestType | undefined;
  /** As the operating system numbers its errors. 0 lets the call succeed. */
  readonly errno: number;
  /** A byte that the call must touch; undefined for any call. */
  readonly offset: number | undefined;
  /** Only one call fails. */
  readonly once: boolean;
}

/** At `event`, while the state is `state`, the state becomes `next`. */
export interface StateRule {
  readonly event: DebugEvent;
  /** 0 for any. */
  readonly state: number;
  readonly next: number;
}

export interface DebugRules {
  readonly inject: readonly InjectRule[];
  readonly states: readonly StateRule[];
}

/** State in which every disk begins. */
const FIRST_STATE = 1;

/** Which calls fail, as events go by. */
export class RuleMachine {
  readonly #states: readonly StateRule[];
  #inject: readonly InjectRule[];
  /** The rules whose event has come: those of the last event that had any. */
  #active: readonly InjectRule[] = [];
  #state = FIRST_STATE;

  constructor({ inject, states }: DebugRules) {
    this.#inject = inject;
    this.#states = states;
    this.event("none");
  }

  event(event: DebugEvent): void {
    const state = this.#state;
    const fits = (rule: InjectRule | StateRule): boolean =>
      rule.event === event && (rule.state === 0 || rule.state === state);
    const chosen = this.#inject.filter(fits);
    // The rule that was written last is asked first.
    if (chosen.length > 0) this.#active = chosen.toReversed();
    for (const rule of this.#states) if (fits(rule)) this.#state = rule.next;
  }

  /** The number of the error that a call gets; undefined when it is to be made. */
  errnoFor(type: RequestType, at: number, length: number): number | undefined {
    const rule = this.#active.find((candidate) => concerns(candidate, type, at, length));
    if (rule === undefined || rule.errno === 0) return undefined;
    if (rule.once) {
      this.#active = this.#active.filter((other) => other !== rule);
      this.#inject = this.#inject.filter((other) => other !== rule);
    }
    return rule.errno;
  }
}

function concerns(rule: InjectRule, type: RequestType, at: number, length: number): boolean {
  if (rule.type === undefined ? type === "block-status" : rule.type !== type) return false;
  return rule.offset === undefined || (rule.offset >= at && rule.offset < at + length);
}

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(constants.errno)
    .toReversed()
    .map(([name, number]) => [number, name]),
);

/** Whether the operating system has an error of that number. */
export function isErrno(number: number): boolean {
  return number === 0 || NAMES.has(number);
}

/** The error that a call of `storage` fails with. */
export function injectedError(errno: number, verb: string, name: string, offset: number, length: number): ZcowError {
  const cause = Object.assign(new Error("injected"), { code: NAMES.get(errno) ?? "EIO" });
  return storageError(cause, { verb, name, offset, length });
}
