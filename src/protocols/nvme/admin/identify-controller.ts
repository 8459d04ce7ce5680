/** Identify Controller (CNS 01h) of I/O and discovery controllers, and of the command sets (CNS 06h). */
import type { Controller } from "../controller.js";
import { ERROR_LOG_ENTRIES, EVENT_REQUESTS, KEEP_ALIVE_GRANULARITY, NAMESPACES, type TargetLimits } from "../limits.js";
import { putPadded, putText } from "../nqn.js";
import { VERSION } from "../properties.js";

export const IDENTIFY_LENGTH = 4096;

const FIELD = {
  serial: 4,
  model: 24,
  firmware: 64,
  multipath: 76,
  transferSize: 77,
  controllerId: 78,
  version: 80,
  events: 92,
  attributes: 96,
  controllerType: 111,
  abortLimit: 258,
  eventLimit: 259,
  firmwareUpdates: 260,
  logPages: 261,
  errorEntries: 262,
  keepAliveSupport: 320,
  submissionEntry: 512,
  completionEntry: 513,
  maximumCommands: 514,
  namespaces: 516,
  optionalCommands: 520,
  writeCache: 525,
  copyFormats: 534,
  sglSupport: 536,
  allowedNamespaces: 540,
  subsystemNqn: 768,
  commandCapsule: 1792,
  responseCapsule: 1796,
  descriptors: 1803,
  disconnect: 1804,
} as const;

const CONTROLLER_TYPE = { io: 1, discovery: 2 } as const;
/** CMIC: the subsystem may have more than one controller. */
const SEVERAL_CONTROLLERS = 1 << 1;
/** OAES: namespace attribute, zone descriptor and discovery log notices. */
const EVENTS_IO = (1 << 8) | (1 << 27);
const EVENTS_DISCOVERY = 1 << 31;
/** CTRATT: 128-bit host identifier; any command keeps alive. */
const ATTRIBUTES = (1 << 0) | (1 << 6);
/** LPA: effects log; offsets and lengths beyond 16 bits. */
const LOG_PAGES = (1 << 1) | (1 << 2);
/** FRMW: one slot, read-only. */
const FIRMWARE_SLOTS = (1 << 1) | 1;
/** ONCS: Compare, Dataset Management, Write Zeroes, Verify, Copy. */
const OPTIONAL_COMMANDS = (1 << 0) | (1 << 2) | (1 << 3) | (1 << 7) | (1 << 8);
/** VWC: present; Flush takes the NSID for all namespaces. */
const WRITE_CACHE = 1 | (3 << 1);
/** SGLS: supported, with offsets into the capsule, with transport data blocks. */
const SGL_SUPPORT = 1 | (1 << 20) | (1 << 21);
/** OFCS: Disconnect on I/O queues. */
const DISCONNECT = 1;
/** Powers of two of the sizes of queue entries: smallest and largest. */
const SUBMISSION_ENTRY = 0x66;
const COMPLETION_ENTRY = 0x44;

export function identifyController(controller: Controller): Uint8Array {
  const bytes = common(controller, CONTROLLER_TYPE.io, EVENTS_IO);
  const view = new DataView(bytes.buffer);
  const { limits } = controller.context;
  const { multipath, shared } = controller.subsystem.options;
  bytes[FIELD.multipath] = multipath === true || shared === true ? SEVERAL_CONTROLLERS : 0;
  bytes[FIELD.transferSize] = powerOf4KiB(limits.transferBytes);
  bytes[FIELD.abortLimit] = 3;
  bytes[FIELD.firmwareUpdates] = FIRMWARE_SLOTS;
  bytes[FIELD.submissionEntry] = SUBMISSION_ENTRY;
  bytes[FIELD.completionEntry] = COMPLETION_ENTRY;
  view.setUint32(FIELD.namespaces, NAMESPACES, true);
  view.setUint16(FIELD.optionalCommands, OPTIONAL_COMMANDS, true);
  bytes[FIELD.writeCache] = WRITE_CACHE;
  // Copy descriptors of format 0.
  view.setUint16(FIELD.copyFormats, 1, true);
  view.setUint32(FIELD.allowedNamespaces, NAMESPACES, true);
  view.setUint32(FIELD.commandCapsule, (64 + limits.inCapsuleBytes) / 16, true);
  view.setUint32(FIELD.responseCapsule, 1, true);
  bytes[FIELD.descriptors] = 1;
  view.setUint16(FIELD.disconnect, DISCONNECT, true);
  return bytes;
}

export function identifyDiscoveryController(controller: Controller): Uint8Array {
  const bytes = common(controller, CONTROLLER_TYPE.discovery, EVENTS_DISCOVERY);
  const view = new DataView(bytes.buffer);
  view.setUint32(FIELD.commandCapsule, 4, true);
  view.setUint32(FIELD.responseCapsule, 1, true);
  return bytes;
}

function common(controller: Controller, type: number, events: number): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_LENGTH);
  const view = new DataView(bytes.buffer);
  const { serial, model, firmware } = controller.subsystem.options;
  putPadded(bytes, FIELD.serial, 20, serial);
  putPadded(bytes, FIELD.model, 40, model ?? "zcow");
  putPadded(bytes, FIELD.firmware, 8, firmware ?? "1");
  view.setUint16(FIELD.controllerId, controller.id, true);
  view.setUint32(FIELD.version, VERSION, true);
  view.setUint32(FIELD.events, events, true);
  view.setUint32(FIELD.attributes, ATTRIBUTES, true);
  bytes[FIELD.controllerType] = type;
  bytes[FIELD.eventLimit] = EVENT_REQUESTS - 1;
  bytes[FIELD.logPages] = LOG_PAGES;
  bytes[FIELD.errorEntries] = ERROR_LOG_ENTRIES - 1;
  view.setUint16(FIELD.keepAliveSupport, KEEP_ALIVE_GRANULARITY / 100, true);
  view.setUint16(FIELD.maximumCommands, controller.context.limits.queueEntries, true);
  view.setUint32(FIELD.sglSupport, SGL_SUPPORT, true);
  putText(bytes, FIELD.subsystemNqn, 223, controller.subsystem.nqn);
  return bytes;
}

/** Limits of the NVM command set (CNS 06h, CSI 0): VSL, as large as a read. Write Zeroes has none. */
export function identifyNvmController(limits: TargetLimits): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_LENGTH);
  bytes[0] = powerOf4KiB(limits.transferBytes);
  return bytes;
}

/** Limits of the Zoned Namespace command set (CNS 06h, CSI 2): ZASL, which all zoned namespaces must be able to keep. */
export function identifyZnsController(controller: Controller): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_LENGTH);
  let largest = controller.context.limits.appendBytes;
  for (const { device } of controller.subsystem.namespaces.values()) {
    largest = Math.min(largest, device.limits.zoned?.maxAppendBytes ?? largest);
  }
  // Less than 4 KiB cannot be told: larger appends are then refused one by one.
  bytes[0] = Math.max(0, Math.floor(powerOf4KiB(largest)));
  return bytes;
}

/** n for 4 KiB times 2^n. */
function powerOf4KiB(bytes: number): number {
  return Math.log2(bytes / 4096);
}
