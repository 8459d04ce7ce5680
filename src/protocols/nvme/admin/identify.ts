/** The Identify command (NVMe base, "Identify Command"). */
import type { Command } from "../command.js";
import type { Controller } from "../controller.js";
import type { Namespace } from "../namespace.js";
import { ALL_NAMESPACES, COMMAND_SET } from "../opcodes.js";
import { STATUS } from "../status.js";
import { completeAdminRead } from "./admin-read.js";
import {
  IDENTIFY_LENGTH,
  identifyController,
  identifyNvmController,
  identifyZnsController,
} from "./identify-controller.js";
import {
  identifyDescriptors,
  identifyIndependent,
  identifyNamespace,
  identifyZnsNamespace,
} from "./identify-namespace.js";

/** Controller or Namespace Structure. */
const CNS = {
  namespace: 0x00,
  controller: 0x01,
  activeNamespaces: 0x02,
  descriptors: 0x03,
  commandSetNamespace: 0x05,
  commandSetController: 0x06,
  commandSetActiveNamespaces: 0x07,
  independentNamespace: 0x08,
  allocatedNamespaces: 0x10,
  allocatedNamespace: 0x11,
  namespaceControllers: 0x12,
  controllers: 0x13,
  commandSetAllocatedNamespaces: 0x1a,
  commandSets: 0x1c,
} as const;

/** NSIDs in a list of 4096 bytes. */
const LIST_ENTRIES = 1024;
/** CNS 1Ch: the NVM and the Zoned Namespace command set. */
const COMMAND_SET_VECTOR = (1 << COMMAND_SET.nvm) | (1 << COMMAND_SET.zns);

export function identify(command: Command, controller: Controller): void {
  const answer = answerTo(command, controller);
  if (typeof answer === "number") command.queue.complete(command, answer);
  else completeAdminRead(command, answer);
}

/** The 4096 bytes, or the status of the refusal. */
function answerTo(command: Command, controller: Controller): Uint8Array | number {
  const commandSet = command.dword11 >>> 24;
  const { namespaces } = controller.subsystem;
  switch (command.dword10 & 0xff) {
    case CNS.controller:
      return identifyController(controller);
    case CNS.namespace:
    case CNS.allocatedNamespace:
      return aboutNamespace(command, controller);
    case CNS.activeNamespaces:
    case CNS.allocatedNamespaces:
      return listOf(command, namespaces.values(), () => true);
    case CNS.commandSetActiveNamespaces:
    case CNS.commandSetAllocatedNamespaces:
      if (!isCommandSet(commandSet)) return STATUS.invalidField;
      return listOf(command, namespaces.values(), (namespace) => commandSetOf(namespace) === commandSet);
    case CNS.commandSetController:
      return aboutCommandSet(commandSet, controller);
    case CNS.commandSets:
      return commandSetVectors();
    case CNS.namespaceControllers:
      return namespaces.has(command.nsid) ? controllerList(command, controller) : STATUS.invalidNamespaceOrFormat;
    case CNS.controllers:
      return controllerList(command, controller);
    default:
      return aboutOneNamespace(command, controller, commandSet);
  }
}

function aboutNamespace(command: Command, controller: Controller): Uint8Array | number {
  const { limits } = controller.context;
  if (command.addressesAllNamespaces) return commonNamespace();
  const namespace = controller.subsystem.namespaces.get(command.nsid);
  if (namespace !== undefined) return identifyNamespace(namespace, sharingOf(controller), limits);
  // An NSID that could be used and is not: all zeros.
  return isValidNsid(command.nsid) ? new Uint8Array(IDENTIFY_LENGTH) : STATUS.invalidNamespaceOrFormat;
}

/** What all namespaces have in common: nothing but that format 0 is the only one. */
function commonNamespace(): Uint8Array {
  return new Uint8Array(IDENTIFY_LENGTH);
}

