/** The admin queue of a discovery controller: enough to read the discovery log and to be told when it changes. */
import { completeAdminRead } from "../admin/admin-read.js";
import { getFeatures, setFeatures } from "../admin/features.js";
import { identifyDiscoveryController } from "../admin/identify-controller.js";
import { completeLogPage, LOG } from "../admin/log-read.js";
import type { Command } from "../command.js";
import type { Controller } from "../controller.js";
import { executeFabrics, prepareAdmin } from "../fabrics/connected-admin.js";
import { ADMIN, FABRICS } from "../opcodes.js";
import type { QueueRole } from "../queue-role.js";
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
    return prepareAdmin(command, this.#controller);
  }

  execute(command: Command): void {
    switch (command.opcode) {
      case FABRICS:
        executeFabrics(command, this.#controller);
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

  #logPage(command: Command): void {
    if ((command.dword10 & 0xff) !== LOG.discovery) {
      command.queue.complete(command, STATUS.invalidLogPage);
      return;
    }
    completeLogPage(command, encodeDiscoveryLog(this.#contents()), this.#controller);
  }
}
