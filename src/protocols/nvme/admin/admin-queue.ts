/** The admin queue of an I/O controller. */
import type { Command } from "../command.js";
import type { Controller } from "../controller.js";
import { executeFabrics, prepareAdmin } from "../fabrics/connected-admin.js";
import { ADMIN, FABRICS } from "../opcodes.js";
import type { QueueRole } from "../queue-role.js";
import { STATUS } from "../status.js";
import { getFeatures, setFeatures } from "./features.js";
import { identify } from "./identify.js";
import { getLogPage } from "./log-pages.js";

/** Dword 0 of an Abort completion: the command was not aborted. */
const NOT_ABORTED = 1;

export class AdminQueue implements QueueRole {
  readonly #controller: Controller;

  constructor(controller: Controller) {
    this.#controller = controller;
  }

  prepare(command: Command): number {
    return prepareAdmin(command, this.#controller);
  }

  execute(command: Command): void {
    const controller = this.#controller;
    switch (command.opcode) {
      case FABRICS:
        executeFabrics(command, controller);
        break;
      case ADMIN.identify:
        identify(command, controller);
        break;
      case ADMIN.getLogPage:
        getLogPage(command, controller);
        break;
      case ADMIN.getFeatures:
        getFeatures(command, controller, "io");
        break;
      case ADMIN.setFeatures:
        setFeatures(command, controller, "io");
        break;
      case ADMIN.asyncEventRequest:
        controller.events.request(command);
        break;
      case ADMIN.keepAlive:
        command.queue.complete(command, STATUS.success);
        break;
      case ADMIN.abort:
        // Commands end soon by themselves; a host that gives up on one resets the controller.
        command.queue.complete(command, STATUS.success, NOT_ABORTED);
        break;
      default:
        command.queue.complete(command, STATUS.invalidOpcode);
    }
  }

  disconnected(reason: string): void {
    this.#controller.end(reason);
  }
}