function aboutOneNamespace(command: Command, controller: Controller, commandSet: number): Uint8Array | number {
  const structure = command.dword10 & 0xff;
  const known =
    structure === CNS.descriptors || structure === CNS.commandSetNamespace || structure === CNS.independentNamespace;
  if (!known) return STATUS.invalidField;
  if (!isValidNsid(command.nsid)) return STATUS.invalidNamespaceOrFormat;
  const namespace = controller.subsystem.namespaces.get(command.nsid);
  if (structure === CNS.commandSetNamespace) return aboutNamespaceOf(commandSet, namespace);
  if (namespace === undefined) {
    return structure === CNS.descriptors ? STATUS.invalidNamespaceOrFormat : new Uint8Array(IDENTIFY_LENGTH);
  }
  if (structure === CNS.descriptors) return identifyDescriptors(namespace);
  return identifyIndependent(namespace, sharingOf(controller));
}

function aboutNamespaceOf(commandSet: number, namespace: Namespace | undefined): Uint8Array | number {
  if (!isCommandSet(commandSet)) return STATUS.invalidField;
  if (namespace === undefined) return new Uint8Array(IDENTIFY_LENGTH);
  if (commandSet === COMMAND_SET.zns) return identifyZnsNamespace(namespace) ?? STATUS.invalidField;
  // The NVM command set adds protection information only, of which there is none.
  return namespace.zones === undefined ? new Uint8Array(IDENTIFY_LENGTH) : STATUS.invalidField;
}

function aboutCommandSet(commandSet: number, controller: Controller): Uint8Array | number {
  if (commandSet === COMMAND_SET.nvm) return identifyNvmController(controller.context.limits);
  if (commandSet === COMMAND_SET.zns) return identifyZnsController(controller);
  return STATUS.invalidField;
}

function isCommandSet(commandSet: number): boolean {
  return commandSet === COMMAND_SET.nvm || commandSet === COMMAND_SET.zns;
}

function commandSetOf(namespace: Namespace): number {
  return namespace.zones === undefined ? COMMAND_SET.nvm : COMMAND_SET.zns;
}

function isValidNsid(nsid: number): boolean {
  return nsid >= 1 && nsid <= LIST_ENTRIES;
}

function sharingOf(controller: Controller): { shared: boolean } {
  const { multipath, shared } = controller.subsystem.options;
  return { shared: multipath === true || shared === true };
}

/** NSIDs above that of the command, ascending. */
function listOf(
  command: Command,
  namespaces: Iterable<Namespace>,
  wanted: (namespace: Namespace) => boolean,
): Uint8Array | number {
  if (command.nsid >= ALL_NAMESPACES - 1) return STATUS.invalidNamespaceOrFormat;
  const bytes = new Uint8Array(IDENTIFY_LENGTH);
  const view = new DataView(bytes.buffer);
  const found: number[] = [];
  for (const namespace of namespaces)
    if (namespace.nsid > command.nsid && wanted(namespace)) found.push(namespace.nsid);
  found.sort((a, b) => a - b);
  found.slice(0, LIST_ENTRIES).forEach((nsid, index) => {
    view.setUint32(index * 4, nsid, true);
  });
  return bytes;
}

/** CNS 12h and 13h: CNTLIDs from that of the command, ascending. */
function controllerList(command: Command, controller: Controller): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_LENGTH);
  const view = new DataView(bytes.buffer);
  const least = command.dword10 >>> 16;
  const ids = [...controller.subsystem.controllers].map((other) => other.id).filter((id) => id >= least);
  const listed = ids.sort((a, b) => a - b).slice(0, IDENTIFY_LENGTH / 2 - 1);
  view.setUint16(0, listed.length, true);
  listed.forEach((id, index) => {
    view.setUint16(2 + index * 2, id, true);
  });
  return bytes;
}

function commandSetVectors(): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_LENGTH);
  bytes[0] = COMMAND_SET_VECTOR;
  return bytes;
}
