/** Zone Management Send (ZNS, "Zone Management Send command"): changes of zone states. */
import type { ZoneOperation } from "../../../zoned/zone-operations.js";
import type { ZoneState } from "../../../zoned/zone-state.js";
import type { Command } from "../command.js";
import type { Namespace, NamespaceZones } from "../namespace.js";
import { refusal } from "../queue-role.js";
import { STATUS } from "../status.js";
import type { IoQueue } from "./io-queue.js";
import { endWith } from "./read-write.js";

/** ZSA. Descriptor extensions (10h) and random write areas (11h) are not supported: there is nowhere to keep them. */
const ACTION = { close: 1, finish: 2, open: 3, reset: 4, offline: 5 } as const;

const OPERATION: Readonly<Record<number, ZoneOperation>> = {
  [ACTION.close]: "close",
  [ACTION.finish]: "finish",
  [ACTION.open]: "open",
  [ACTION.reset]: "reset",
};

/** States from which an action may be asked for a single zone; others are an invalid transition (ZNS, "Zone State Machine"). */
const ALLOWED_FROM: Readonly<Record<number, ReadonlySet<ZoneState>>> = {
  [ACTION.close]: new Set<ZoneState>(["implicitly-open", "explicitly-open", "closed"]),
  [ACTION.finish]: new Set<ZoneState>(["empty", "implicitly-open", "explicitly-open", "closed", "full"]),
  [ACTION.open]: new Set<ZoneState>(["empty", "implicitly-open", "explicitly-open", "closed"]),
  [ACTION.reset]: new Set<ZoneState>(["empty", "implicitly-open", "explicitly-open", "closed", "full"]),
  [ACTION.offline]: new Set<ZoneState>(["read-only", "offline"]),
};

const SELECT_ALL = 1 << 8;

/** True when the command is about all zones, not the one it names. */
export function isSelectAll(command: Command): boolean {
  return (command.dword13 & SELECT_ALL) !== 0;
}

/** 0, or the refusal of a command that can be told wrong without a look at the zone. */
export function checkZoneManagement(command: Command, namespace: Namespace, zones: NamespaceZones): number {
  if (ALLOWED_FROM[command.dword13 & 0xff] === undefined) return refusal(STATUS.invalidField);
  if (isSelectAll(command)) return 0;
  if (command.startingBlock >= namespace.size) return refusal(STATUS.lbaOutOfRange);
  return command.startingBlock % zones.zoneBlocks === 0 ? 0 : refusal(STATUS.invalidField);
}

export function zoneManagementSend(queue: IoQueue, command: Command, namespace: Namespace): void {
  const zones = namespace.zones as NamespaceZones;
  namespace.counters.zoneOperations += 1;
  const action = command.dword13 & 0xff;
  try {
    if (isSelectAll(command)) {
      endWith(queue, command, changeAll(zones, namespace, action));
      return;
    }
    const offset = namespace.byteOf(command.startingBlock);
    const state = zones.device.report(offset, 1)[0]?.state ?? "offline";
    if (ALLOWED_FROM[action]?.has(state) === true) endWith(queue, command, changeOne(zones, namespace, action, offset));
    else queue.refuse(command, STATUS.invalidZoneStateTransition);
  } catch (error) {
    queue.fail(command, error, "write");
  }
}

function changeOne(zones: NamespaceZones, namespace: Namespace, action: number, offset: number): Promise<void> {
  const { device } = zones;
  const length = zones.zoneBlocks * namespace.blockSize;
  switch (action) {
    case ACTION.close:
      return device.closeZones(offset, length);
    case ACTION.finish:
      return device.finishZones(offset, length);
    case ACTION.open:
      return device.openZones(offset, length);
    case ACTION.reset:
      return device.resetZones(offset, length);
    default:
      return device.setZoneState(offset, "offline");
  }
}

/** Acts on the zones in a state that the action is meant for, and passes over the others. */
function changeAll(zones: NamespaceZones, namespace: Namespace, action: number): Promise<void> {
  const operation = OPERATION[action];
  return operation === undefined ? takeAllOffline(zones, namespace) : zones.device.manageAllZones(operation);
}

async function takeAllOffline(zones: NamespaceZones, namespace: Namespace): Promise<void> {
  const { device } = zones;
  for (const zone of device.report(namespace.deviceOffset, zones.zoneCount)) {
    if (zone.state === "read-only") await device.setZoneState(zone.start, "offline");
  }
}
