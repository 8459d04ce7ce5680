import { ZcowError } from "../../base/errors.js";
import { parseSize } from "../../base/size-text.js";
import type { NodeOptions } from "../../block/node-options.js";
import type { BreakpointWatcher } from "../../storage/debug/breakpoints.js";
import { injectRule, type RuleSettings, stateRule } from "../../storage/debug/config.js";
import { readDebugConfig } from "../../storage/debug/config-file.js";
import { type DebugLimits, debugStorage } from "../../storage/debug/debug-storage.js";
import type { DebugRules } from "../../storage/debug/rules.js";
import type { Storage } from "../../storage/storage.js";

const MOST = 2 ** 31 - 1;

/** Takes the options of a node that injects faults; the result makes it over a storage. Fails with `INVALID_ARGUMENT`, `NOT_FOUND`. */
export function debugNode(options: NodeOptions, onBreakpoint?: BreakpointWatcher): (inner: Storage) => Storage {
  const config = options.take("config");
  const rules = joined([
    config === undefined || config === "" ? { inject: [], states: [] } : readDebugConfig(config),
    {
      inject: options.takeList("inject-error").map(settingsOf).map(injectRule),
      states: options.takeList("set-state").map(settingsOf).map(stateRule),
    },
  ]);
  const limits = takeLimits(options);
  return (inner) => debugStorage(inner, { rules, limits, ...(onBreakpoint === undefined ? {} : { onBreakpoint }) });
}

function settingsOf(options: NodeOptions): RuleSettings {
  return options.left;
}

function joined(parts: readonly DebugRules[]): DebugRules {
  return { inject: parts.flatMap(({ inject }) => inject), states: parts.flatMap(({ states }) => states) };
}

function takeLimits(options: NodeOptions): DebugLimits {
  const align = takeLimit(options, "align", 1);
  if (align !== undefined && align !== 0 && !Number.isInteger(Math.log2(align))) throw badLimit("align", align);
  const unit = align === undefined || align === 0 ? 1 : align;
  const maxTransfer = takeLimit(options, "max-transfer", unit);
  // What requests had better be, is of no consequence here.
  takeLimit(options, "opt-write-zero", unit);
  const maxWriteZero = takeLimit(options, "max-write-zero", unit);
  takeLimit(options, "opt-discard", unit);
  const maxDiscard = takeLimit(options, "max-discard", unit);
  return { align, maxTransfer, maxWriteZero, maxDiscard };
}

function takeLimit(options: NodeOptions, name: string, unit: number): number | undefined {
  const value = options.takeNumber(name, parseSize);
  if (value === undefined || (value <= MOST && value % unit === 0)) return value;
  throw badLimit(name, value);
}

function badLimit(name: string, value: number): ZcowError {
  const text = `Cannot meet constraints with ${name} ${value}`;
  return new ZcowError("INVALID_ARGUMENT", `fault injection: ${text}`, {
    data: { option: name, value, limit: MOST },
    stockText: text,
  });
}
