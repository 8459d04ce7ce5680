/** What every admin queue does alike, that of an I/O controller and that of a discovery controller. */
import type { Command } from "../command.js";
import type { Controller } from "../controller.js";
import { ADMIN, FABRICS, FABRICS_TYPE } from "../opcodes.js";
import { refusal } from "../queue-role.js";
import { STATUS } from "../status.js";
import { propertyGet, propertySet } from "./property-commands.js";

/** Notes the sign of life. Before the controller is ready it takes Fabrics commands and Keep Alive only; none brings data. */
export function prepareAdmin(command: Command, controller: Controller): number {
  controller.keepAlive.touched = true;
  const always = command.opcode === FABRICS || command.opcode === ADMIN.keepAlive;
  return always || controller.ready ? 0 : refusal(STATUS.commandSequenceError);
}

/** Executes a Fabrics command on a queue that is connected: the properties, and no second Connect. */
export function executeFabrics(command: Command, controller: Controller): void {
  switch (command.fabricsType) {
    case FABRICS_TYPE.propertyGet:
      propertyGet(command, controller);
      break;
    case FABRICS_TYPE.propertySet:
      propertySet(command, controller);
      break;
    case FABRICS_TYPE.connect:
      command.queue.complete(command, STATUS.commandSequenceError);
      break;
    default:
      command.queue.complete(command, STATUS.invalidOpcode);
  }
}
