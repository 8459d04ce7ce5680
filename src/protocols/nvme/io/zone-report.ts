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
/** A few milliseconds' worth. */
const BATCHES_PER_TURN = 8;

export function zoneManagementReceive(queue: IoQueue, command: Command, namespace: Namespace): void {
  namespace.counters.zoneOperations += 1;
  const length = (command.dword12 + 1) * 4;
  const status = statusOfReport(command, namespace, length, queue.controller.context.limits.transferBytes);
  if (status !== STATUS.success) {
    queue.refuse(command, status);
    return;
  }
  const report = new Report(command, namespace, command.queue.reply(command, length));
  continueReport(queue, command, report);
}

/** A namespace may have a million zones: other hosts get their turn between parts of a long search. */
function continueReport(queue: IoQueue, command: Command, report: Report): void {
  if (queue.gone) return;
  try {
    for (let batches = 0; batches < BATCHES_PER_TURN; batches += 1) {
      if (report.fillMore()) continue;
      report.finish();
      command.queue.completeWithReply(command);
      return;
    }
  } catch (error) {
    queue.fail(command, error, "read");
    return;
  }
  queue.controller.context.clock.after(0, () => continueReport(queue, command, report));
}

function statusOfReport(command: Command, namespace: Namespace, length: number, limit: number): number {
  const filter = (command.dword13 >>> 8) & 0xff;
  if ((command.dword13 & 0xff) !== REPORT_ZONES || filter >= FILTERS.length) return STATUS.invalidField;
  if (length < HEADER_LENGTH || length > limit) return STATUS.invalidField;
  if (command.startingBlock >= namespace.size) return STATUS.lbaOutOfRange;
  return statusOfHostRoom(command, length);
}

class Report {
  readonly #namespace: Namespace;
  readonly #zones: NamespaceZones;
  readonly #view: DataView;
  readonly #wanted: ZoneState | undefined;
  readonly #partial: boolean;
  /** Descriptors that fit. */
  readonly #room: number;
  /** The next zone to look at. */
  #zone: number;
  #count = 0;

  constructor(command: Command, namespace: Namespace, into: Uint8Array) {
    this.#namespace = namespace;
    this.#zones = namespace.zones as NamespaceZones;
    this.#view = new DataView(into.buffer, into.byteOffset, into.byteLength);
    this.#wanted = FILTERS[(command.dword13 >>> 8) & 0xff];
    this.#partial = (command.dword13 & PARTIAL) !== 0;
    this.#room = Math.floor((into.length - HEADER_LENGTH) / DESCRIPTOR_LENGTH);
    this.#zone = Math.floor(command.startingBlock / this.#zones.zoneBlocks);
    into.fill(0);
  }

  /** Looks at some more zones; false when there is nothing more to look for. */
  fillMore(): boolean {
    const { device, zoneCount, zoneBlocks } = this.#zones;
    if (this.#zone >= zoneCount || (this.#partial && this.#count >= this.#room)) return false;
    if (this.#wanted === undefined && this.#count >= this.#room) {
      // Without a filter the rest is counted without being looked at.
      this.#count += zoneCount - this.#zone;
      return false;
    }
    const batch = Math.min(BATCH, zoneCount - this.#zone);
    for (const zone of device.report(this.#namespace.byteOf(this.#zone * zoneBlocks), batch)) this.#add(zone);
    this.#zone += batch;
    return true;
  }

  /** Writes the header. */
  finish(): void {
    const count = this.#partial ? Math.min(this.#count, this.#room) : this.#count;
    this.#view.setUint32(0, count, true);
  }

  #add(zone: ZoneDescriptor): void {
    if (this.#wanted !== undefined && zone.state !== this.#wanted) return;
    const at = HEADER_LENGTH + this.#count * DESCRIPTOR_LENGTH;
    if (this.#count < this.#room) putDescriptor(this.#view, at, zone, this.#namespace);
    this.#count += 1;
  }
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
