/** Property Get and Property Set. */
import type { Command } from "../command.js";
import type { Controller } from "../controller.js";
import { capabilities, PROPERTY, READY_TIMEOUTS, VERSION } from "../properties.js";
import { STATUS } from "../status.js";

/** ATTRIB, in byte 40: the size of the property. */
const SIZE_4 = 0;
const SIZE_8 = 1;

/** Completes with the value in dwords 0 and 1. */
export function propertyGet(command: Command, controller: Controller): void {
  const size = command.dword10 & 7;
  const offset = command.dword11;
  const value =
    size === SIZE_8 ? wideProperty(offset, controller) : size === SIZE_4 ? property(offset, controller) : undefined;
  if (value === undefined) command.queue.complete(command, STATUS.invalidField);
  else command.queue.complete(command, STATUS.success, value.low, value.high);
}

/** Controller Configuration is the one property that hosts write. */
export function propertySet(command: Command, controller: Controller): void {
  const size = command.dword10 & 7;
  if (size !== SIZE_4 || command.dword11 !== PROPERTY.configuration) {
    command.queue.complete(command, STATUS.invalidField);
    return;
  }
  controller.configure(command.dword12);
  command.queue.complete(command, STATUS.success);
}

interface PropertyValue {
  readonly low: number;
  readonly high: number;
}

function wideProperty(offset: number, controller: Controller): PropertyValue | undefined {
  return offset === PROPERTY.capabilities ? capabilities(controller.context.limits) : undefined;
}

function property(offset: number, controller: Controller): PropertyValue | undefined {
  switch (offset) {
    case PROPERTY.version:
      return { low: VERSION, high: 0 };
    case PROPERTY.configuration:
      return { low: controller.configuration, high: 0 };
    case PROPERTY.status:
      return { low: controller.status, high: 0 };
    case PROPERTY.readyTimeouts:
      return { low: READY_TIMEOUTS, high: 0 };
    default:
      return undefined;
  }
}
