/** The newest failed commands of a controller (log page 01h). */
import type { Command } from "./command.js";
import { ERROR_LOG_ENTRIES } from "./limits.js";
import { statusField } from "./status.js";

interface Entry {
  readonly count: number;
  readonly queueId: number;
  readonly commandId: number;
  readonly status: number;
  readonly lba: number;
  readonly nsid: number;
}

/** Bytes of an entry. */
export const ERROR_ENTRY_LENGTH = 64;

export class ErrorLog {
  readonly #entries: Entry[] = [];
  #count = 0;

  /** Errors since the controller was made. */
  get count(): number {
    return this.#count;
  }

  add(command: Command, queueId: number, status: number): void {
    this.#count += 1;
    this.#entries.unshift({
      count: this.#count,
      queueId,
      commandId: command.id,
      status: statusField(status),
      lba: command.startingBlock,
      nsid: command.nsid,
    });
    if (this.#entries.length > ERROR_LOG_ENTRIES) this.#entries.pop();
  }

  /** The log page: newest first, unused entries zero. */
  encode(): Uint8Array {
    const bytes = new Uint8Array(ERROR_LOG_ENTRIES * ERROR_ENTRY_LENGTH);
    const view = new DataView(bytes.buffer);
    this.#entries.forEach((entry, index) => {
      const at = index * ERROR_ENTRY_LENGTH;
      view.setBigUint64(at, BigInt(entry.count), true);
      view.setUint16(at + 8, entry.queueId, true);
      view.setUint16(at + 10, entry.commandId, true);
      view.setUint16(at + 12, entry.status, true);
      // No single parameter is at fault that we could name.
      view.setUint16(at + 14, 0xffff, true);
      view.setBigUint64(at + 16, BigInt(entry.lba), true);
      view.setUint32(at + 24, entry.nsid, true);
    });
    return bytes;
  }
}
