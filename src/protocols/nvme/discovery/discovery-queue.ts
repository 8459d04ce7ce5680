/** The admin queue of a discovery controller: enough to read the discovery log and to be told when it changes. */
import { completeAdminRead } from "../admin/admin-read.js";
import { getFeatures, setFeatures } from "../admin/features.js";
import { identifyDiscoveryController } from "../admin/identify-controller.js";
import { completeLogPage, LOG } from "../admin/log-read.js";
import type { Command } from "../command.js";
import type { Controller } from "../controller.js";
import { propertyGet, propertySet } from "../fabrics/property-commands.js";
import { ADMIN, FABRICS, FABRICS_TYPE } from "../opcodes.js";
import { type QueueRole, refusal } from "../queue-role.js";
import { STATUS } from "../status.js";
import { type DiscoveryContents, encodeDiscoveryLog } from "./discovery-log.js";

/** CNS of Identify Controller. */
const IDENTIFY_CONTROLLER = 1;

export class DiscoveryQueue implements QueueRole {
  readonly #controller: Controller;
  readonly #contents: () => DiscoveryContents;

  constructor(controller: Controller, contents: () => DiscoveryContents) {
    this.#controller = controller;
    this.#contents = contents;
  }

  prepare(command: Command): number {
    this.#controller.keepAlive.touched = true;
    const always = command.opcode === FABRICS || command.opcode === ADMIN.keepAlive;
    return always || this.#controller.ready ? 0 : refusal(STATUS.commandSequenceError);
  }

  execute(command: Command): void {
    switch (command.opcode) {
      case FABRICS:
        this.#fabrics(command);
        break;
      case ADMIN.identify:
        if ((command.dword10 & 0xff) !== IDENTIFY_CONTROLLER) command.queue.complete(command, STATUS.invalidField);
        else completeAdminRead(command, identifyDiscoveryController(this.#controller));
        break;
      case ADMIN.getLogPage:
        this.#logPage(command);
        break;
      case ADMIN.getFeatures:
        getFeatures(command, this.#controller, "discovery");
        break;
      case ADMIN.setFeatures:
        setFeatures(command, this.#controller, "discovery");
        break;
      case ADMIN.asyncEventRequest:
        this.#controller.events.request(command);
        break;
      case ADMIN.keepAlive:
        command.queue.complete(command, STATUS.success);
        break;
      default:
        command.queue.complete(command, STATUS.invalidOpcode);
    }
  }

  disconnected(reason: string): void {
    this.#controller.end(reason);
  }

  #fabrics(command: Command): void {
    const type = command.fabricsType;
    if (type === FABRICS_TYPE.propertyGet) propertyGet(command, this.#controller);
    else if (type === FABRICS_TYPE.propertySet) propertySet(command, this.#controller);
    else {
      const status = type === FABRICS_TYPE.connect ? STATUS.commandSequenceError : STATUS.invalidOpcode;
      command.queue.complete(command, status);
    }
  }

  #logPage(command: Command): void {
    if ((command.dword10 & 0xff) !== LOG.discovery) {
      command.queue.complete(command, STATUS.invalidLogPage);
      return;
    }
    completeLogPage(command, encodeDiscoveryLog(this.#contents()), this.#controller);
  }
}
