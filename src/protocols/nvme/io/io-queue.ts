/** An I/O queue: checks commands when they arrive, keeps their order per zone, and carries them out. */
import type { Command } from "../command.js";
import type { Connection } from "../connection.js";
import type { Controller } from "../controller.js";
import { COPY_RANGES } from "../limits.js";
import type { Namespace } from "../namespace.js";
import { FABRICS, FABRICS_TYPE, IO } from "../opcodes.js";
import { type QueueRole, refusal } from "../queue-role.js";
import { STATUS } from "../status.js";
import { isTargetFault, type MediaAccess, statusFromError } from "../status-from-error.js";
import { ZoneOrder } from "../zone-order.js";
import { compare, verify } from "./compare.js";
import { COPY_RANGE_LENGTH, copy } from "./copy.js";
import { datasetLength, datasetManagement } from "./dataset-management.js";
import { flush, read, write, writeZeroes } from "./read-write.js";
import { zoneAppend } from "./zone-append.js";
import { zoneManagementReceive } from "./zone-report.js";
import { checkZoneManagement, isSelectAll, zoneManagementSend } from "./zone-send.js";

/** Zones of a namespace are at most 2^20 (the format's limit), so a zone's key is unique over namespaces. */
const ZONE_KEYS = 2 ** 20;

/** FUSE: fused operations are not supported. */
const FUSED = 3;

export class IoQueue implements QueueRole {
  readonly controller: Controller;
  readonly queueId: number;
  readonly #connection: Connection;
  readonly #order: ZoneOrder;
  /** Cancels the delays that faults have put on commands. */
  readonly #delays = new Map<Command, () => void>();
  /** The connection has ended: nothing more may be started. */
  gone = false;

  constructor(controller: Controller, queueId: number, connection: Connection) {
    this.controller = controller;
    this.queueId = queueId;
    this.#connection = connection;
    this.#order = new ZoneOrder((command) => this.#start(command));
  }

  // --- arrival -------------------------------------------------------------------------------------

  prepare(command: Command): number {
    this.controller.keepAlive.touched = true;
    if (command.opcode === FABRICS) return this.#prepareFabrics(command);
    if (!this.controller.ready) return refusal(STATUS.commandSequenceError);
    const wanted = this.#check(command);
    if (wanted < 0) {
      this.#note(command, -wanted);
      return wanted;
    }
    this.#takeTurn(command);
    return wanted;
  }

  execute(command: Command): void {
    if (command.opcode === FABRICS) {
      this.#disconnect(command);
      return;
    }
    const delay = command.fault?.delay;
    if (delay !== undefined && delay > 0) this.#delay(command, delay);
    else this.#arrived(command);
  }

  abandon(command: Command): void {
    this.#order.leave(command);
  }

