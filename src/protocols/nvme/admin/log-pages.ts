/** The log pages of an I/O controller. */
import type { Command } from "../command.js";
import type { Controller } from "../controller.js";
import { CHANGED_ZONES } from "../limits.js";
import { ADMIN, COMMAND_SET, IO } from "../opcodes.js";
import { STATUS } from "../status.js";
import { completeLogPage, LOG, retainsEvent } from "./log-read.js";

export function getLogPage(command: Command, controller: Controller): void {
  const page = pageFor(command, controller);
  if (typeof page === "number") command.queue.complete(command, page);
  else completeLogPage(command, page, controller);
}

/** The whole page, or the status of the refusal. */
function pageFor(command: Command, controller: Controller): Uint8Array | number {
  switch (command.dword10 & 0xff) {
    case LOG.supported:
      return supportedPages();
    case LOG.error:
      return controller.errors.encode();
    case LOG.health:
      return healthPage(controller);
    case LOG.firmware:
      return firmwarePage(controller);
    case LOG.changedNamespaces:
      return changedNamespaces(command, controller);
    case LOG.effects:
      return effectsPage(command.dword14 >>> 24);
    case LOG.changedZones:
      return changedZones(command, controller);
    default:
      return STATUS.invalidLogPage;
  }
}

/** 00h: a dword per page; bit 0 says that it is supported. */
function supportedPages(): Uint8Array {
  const bytes = new Uint8Array(1024);
  for (const page of Object.values(LOG)) if (page !== LOG.discovery) bytes[page * 4] = 1;
  return bytes;
}

/** 02h. Counts run since the namespaces were made; a device of software has nothing to say about wear. */
function healthPage(controller: Controller): Uint8Array {
  const bytes = new Uint8Array(512);
  const view = new DataView(bytes.buffer);
  let [reads, writes, bytesRead, bytesWritten] = [0, 0, 0, 0];
  for (const { counters } of controller.subsystem.namespaces.values()) {
    reads += counters.reads;
    writes += counters.writes + counters.appends;
    bytesRead += counters.bytesRead;
    bytesWritten += counters.bytesWritten;
  }
  // 300 K, and all spare blocks.
  view.setUint16(1, 300, true);
  bytes[3] = 100;
  // Data units are thousands of 512 bytes.
  const units = (count: number): bigint => BigInt(Math.ceil(count / 512_000));
  view.setBigUint64(32, units(bytesRead), true);
  view.setBigUint64(48, units(bytesWritten), true);
  view.setBigUint64(64, BigInt(reads), true);
  view.setBigUint64(80, BigInt(writes), true);
  view.setBigUint64(176, BigInt(controller.errors.count), true);
  return bytes;
}

/** 03h: one slot, active. */
function firmwarePage(controller: Controller): Uint8Array {
  const bytes = new Uint8Array(512);
  bytes[0] = 1;
  const revision = controller.subsystem.options.firmware ?? "1";
  bytes.fill(0x20, 8, 16);
  bytes.set(new TextEncoder().encode(revision).subarray(0, 8), 8);
  return bytes;
}

/** 04h: NSIDs since the page was read last. One list of 1024 holds all there can be. */
function changedNamespaces(command: Command, controller: Controller): Uint8Array {
  const bytes = new Uint8Array(4096);
  const view = new DataView(bytes.buffer);
  const changed = [...controller.changedNamespaces].sort((a, b) => a - b);
  changed.slice(0, 1024).forEach((nsid, index) => {
    view.setUint32(index * 4, nsid, true);
  });
  if (!retainsEvent(command)) controller.changedNamespaces.clear();
  return bytes;
}

/** CSUPP: the command is supported. LBCC: it changes data. */
const SUPPORTED = 1;
const CHANGES_DATA = 1 << 1;

const ADMIN_EFFECTS: readonly number[] = Object.values(ADMIN);
const NVM_EFFECTS: readonly (readonly [opcode: number, effects: number])[] = [
  [IO.flush, SUPPORTED],
  [IO.write, SUPPORTED | CHANGES_DATA],
  [IO.read, SUPPORTED],
  [IO.compare, SUPPORTED],
  [IO.writeZeroes, SUPPORTED | CHANGES_DATA],
  [IO.datasetManagement, SUPPORTED | CHANGES_DATA],
  [IO.verify, SUPPORTED],
  [IO.copy, SUPPORTED | CHANGES_DATA],
];
/** Linux makes a zoned namespace read-only when Zone Append is missing here. */
const ZNS_EFFECTS: readonly (readonly [opcode: number, effects: number])[] = [
  ...NVM_EFFECTS,
  [IO.zoneManagementSend, SUPPORTED | CHANGES_DATA],
  [IO.zoneManagementReceive, SUPPORTED],
  [IO.zoneAppend, SUPPORTED | CHANGES_DATA],
];

/** 05h: 256 dwords for admin commands, 256 for I/O commands of one command set. */
function effectsPage(commandSet: number): Uint8Array | number {
  if (commandSet !== COMMAND_SET.nvm && commandSet !== COMMAND_SET.zns) return STATUS.invalidField;
  const bytes = new Uint8Array(4096);
  const view = new DataView(bytes.buffer);
  for (const opcode of ADMIN_EFFECTS) view.setUint32(opcode * 4, SUPPORTED, true);
  const effects = commandSet === COMMAND_SET.zns ? ZNS_EFFECTS : NVM_EFFECTS;
  for (const [opcode, value] of effects) view.setUint32(1024 + opcode * 4, value, true);
  return bytes;
}

/** BFh: first blocks of the zones of a namespace that changed since the page was read last. */
function changedZones(command: Command, controller: Controller): Uint8Array | number {
  if (controller.subsystem.namespaces.get(command.nsid)?.zones === undefined) return STATUS.invalidNamespaceOrFormat;
  const bytes = new Uint8Array(4096);
  const view = new DataView(bytes.buffer);
  const changed = [...(controller.changedZones.get(command.nsid) ?? [])].sort((a, b) => a - b);
  if (changed.length > CHANGED_ZONES) {
    view.setUint16(0, 0xffff, true);
  } else {
    view.setUint16(0, changed.length, true);
    changed.forEach((block, index) => {
      view.setBigUint64(8 + index * 8, BigInt(block), true);
    });
  }
  if (!retainsEvent(command)) controller.changedZones.delete(command.nsid);
  return bytes;
}
