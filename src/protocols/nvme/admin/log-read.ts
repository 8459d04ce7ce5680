/** Get Log Page: which part of a page is asked for (NVMe base, "Get Log Page"). */
import type { Command } from "../command.js";
import type { Controller } from "../controller.js";
import { ADMIN_TRANSFER_BYTES } from "../limits.js";
import { STATUS } from "../status.js";
import { completeAdminRead } from "./admin-read.js";

/** Log page identifiers. */
export const LOG = {
  supported: 0x00,
  error: 0x01,
  health: 0x02,
  firmware: 0x03,
  changedNamespaces: 0x04,
  effects: 0x05,
  discovery: 0x70,
  changedZones: 0xbf,
} as const;

/** RAE: the event that the page belongs to stays announced. */
const RETAIN_EVENT = 1 << 15;
/** OT: the offset is an index of a list. */
const OFFSET_IS_INDEX = 1 << 23;

/** Completes with the part asked for; bytes behind the end of the page are zero. */
export function completeLogPage(command: Command, page: Uint8Array, controller: Controller): void {
  const dwords = (command.dword11 & 0xffff) * 0x1_0000 + (command.dword10 >>> 16) + 1;
  const offset = command.dword13 * 0x1_0000_0000 + command.dword12;
  const length = dwords * 4;
  const invalid =
    offset % 4 !== 0 ||
    offset > page.length ||
    length > ADMIN_TRANSFER_BYTES ||
    (command.dword14 & OFFSET_IS_INDEX) !== 0;
  if (invalid) {
    command.queue.complete(command, STATUS.invalidField);
    return;
  }
  if (!retainsEvent(command)) controller.events.logPageRead(command.dword10 & 0xff, command.nsid);
  const part = new Uint8Array(length);
  part.set(page.subarray(offset, offset + length));
  completeAdminRead(command, part);
}

/** True when reading the page must not count as having seen its news. */
export function retainsEvent(command: Command): boolean {
  return (command.dword10 & RETAIN_EVENT) !== 0;
}
