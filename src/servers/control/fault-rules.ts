import type { FaultInjector, FaultSubject, InjectedFault } from "../../protocols/nvme/namespace-faults.js";

/** Commands that a rule can be about. */
export type FaultOperation = "read" | "write" | "append" | "flush" | "zone-management" | "any";

const OPCODES: Readonly<Record<Exclude<FaultOperation, "any">, readonly number[]>> = {
  flush: [0x00],
  // Write, Write Zeroes, Copy.
  write: [0x01, 0x08, 0x19],
  // Read, Compare, Verify.
  read: [0x02, 0x05, 0x0c],
  // Zone Management Send and Receive.
  "zone-management": [0x79, 0x7a],
  append: [0x7d],
};

export const FAULT_OPERATIONS: readonly FaultOperation[] = [
  "read",
  "write",
  "append",
  "flush",
  "zone-management",
  "any",
];

/** Statuses by name; SC in bits 7:0, SCT in bits 10:8 (NVMe base specification, "Status Field Definition"). */
export const FAULT_STATUSES: Readonly<Record<string, number>> = {
  "internal-error": 0x006,
  "namespace-not-ready": 0x082,
  "write-fault": 0x280,
  "unrecovered-read-error": 0x281,
  "guard-check-error": 0x282,
  "access-denied": 0x286,
  "internal-path-error": 0x300,
  "zone-is-read-only": 0x1ba,
  "zone-is-offline": 0x1bb,
};

/** Bits that a status may have: SC and SCT. */
export const STATUS_MASK = 0x7ff;

/** Which commands of a namespace fail or wait, and how often. */
export interface FaultRule {
  readonly operation: FaultOperation;
  /** First block of the range; commands that touch it are meant. Default: every block. */
  readonly lba?: number;
  /** Blocks of the range. Default 1. */
  readonly blocks?: number;
  /** How many commands it applies to before it is gone. Default: all. */
  readonly count?: number;
  /** Milliseconds to wait. */
  readonly delay?: number;
  /** Status to end with. Left out: the command is carried out. */
  readonly status?: number;
}

/** Rules that one namespace holds at most: each command is compared with all. */
export const FAULT_RULES = 64;
/** Longest delay, milliseconds: beyond it hosts have given the command up. */
export const LONGEST_DELAY = 600_000;

interface ActiveRule {
  readonly rule: FaultRule;
  readonly fault: InjectedFault;
  left: number;
}

/** The rules of one namespace. The first that fits a command decides. */
export class FaultRules {
  #active: ActiveRule[] = [];

  get rules(): readonly (FaultRule & { readonly left?: number })[] {
    return this.#active.map(({ rule, left }) => (Number.isFinite(left) ? { ...rule, left } : rule));
  }

  /** False when there are too many already. */
  add(rule: FaultRule): boolean {
    if (this.#active.length >= FAULT_RULES) return false;
    const fault = {
      ...(rule.delay === undefined ? {} : { delay: rule.delay }),
      ...(rule.status === undefined ? {} : { status: rule.status }),
    };
    this.#active.push({ rule, fault, left: rule.count ?? Number.POSITIVE_INFINITY });
    return true;
  }

  clear(): void {
    this.#active = [];
  }

  /** To be set as the injector of the namespace while there are rules. */
  readonly inject: FaultInjector = (subject) => {
    const active = this.#active.find(({ rule }) => fits(rule, subject));
    if (active === undefined) return undefined;
    active.left--;
    if (active.left <= 0) this.#active = this.#active.filter((other) => other !== active);
    return active.fault;
  };
}

function fits(rule: FaultRule, { opcode, lba, blocks }: FaultSubject): boolean {
  if (rule.operation !== "any" && !OPCODES[rule.operation].includes(opcode)) return false;
  if (rule.lba === undefined) return true;
  return lba < rule.lba + (rule.blocks ?? 1) && rule.lba < lba + Math.max(1, blocks);
}
