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

/** Dword 0 of an Abort completion: whether the command was aborted, which is then completed first. */
const ABORTED = 0;
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
        command.queue.complete(command, STATUS.success, this.#abort(command.dword10) ? ABORTED : NOT_ABORTED);
        break;
      default:
        command.queue.complete(command, STATUS.invalidOpcode);
    }
  }

  /** `target`: the number of a queue, and above it that of a command. */
  #abort(target: number): boolean {
    const queueId = target & 0xffff;
    const queue = queueId === 0 ? this.#controller.admin : this.#controller.queues.get(queueId);
    return queue?.abort(target >>> 16) === true;
  }

  abort(command: Command): boolean {
    return this.#controller.events.abort(command);
  }

  disconnected(reason: string): void {
    this.#controller.end(reason);
  }
}
