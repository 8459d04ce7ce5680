/** The Connect command: which host wants which queue of which subsystem (NVMe base, "Connect Command"). */
import type { Command } from "../command.js";
import { NQN_FIELD_LENGTH, parseNqn } from "../nqn.js";
import { STATUS } from "../status.js";

export const CONNECT_DATA_LENGTH = 1024;

/** Byte offsets of fields, as Connect Invalid Parameters reports them. */
const IN_COMMAND = { queueId: 42, queueSize: 44 } as const;
const IN_DATA = { hostId: 0, controllerId: 16, subsystemNqn: 256, hostNqn: 512 } as const;
/** IATTR: the offset is one in the data. */
const OF_DATA = 1 << 16;

/** CATTR bit 2. */
const DISABLE_FLOW_CONTROL = 1 << 2;

/** CNTLID by which an admin queue asks for any controller. */
export const ANY_CONTROLLER = 0xffff;

export interface ConnectRequest {
  readonly queueId: number;
  readonly entries: number;
  readonly flowControl: boolean;
  /** Milliseconds. */
  readonly keepAliveTimeout: number;
  /** 16 bytes as hexadecimal digits. */
  readonly hostId: string;
  readonly controllerId: number;
  readonly subsystemNqn: string;
  readonly hostNqn: string;
}

/** Why a Connect command is refused. */
export class ConnectRefusal {
  readonly status: number;
  /** Dword 0 of the completion. */
  readonly result: number;
  readonly reason: string;
  readonly names: { readonly hostNqn: string; readonly subsystemNqn: string };
  /** The host may come again. Linux removes the disk, with errors for whoever uses it, when it is told not to. */
  mayRetry = false;

  constructor(status: number, result: number, reason: string, names = { hostNqn: "", subsystemNqn: "" }) {
    this.status = status;
    this.result = result;
    this.reason = reason;
    this.names = names;
  }
}

/** The request that a Connect command makes, or its refusal when a field makes no sense by itself. */
export function parseConnect(command: Command, data: Uint8Array): ConnectRequest | ConnectRefusal {
  const format = command.dword10 & 0xffff;
  if (format !== 0) return new ConnectRefusal(STATUS.connectIncompatibleFormat, 0, `record format ${format}`);
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const subsystemNqn = parseNqn(data.subarray(IN_DATA.subsystemNqn, IN_DATA.subsystemNqn + NQN_FIELD_LENGTH));
  if (subsystemNqn === undefined) return invalidData(IN_DATA.subsystemNqn, "the subsystem NQN is not valid");
  const hostNqn = parseNqn(data.subarray(IN_DATA.hostNqn, IN_DATA.hostNqn + NQN_FIELD_LENGTH));
  if (hostNqn === undefined) return invalidData(IN_DATA.hostNqn, "the host NQN is not valid");
  const entries = (command.dword11 & 0xffff) + 1;
  if (entries === 1) return invalidQueueSize(entries);
  return {
    queueId: command.dword10 >>> 16,
    entries,
    flowControl: ((command.dword11 >>> 16) & DISABLE_FLOW_CONTROL) === 0,
    keepAliveTimeout: command.dword12,
    hostId: Array.from(data.subarray(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join(""),
    controllerId: view.getUint16(IN_DATA.controllerId, true),
    subsystemNqn,
    hostNqn,
  };
}

function invalidData(offset: number, reason: string, request?: ConnectRequest): ConnectRefusal {
  return new ConnectRefusal(STATUS.connectInvalidParameters, OF_DATA | offset, reason, request);
}

function invalidCommand(offset: number, reason: string): ConnectRefusal {
  return new ConnectRefusal(STATUS.connectInvalidParameters, offset, reason);
}

export const invalidQueueSize = (entries: number): ConnectRefusal =>
  invalidCommand(IN_COMMAND.queueSize, `a queue of ${entries} entries`);

export const invalidQueueId = (queueId: number): ConnectRefusal =>
  invalidCommand(IN_COMMAND.queueId, `queue number ${queueId}`);

export const unknownSubsystem = (request: ConnectRequest): ConnectRefusal =>
  invalidData(IN_DATA.subsystemNqn, "no such subsystem", request);

/** Controllers are not for the host to choose. */
export const chosenController = (request: ConnectRequest): ConnectRefusal =>
  invalidData(IN_DATA.controllerId, `controller ${request.controllerId} for an admin queue`, request);

/*
 * An I/O queue that does not find its controller as the host left it: the controller has ended since, or the server was
 * started anew between the host's admin queue and this one. With a new admin queue the host gets what it wants.
 */

export const unknownController = (request: ConnectRequest): ConnectRefusal =>
  onceMore(invalidData(IN_DATA.controllerId, `no controller ${request.controllerId}`, request));

export const differentHost = (request: ConnectRequest): ConnectRefusal =>
  onceMore(invalidData(IN_DATA.hostNqn, `controller ${request.controllerId} belongs to another host`, request));

export const hostRefused = (request: ConnectRequest, reason: string): ConnectRefusal =>
  new ConnectRefusal(STATUS.connectInvalidHost, OF_DATA | IN_DATA.hostNqn, reason, request);

export const controllerBusy = (request: ConnectRequest, reason: string): ConnectRefusal =>
  onceMore(new ConnectRefusal(STATUS.connectControllerBusy, 0, reason, request));

export const outOfSequence = (request: ConnectRequest, reason: string): ConnectRefusal =>
  onceMore(new ConnectRefusal(STATUS.commandSequenceError, 0, reason, request));

function onceMore(refusal: ConnectRefusal): ConnectRefusal {
  refusal.mayRetry = true;
  return refusal;
}
