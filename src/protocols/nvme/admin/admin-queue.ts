/** The admin queue of an I/O controller. */
import type { Command } from "../command.js";
import type { Controller } from "../controller.js";
import { propertyGet, propertySet } from "../fabrics/property-commands.js";
import { ADMIN, FABRICS, FABRICS_TYPE } from "../opcodes.js";
import { type QueueRole, refusal } from "../queue-role.js";
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
    this.#controller.keepAlive.touched = true;
    const always = command.opcode === FABRICS || command.opcode === ADMIN.keepAlive;
    return always || this.#controller.ready ? 0 : refusal(STATUS.commandSequenceError);
  }

  execute(command: Command): void {
    const controller = this.#controller;
    switch (command.opcode) {
      case FABRICS:
        this.#fabrics(command);
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

  #fabrics(command: Command): void {
    switch (command.fabricsType) {
      case FABRICS_TYPE.propertyGet:
        propertyGet(command, this.#controller);
        break;
      case FABRICS_TYPE.propertySet:
        propertySet(command, this.#controller);
        break;
      case FABRICS_TYPE.connect:
        command.queue.complete(command, STATUS.commandSequenceError);
        break;
      default:
        command.queue.complete(command, STATUS.invalidOpcode);
    }
  }
}
