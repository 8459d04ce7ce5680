/**
 * The data that a queue has asked its host for: one R2T per command, for all of its data.
 *
 * One R2T at a time is what a MAXR2T of 0 allows, so any host can serve it; the host cuts the data into H2CData PDUs of
 * at most MAXH2CDATA bytes, in order. R2Ts are sent in the order of the commands. When the data on its way would
 * exceed the budget of the connection, later commands wait for theirs.
 */
import type { Command } from "./command.js";
import type { DataBuffers } from "./data-buffers.js";
import { COMMON, DATA, FATAL, PduError } from "./pdu/pdu-format.js";

interface Transfer {
  readonly command: Command;
  readonly buffer: Uint8Array;
  received: number;
}

export interface DataTransferHooks {
  /** Sends an R2T for all `length` bytes of a command. */
  readonly request: (commandId: number, transferTag: number, length: number) => void;
  /** All data of the command has come and is in `command.data`. */
  readonly complete: (command: Command) => void;
}

export class DataTransfers {
  readonly #buffers: DataBuffers;
  readonly #budget: number;
  readonly #hooks: DataTransferHooks;
  /** By transfer tag. */
  readonly #active: (Transfer | undefined)[] = [];
  readonly #freeTags: number[] = [];
  /** Commands without an R2T, and how much data they want. */
  readonly #waiting: { readonly command: Command; readonly length: number }[] = [];
  #bytes = 0;
  #current: Transfer | undefined = undefined;
  #currentTag = 0;
  #ended = false;

  /** `budget`: bytes of buffers in use above which no further R2T is sent. */
  constructor(buffers: DataBuffers, budget: number, hooks: DataTransferHooks) {
    this.#buffers = buffers;
    this.#budget = budget;
    this.#hooks = hooks;
  }

  /** Keeps a copy of data that came in the capsule. To be given back with `release`. */
  copyOf(data: Uint8Array): Uint8Array {
    const buffer = this.#buffers.take(data.length);
    buffer.set(data);
    this.#bytes += data.length;
    return buffer;
  }

  /** Asks for `length` bytes of data of a command, now or when there is room. */
  begin(command: Command, length: number): void {
    if (this.#waiting.length > 0 || !this.#fits(length)) this.#waiting.push({ command, length });
    else this.#start(command, length);
  }

  /** The room for the data of an H2CData PDU. Throws `PduError` for one that was not asked for. */
  dataBegins(commandId: number, tag: number, offset: number, length: number, last: boolean): Uint8Array {
    const transfer = this.#active[tag];
    if (transfer === undefined) {
      throw new PduError(FATAL.invalidHeaderField, DATA.transferTag, `H2CData has TTAG ${tag}, which no R2T gave`);
    }
    if (transfer.command.id !== commandId) {
      const text = `H2CData for TTAG ${tag} has CCCID ${commandId} instead of ${transfer.command.id}`;
      throw new PduError(FATAL.invalidHeaderField, DATA.commandId, text);
    }
    const total = transfer.buffer.length;
    if (offset !== transfer.received || offset + length > total) {
      const text = `H2CData brings bytes ${offset} to ${offset + length}; expected from ${transfer.received} of ${total}`;
      throw new PduError(FATAL.dataOutOfRange, 0, text);
    }
    if (last !== (offset + length === total)) {
      throw new PduError(FATAL.invalidHeaderField, COMMON.flags, "H2CData has LAST where data is missing, or lacks it");
    }
    this.#current = transfer;
    this.#currentTag = tag;
    return transfer.buffer.subarray(offset, offset + length);
  }

  /** The data that began last is complete. */
  dataEnds(length: number, intact: boolean): void {
    const transfer = this.#current as Transfer;
    this.#current = undefined;
    transfer.received += length;
    if (!intact) transfer.command.damaged = true;
    if (transfer.received < transfer.buffer.length) return;
    this.#active[this.#currentTag] = undefined;
    this.#freeTags.push(this.#currentTag);
    transfer.command.data = transfer.buffer;
    this.#hooks.complete(transfer.command);
  }

  /** The data of a command is not needed any more. */
  release(data: Uint8Array): void {
    this.#bytes -= data.length;
    this.#buffers.give(data);
    while (!this.#ended) {
      const next = this.#waiting[0];
      if (next === undefined || !this.#fits(next.length)) return;
      this.#waiting.shift();
      this.#start(next.command, next.length);
    }
  }

  /** The command was sent its R2T, and not all of its data has come. */
  awaits(command: Command): boolean {
    return this.#active.some((transfer) => transfer?.command === command);
  }

  /** Forgets a command that has not been sent its R2T yet; false for any other: its data is on the way. */
  withdraw(command: Command): boolean {
    const at = this.#waiting.findIndex((waiting) => waiting.command === command);
    if (at >= 0) this.#waiting.splice(at, 1);
    return at >= 0;
  }

  /** No more data will come. Returns the commands that still waited for it. */
  abandon(): Command[] {
    this.#ended = true;
    const commands = this.#waiting.splice(0).map((waiting) => waiting.command);
    for (const transfer of this.#active.splice(0)) {
      if (transfer === undefined) continue;
      commands.push(transfer.command);
      this.#buffers.give(transfer.buffer);
    }
    return commands;
  }

  #fits(length: number): boolean {
    return this.#bytes === 0 || this.#bytes + length <= this.#budget;
  }

  #start(command: Command, length: number): void {
    const tag = this.#freeTags.pop() ?? this.#active.length;
    this.#active[tag] = { command, buffer: this.#buffers.take(length), received: 0 };
    this.#bytes += length;
    this.#hooks.request(command.id, tag, length);
  }
}
