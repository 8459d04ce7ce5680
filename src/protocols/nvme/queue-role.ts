/** What a connection is to its commands: not connected yet, an admin queue, an I/O queue. */
import { type Command, SGL } from "./command.js";
import { STATUS } from "./status.js";

export interface QueueRole {
  /**
   * Looks at a command before its data comes. The bytes of data wanted from the host, 0 for none, or a status,
   * negated, that ends the command.
   */
  prepare(command: Command): number;
  /** Carries the command out; its data, if any, is complete. Ends by one completion, now or later. */
  execute(command: Command): void;
  /** A command that asked for data will not be carried out: its data came damaged, or cannot come. */
  abandon?(command: Command): void;
  /** Takes back a command that has not begun: true, and it is completed as aborted, when that could be done. */
  abort?(command: Command): boolean;
  /** The connection is gone. */
  disconnected(reason: string): void;
}

/** How a role refuses in `prepare`. */
export function refusal(status: number): number {
  return -status;
}

/** Pointers to data must be SGLs (PSDT 01b or 10b): over Fabrics there are no other. */
function usesSgl(command: Command): boolean {
  const kind = command.flags >>> 6;
  return kind === 1 || kind === 2;
}

/** Success, or what is wrong with the command's pointer to `length` bytes of room for data to the host. */
export function statusOfHostRoom(command: Command, length: number): number {
  if (!usesSgl(command)) return STATUS.invalidField;
  if (command.sglType !== SGL.transport) return STATUS.sglTypeInvalid;
  return command.sglLength < length ? STATUS.dataSglLengthInvalid : STATUS.success;
}

/** Success, or what is wrong with the command's pointer to `length` bytes from the host; `inCapsule` came with it. */
export function statusOfHostData(command: Command, length: number, inCapsule: number): number {
  if (!usesSgl(command)) return STATUS.invalidField;
  if (command.sglLength !== length) return STATUS.dataSglLengthInvalid;
  if (command.sglType === SGL.transport) return inCapsule === 0 ? STATUS.success : STATUS.invalidField;
  if (command.sglType !== SGL.inCapsule) return STATUS.sglTypeInvalid;
  if (command.sglOffset !== 0 || command.sglOffsetHigh !== 0) return STATUS.sglOffsetInvalid;
  return inCapsule === length ? STATUS.success : STATUS.dataSglLengthInvalid;
}
