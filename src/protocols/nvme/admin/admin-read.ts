/** How admin commands hand data to the host. */
import type { Command } from "../command.js";
import { statusOfHostRoom } from "../queue-role.js";
import { STATUS } from "../status.js";

/** Completes with all of `data`, for which the host must have room. */
export function completeAdminRead(command: Command, data: Uint8Array): void {
  const status = statusOfHostRoom(command, data.length);
  if (status !== STATUS.success) {
    command.queue.complete(command, status);
    return;
  }
  command.queue.reply(command, data.length).set(data);
  command.queue.completeWithReply(command);
}
