/** Zone Management Receive (ZNS, "Zone Management Receive command"): the zone report. */
import { ZONE_CONDITION, ZONE_TYPE, type ZoneDescriptor, type ZoneState } from "../../../zoned/zone-state.js";
import type { Command } from "../command.js";
import type { Namespace, NamespaceZones } from "../namespace.js";
import { statusOfHostRoom } from "../queue-role.js";
import { STATUS } from "../status.js";
import type { IoQueue } from "./io-queue.js";

/** ZRA: the one kind of report there is; extended reports need descriptor extensions, which are not supported. */
const REPORT_ZONES = 0;

/** ZRASF: which zones are reported. */
const FILTERS: readonly (ZoneState | undefined)[] = [
  undefined,
  "empty",
  "implicitly-open",
  "explicitly-open",
  "closed",
  "full",
  "read-only",
  "offline",
];

/** Bit 16: the count is of the zones in this report, not of all that match. */
const PARTIAL = 1 << 16;

const HEADER_LENGTH = 64;
const DESCRIPTOR_LENGTH = 64;
/** Zones asked of the device at a time: a report of a million zones is not built at once. */
const BATCH = 4096;

export function zoneManagementReceive(queue: IoQueue, command: Command, namespace: Namespace): void {
  namespace.counters.zoneOperations += 1;
  const length = (command.dword12 + 1) * 4;
  const status = statusOfReport(command, namespace, length, queue.controller.context.limits.transferBytes);
  if (status !== STATUS.success) {
    queue.refuse(command, status);
    return;
  }
  const reply = command.queue.reply(command, length);
  try {
    fillReport(command, namespace, reply);
  } catch (error) {
    queue.fail(command, error, "read");
    return;
  }
  command.queue.completeWithReply(command);
}

function statusOfReport(command: Command, namespace: Namespace, length: number, limit: number): number {
  const filter = (command.dword13 >>> 8) & 0xff;
  if ((command.dword13 & 0xff) !== REPORT_ZONES || filter >= FILTERS.length) return STATUS.invalidField;
  if (length < HEADER_LENGTH || length > limit) return STATUS.invalidField;
  if (command.startingBlock >= namespace.size) return STATUS.lbaOutOfRange;
  return statusOfHostRoom(command, length);
}

function fillReport(command: Command, namespace: Namespace, into: Uint8Array): void {
  const zones = namespace.zones as NamespaceZones;
  const wanted = FILTERS[(command.dword13 >>> 8) & 0xff];
  const room = Math.floor((into.length - HEADER_LENGTH) / DESCRIPTOR_LENGTH);
  const partial = (command.dword13 & PARTIAL) !== 0;
  const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
  into.fill(0);
  let count = 0;
  const first = Math.floor(command.startingBlock / zones.zoneBlocks);
  for (let zone = first; zone < zones.zoneCount; zone += BATCH) {
    const batch = zones.device.report(byteOfZone(namespace, zones, zone), Math.min(BATCH, zones.zoneCount - zone));
    for (const descriptor of batch) {
      if (wanted !== undefined && descriptor.state !== wanted) continue;
      if (count < room) putDescriptor(view, HEADER_LENGTH + count * DESCRIPTOR_LENGTH, descriptor, namespace);
      count += 1;
    }
    if (partial && count >= room) break;
    // Without a filter the rest is counted without being looked at.
    if (wanted === undefined && count >= room) {
      count = zones.zoneCount - first;
      break;
    }
  }
  view.setBigUint64(0, BigInt(partial ? Math.min(count, room) : count), true);
}

function byteOfZone(namespace: Namespace, zones: NamespaceZones, zone: number): number {
  return namespace.byteOf(zone * zones.zoneBlocks);
}

/** Blocks count from the start of the namespace. */
function putDescriptor(view: DataView, at: number, zone: ZoneDescriptor, namespace: Namespace): void {
  const block = (offset: number): bigint => BigInt((offset - namespace.deviceOffset) / namespace.blockSize);
  view.setUint8(at, ZONE_TYPE["sequential-write-required"]);
  view.setUint8(at + 1, ZONE_CONDITION[zone.state] << 4);
  view.setBigUint64(at + 8, BigInt(zone.capacity / namespace.blockSize), true);
  view.setBigUint64(at + 16, block(zone.start), true);
  view.setBigUint64(at + 24, block(zone.writePointer), true);
}