  /** What waits for the end of a delay or for its turn. */
  abort(command: Command): boolean {
    const cancel = this.#delays.get(command);
    if (cancel === undefined && !this.#order.isWaiting(command)) return false;
    cancel?.();
    this.#delays.delete(command);
    this.#order.leave(command);
    this.refuse(command, STATUS.abortRequested);
    return true;
  }

  disconnected(): void {
    this.gone = true;
    for (const cancel of this.#delays.values()) cancel();
    this.#delays.clear();
    if (this.controller.queues.get(this.queueId) === this.#connection) this.controller.queues.delete(this.queueId);
  }

  // --- completion, for the files of the commands ------------------------------------------------------

  succeed(command: Command, low = 0, high = 0): void {
    command.queue.complete(command, STATUS.success, low, high);
  }

  /** Ends a command that the device failed. */
  fail(command: Command, error: unknown, access: MediaAccess, result = 0): void {
    const status = statusFromError(error, access);
    if (isTargetFault(status)) {
      this.controller.context.report({ kind: "command-failed", nsid: command.nsid, opcode: command.opcode, error });
    }
    this.refuse(command, status, result);
  }

  refuse(command: Command, status: number, result = 0): void {
    this.#note(command, status);
    command.queue.complete(command, status, result);
  }

  // --- checks ------------------------------------------------------------------------------------------

  #prepareFabrics(command: Command): number {
    const type = command.fabricsType;
    if (type === FABRICS_TYPE.disconnect) return 0;
    return refusal(type === FABRICS_TYPE.connect ? STATUS.commandSequenceError : STATUS.invalidOpcode);
  }

  /** Bytes of data wanted, or a refusal. */
  #check(command: Command): number {
    if ((command.flags & FUSED) !== 0) return refusal(STATUS.invalidField);
    if (command.opcode === IO.flush && command.addressesAllNamespaces) return 0;
    const namespace = this.controller.subsystem.namespaces.get(command.nsid);
    if (namespace === undefined) return refusal(STATUS.invalidNamespaceOrFormat);
    command.namespace = namespace;
    const wanted = this.#checkCommand(command, namespace);
    if (wanted < 0 || namespace.faults === undefined) return wanted;
    return this.#injectFault(command, namespace) ?? wanted;
  }

  #checkCommand(command: Command, namespace: Namespace): number {
    switch (command.opcode) {
      case IO.read:
        return this.#checkTransfer(command, namespace, 0);
      case IO.write:
        if (namespace.readOnly) return refusal(STATUS.namespaceWriteProtected);
        return this.#checkTransfer(command, namespace, 1);
      case IO.zoneAppend:
        return this.#checkAppend(command, namespace);
      case IO.compare:
        return this.#checkTransfer(command, namespace, 1);
      case IO.verify:
        return this.#checkTransfer(command, namespace, 0);
      case IO.writeZeroes:
        if (namespace.readOnly) return refusal(STATUS.namespaceWriteProtected);
        return isInside(command, namespace) ? 0 : refusal(STATUS.lbaOutOfRange);
      case IO.flush:
        return 0;
      case IO.datasetManagement:
        return datasetLength(command);
      case IO.copy:
        return checkCopy(command, namespace);
      case IO.zoneManagementSend:
        if (namespace.zones === undefined) return refusal(STATUS.invalidOpcode);
        if (namespace.readOnly) return refusal(STATUS.namespaceWriteProtected);
        return checkZoneManagement(command, namespace, namespace.zones);
      case IO.zoneManagementReceive:
        return namespace.zones === undefined ? refusal(STATUS.invalidOpcode) : 0;
      default:
        return refusal(STATUS.invalidOpcode);
    }
  }

