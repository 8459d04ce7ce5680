/** Get Features and Set Features (NVMe base, "Feature Identifiers"). */
import type { Command } from "../command.js";
import type { Controller } from "../controller.js";
import { ALL_NAMESPACES } from "../opcodes.js";
import { STATUS } from "../status.js";

const FEATURE = {
  arbitration: 0x01,
  powerManagement: 0x02,
  temperatureThreshold: 0x04,
  errorRecovery: 0x05,
  volatileWriteCache: 0x06,
  numberOfQueues: 0x07,
  writeAtomicity: 0x0a,
  asyncEventConfiguration: 0x0b,
  keepAliveTimer: 0x0f,
  ioCommandSetProfile: 0x19,
} as const;

/** Features that only keep a value for the host: there is nothing behind them that could change. */
const KEPT: ReadonlyMap<number, number> = new Map([
  [FEATURE.arbitration, 0],
  [FEATURE.powerManagement, 0],
  // 343 K: above what a simulated 300 K can reach.
  [FEATURE.temperatureThreshold, 343],
  [FEATURE.errorRecovery, 0],
  [FEATURE.writeAtomicity, 0],
]);

/** SEL: the current value, the default, the saved one, what can be done with it. */
const SELECT = { current: 0, default: 1, saved: 2, capabilities: 3 } as const;
/** Supported capabilities: changeable. */
const CHANGEABLE = 1 << 2;
const SAVE = 1 << 31;

/** What kind of controller it is: a discovery controller has few features. */
export type ControllerKind = "io" | "discovery";

export function getFeatures(command: Command, controller: Controller, kind: ControllerKind): void {
  const feature = command.dword10 & 0xff;
  const select = (command.dword10 >>> 8) & 7;
  if (!isFeature(feature, kind) || select > SELECT.capabilities) {
    command.queue.complete(command, STATUS.invalidField);
    return;
  }
  const fixed = feature === FEATURE.volatileWriteCache || feature === FEATURE.ioCommandSetProfile;
  if (select === SELECT.capabilities) command.queue.complete(command, STATUS.success, fixed ? 0 : CHANGEABLE);
  else command.queue.complete(command, STATUS.success, valueOf(feature, controller, select === SELECT.current));
}

export function setFeatures(command: Command, controller: Controller, kind: ControllerKind): void {
  const status = trySet(command, controller, kind);
  if (typeof status === "number") command.queue.complete(command, status);
  else command.queue.complete(command, STATUS.success, status.result);
}

function isFeature(feature: number, kind: ControllerKind): boolean {
  if (feature === FEATURE.asyncEventConfiguration || feature === FEATURE.keepAliveTimer) return true;
  if (kind === "discovery") return false;
  return (
    KEPT.has(feature) ||
    feature === FEATURE.volatileWriteCache ||
    feature === FEATURE.numberOfQueues ||
    feature === FEATURE.ioCommandSetProfile
  );
}

function valueOf(feature: number, controller: Controller, current: boolean): number {
  switch (feature) {
    case FEATURE.asyncEventConfiguration:
      return current ? controller.events.configuration : 0;
    case FEATURE.keepAliveTimer:
      return current ? controller.keepAlive.timeout : 0;
    case FEATURE.volatileWriteCache:
      return 1;
    case FEATURE.numberOfQueues:
      return queueCounts(controller);
    case FEATURE.ioCommandSetProfile:
      return 0;
    default:
      return (current ? controller.features.get(feature) : undefined) ?? KEPT.get(feature) ?? 0;
  }
}

/** NCQA and NSQA, both from 0. */
function queueCounts(controller: Controller): number {
  const last = controller.context.limits.ioQueues - 1;
  return (last << 16) | last;
}

function trySet(command: Command, controller: Controller, kind: ControllerKind): number | { readonly result: number } {
  const feature = command.dword10 & 0xff;
  const value = command.dword11;
  if (!isFeature(feature, kind)) return STATUS.invalidField;
  // Nothing here outlives the controller, and nothing belongs to one namespace.
  if ((command.dword10 & SAVE) !== 0) return STATUS.featureNotSaveable;
  if (command.nsid !== 0 && command.nsid !== ALL_NAMESPACES) return STATUS.featureNotNamespaceSpecific;
  switch (feature) {
    case FEATURE.asyncEventConfiguration:
      controller.events.configuration = value;
      return { result: 0 };
    case FEATURE.keepAliveTimer:
      controller.keepAlive.start(value);
      return { result: 0 };
    case FEATURE.numberOfQueues:
      // FFFFh is reserved in either half.
      if ((value & 0xffff) === 0xffff || value >>> 16 === 0xffff) return STATUS.invalidField;
      return { result: queueCounts(controller) };
    case FEATURE.volatileWriteCache:
      return value === 1 ? { result: 0 } : STATUS.featureNotChangeable;
    case FEATURE.ioCommandSetProfile:
      return value === 0 ? { result: 0 } : STATUS.featureNotChangeable;
    default:
      controller.features.set(feature, value);
      return { result: 0 };
  }
}