  /** `fromHost`: 1 when the data comes from the host. */
  #checkTransfer(command: Command, namespace: Namespace, fromHost: 0 | 1): number {
    const length = command.blockCount * namespace.blockSize;
    if (length > this.controller.context.limits.transferBytes) return refusal(STATUS.invalidField);
    return isInside(command, namespace) ? length * fromHost : refusal(STATUS.lbaOutOfRange);
  }

  #checkAppend(command: Command, namespace: Namespace): number {
    const { zones } = namespace;
    if (zones === undefined) return refusal(STATUS.invalidOpcode);
    if (namespace.readOnly) return refusal(STATUS.namespaceWriteProtected);
    const length = command.blockCount * namespace.blockSize;
    if (length > this.controller.context.limits.appendBytes) return refusal(STATUS.invalidField);
    if (command.startingBlock >= namespace.size) return refusal(STATUS.lbaOutOfRange);
    return command.startingBlock % zones.zoneBlocks === 0 ? length : refusal(STATUS.invalidField);
  }

  #injectFault(command: Command, namespace: Namespace): number | undefined {
    const lba = command.startingBlock;
    const fault = namespace.faults?.({ opcode: command.opcode, lba, blocks: command.blockCount });
    if (fault?.status !== undefined && fault.delay === undefined) return refusal(fault.status);
    command.fault = fault;
    return undefined;
  }

  // --- order -------------------------------------------------------------------------------------------

  /** Commands that change one zone take their place in its line, unless they can start at once. */
  #takeTurn(command: Command): void {
    const zones = command.namespace?.zones;
    if (zones === undefined || !changesOneZone(command)) return;
    const key = command.nsid * ZONE_KEYS + Math.floor(command.startingBlock / zones.zoneBlocks);
    const waits = command.sglType === TRANSPORT_SGL && takesData(command);
    const startsAtOnce = !waits && command.fault === undefined && command.opcode !== IO.copy;
    if (!startsAtOnce || !this.#order.isClear(key)) this.#order.join(key, command);
  }

  /** The data of the command is there, and injected delays are over. */
  #arrived(command: Command): void {
    if (this.#order.holds(command)) this.#order.ready(command);
    else this.#start(command);
  }

  #delay(command: Command, milliseconds: number): void {
    const cancel = this.controller.context.clock.after(milliseconds, () => {
      this.#delays.delete(command);
      this.#arrived(command);
    });
    this.#delays.set(command, cancel);
  }

  // --- execution ---------------------------------------------------------------------------------------

  /** True when the zone's line must wait until the command leaves it. */
  #start(command: Command): boolean {
    // A command that starts behind a host that has left could spoil what the host finds when it comes back.
    if (this.gone) return false;
    const status = command.fault?.status;
    if (status !== undefined) {
      this.refuse(command, status);
      return false;
    }
    const { namespace } = command;
    if (namespace === undefined) this.#flushAll(command);
    else this.#startOn(command, namespace);
    return command.opcode === IO.copy && this.#order.holds(command);
  }

  #startOn(command: Command, namespace: Namespace): void {
    switch (command.opcode) {
      case IO.read:
        return read(this, command, namespace);
      case IO.write:
        return write(this, command, namespace);
      case IO.zoneAppend:
        return zoneAppend(this, command, namespace);
      case IO.flush:
        return flush(this, command, [namespace]);
      case IO.writeZeroes:
        return writeZeroes(this, command, namespace);
      case IO.compare:
        return compare(this, command, namespace);
      case IO.verify:
        return verify(this, command, namespace);
      case IO.datasetManagement:
        return datasetManagement(this, command, namespace);
      case IO.copy:
        // Its write comes after its reads, and must not be overtaken meanwhile.
        return copy(this, command, namespace, () => this.#order.leave(command));
      case IO.zoneManagementSend:
        return zoneManagementSend(this, command, namespace);
      default:
        return zoneManagementReceive(this, command, namespace);
    }
  }

  #flushAll(command: Command): void {
    flush(this, command, [...this.controller.subsystem.namespaces.values()]);
  }

  #disconnect(command: Command): void {
    command.queue.complete(command, STATUS.success);
    this.#connection.end("the host disconnected the queue");
  }

  #note(command: Command, status: number): void {
    if (command.namespace !== undefined) command.namespace.counters.errors += 1;
    this.controller.errors.add(command, this.queueId, status);
  }
}

const TRANSPORT_SGL = 0x5a;

function isInside(command: Command, namespace: Namespace): boolean {
  return command.startingBlock + command.blockCount <= namespace.size;
}

function changesOneZone(command: Command): boolean {
  switch (command.opcode) {
    case IO.write:
    case IO.zoneAppend:
    case IO.writeZeroes:
    case IO.copy:
      return true;
    case IO.zoneManagementSend:
      return !isSelectAll(command);
    default:
      return false;
  }
}

function takesData(command: Command): boolean {
  return command.opcode === IO.write || command.opcode === IO.zoneAppend;
}

/** Descriptors of format 0, and a destination inside the namespace; their contents are looked at when they have come. */
function checkCopy(command: Command, namespace: Namespace): number {
  if (namespace.readOnly) return refusal(STATUS.namespaceWriteProtected);
  const ranges = (command.dword12 & 0xff) + 1;
  const format = (command.dword12 >>> 8) & 0xf;
  if (format !== 0) return refusal(STATUS.invalidField);
  if (ranges > COPY_RANGES) return refusal(STATUS.commandSizeLimitExceeded);
  if (command.startingBlock >= namespace.size) return refusal(STATUS.lbaOutOfRange);
  return ranges * COPY_RANGE_LENGTH;
}
