/** Bytes that live behind an NBD server. */
import { ZcowError } from "../../base/errors.js";
import { alignDown, alignUp } from "../../base/integers.js";
import { whenAll } from "../../base/maybe-promise.js";
import { Mutex } from "../../base/mutex.js";
import { MiB, SECTOR_SIZE } from "../../base/units.js";
import { COMMAND, COMMAND_FLAG, EXPORT_FLAG } from "../../codec/nbd/wire.js";
import { InFlight } from "../in-flight.js";
import type { Storage, StorageCapabilities, StorageExtent } from "../storage.js";
import { type NbdAddress, parseNbdAddress } from "./nbd-uri.js";
import { RemoteExport, type RemoteExportOptions } from "./remote-export.js";

export interface NbdStorageOptions extends RemoteExportOptions {
  /** Default false: reading only. */
  readonly writable?: boolean;
}

/** Larger reads and writes leave in pieces, so that none holds up the others; every server takes this much. */
const PIECE_BYTES = MiB;
/** Bytes that one request for zeros, or to discard, may span: below 2^32, and a multiple of any block size. */
const LARGEST_SPAN = 1024 * MiB;

/**
 * Opens the export at `uri` (`nbd://`, `nbds://`, `nbd+unix://`, `nbds+unix://`, or the older `nbd:HOST:PORT`).
 *
 * Fails with `REMOTE_ADDRESS`, `REMOTE_UNREACHABLE`, `REMOTE_REFUSED`, `REMOTE_PROTOCOL`, and with `READ_ONLY` when it is to be
 * writable and the server does not let it be.
 */
export async function openNbdStorage(uri: string, options: NbdStorageOptions = {}): Promise<Storage> {
  const address = parseNbdAddress(uri);
  const remote = await RemoteExport.open(address, options);
  if (options.writable === true && (remote.negotiated.flags & EXPORT_FLAG.readOnly) !== 0) {
    await remote.close();
    throw new ZcowError("READ_ONLY", `${uri}: the server allows no writes`, {
      data: { path: uri },
      stockText: "request on write denied without write permission",
    });
  }
  return new NbdStorage(address, remote, options.writable === true);
}

class NbdStorage implements Storage {
  readonly name: string;
  readonly capabilities: StorageCapabilities;
  readonly #remote: RemoteExport;
  #size: number;
  readonly #block: number;
  readonly #piece: number;
  readonly #calls = new InFlight();
  /** Writes that cover blocks in part take turns, with all others kept out of those blocks. */
  readonly #partial = new Mutex();
  /** Resizes take turns. */
  readonly #resizing = new Mutex();
  #closing: Promise<void> | undefined;

  constructor({ uri }: NbdAddress, remote: RemoteExport, writable: boolean) {
    const { size, flags, blockSizes, allocationContext } = remote.negotiated;
    this.name = uri;
    this.#remote = remote;
    this.#size = size;
    this.#block = blockSizes?.minimum ?? 1;
    this.#piece = alignDown(Math.min(PIECE_BYTES, blockSizes?.maximum ?? PIECE_BYTES), this.#block);
    this.capabilities = Object.freeze({
      writable,
      resizable: writable && (flags & EXPORT_FLAG.resize) !== 0,
      growsOnly: true,
      discard: (flags & EXPORT_FLAG.trim) !== 0,
      efficientZeroes: (flags & EXPORT_FLAG.writeZeroes) !== 0,
      holes: allocationContext !== undefined,
      synchronous: false,
      alignment: this.#block,
      durable: (flags & EXPORT_FLAG.flush) !== 0,
    });
  }

  size(): number {
    return this.#size;
  }

  read(at: number, into: Uint8Array): Promise<void> {
    return this.#call("read", () => this.#read(at, into));
  }

  write(at: number, from: Uint8Array): Promise<void> {
    return this.#change("write", at, from.length, () => this.#write(at, from));
  }

  writeZeroes(at: number, length: number, options: { readonly unmap?: boolean } = {}): Promise<void> {
    return this.#change("write zeroes", at, length, () => this.#writeZeroes(at, length, options.unmap ?? true));
  }

  discard(at: number, length: number): Promise<void> {
    return this.#change("discard", at, length, async () => {
      if (!this.capabilities.discard) return;
      // A hint: parts of blocks are left alone.
      const start = alignUp(at, this.#block);
      await this.#spans(COMMAND.trim, 0, start, alignDown(at + length, this.#block) - start);
    });
  }

  flush(): Promise<void> {
    return this.#call("flush", async () => {
      if (this.capabilities.writable && this.capabilities.durable) await this.#remote.flush();
    });
  }

  async truncate(size: number): Promise<void> {
    if (size === this.#size) return;
    if (this.capabilities.resizable && size > this.#size) return this.#call("resize", () => this.#grow(size));
    throw new ZcowError(
      "STORAGE_UNSUPPORTED",
      `${this.name}: an export cannot be made ${size} bytes long; it has ${this.#size}`,
      {
        data: { path: this.name, value: size, limit: this.#size },
        stockText: "Cannot grow NBD nodes",
      },
    );
  }

  /** Servers take whole sectors and blocks. */
  async #grow(least: number): Promise<void> {
    await this.#resizing.run(async () => {
      const size = alignUp(least, Math.max(this.#block, SECTOR_SIZE));
      if (size <= this.#size) return;
      await this.#remote.grow(size);
      this.#size = size;
    });
  }

  async *extents(at: number, length: number): AsyncIterable<StorageExtent> {
    this.#requireOpen("map");
    const end = at + length;
    let offset = at;
    while (offset < end) {
      if (offset >= this.#size || !this.capabilities.holes) {
        yield { offset, length: end - offset, hole: offset >= this.#size };
        return;
      }
      for (const extent of await this.#status(offset, Math.min(end, this.#size))) {
        yield extent;
        offset += extent.length;
      }
    }
  }

  allocatedSize(): undefined {
    return undefined;
  }

  close(): Promise<void> {
    this.#closing ??= this.#calls.idle().then(() => this.#remote.close());
    return this.#closing;
  }

  async #status(offset: number, end: number): Promise<StorageExtent[]> {
    const start = alignDown(offset, this.#block);
    const length = Math.min(alignUp(end, this.#block) - start, LARGEST_SPAN);
    const answer = await this.#remote.request({ type: COMMAND.blockStatus, flags: 0, offset: start, length });
    const extents: StorageExtent[] = [];
    let at = start;
    for (const { length: size, zero } of answer) {
      const from = Math.max(at, offset);
      const until = Math.min(at + size, end);
      at += size;
      if (until > from) extents.push({ offset: from, length: until - from, hole: zero });
    }
    if (extents.length > 0) return extents;
    throw new ZcowError("REMOTE_PROTOCOL", `${this.name}: a block status says nothing of what was asked for`, {
      data: { path: this.name, offset, length },
    });
  }

  async #read(at: number, into: Uint8Array): Promise<void> {
    const inside = Math.max(0, Math.min(into.length, this.#size - at));
    into.fill(0, inside);
    if (inside === 0) return;
    const start = alignDown(at, this.#block);
    const end = alignUp(at + inside, this.#block);
    if (start === at && end === at + inside) return this.#readAligned(at, into.subarray(0, inside));
    const around = new Uint8Array(end - start);
    await this.#readAligned(start, around);
    into.set(around.subarray(at - start, at - start + inside));
  }

  #readAligned(at: number, into: Uint8Array): Promise<void> {
    return this.#pieces(into.length, (from, length) =>
      this.#remote.request({
        type: COMMAND.read,
        flags: 0,
        offset: at + from,
        length,
        into: into.subarray(from, from + length),
      }),
    );
  }

  async #write(at: number, from: Uint8Array): Promise<void> {
    const start = alignDown(at, this.#block);
    const end = alignUp(at + from.length, this.#block);
    if (start === at && end === at + from.length) {
      return this.#partial.isBusy
        ? this.#partial.run(() => this.#writeAligned(at, from))
        : this.#writeAligned(at, from);
    }
    await this.#partial.run(async () => {
      const around = new Uint8Array(end - start);
      await this.#readAligned(start, around);
      around.set(from, at - start);
      await this.#writeAligned(start, around);
    });
  }

  #writeAligned(at: number, from: Uint8Array): Promise<void> {
    return this.#pieces(from.length, (start, length) =>
      this.#remote.request({
        type: COMMAND.write,
        flags: 0,
        offset: at + start,
        length,
        from: from.subarray(start, start + length),
      }),
    );
  }

  async #writeZeroes(at: number, length: number, unmap: boolean): Promise<void> {
    const start = alignUp(at, this.#block);
    const end = alignDown(at + length, this.#block);
    if (!this.capabilities.efficientZeroes || start >= end) return this.#writeEachZero(at, length);
    if (start > at) await this.#writeEachZero(at, start - at);
    await this.#spans(COMMAND.writeZeroes, unmap ? 0 : COMMAND_FLAG.noHole, start, end - start);
    if (at + length > end) await this.#writeEachZero(end, at + length - end);
  }

  async #writeEachZero(at: number, length: number): Promise<void> {
    const zeroes = new Uint8Array(Math.min(length, this.#piece));
    for (let done = 0; done < length; done += zeroes.length) {
      await this.#write(at + done, zeroes.subarray(0, Math.min(zeroes.length, length - done)));
    }
  }

  async #spans(type: number, flags: number, at: number, length: number): Promise<void> {
    for (let done = 0; done < length; done += LARGEST_SPAN) {
      await this.#remote.request({ type, flags, offset: at + done, length: Math.min(LARGEST_SPAN, length - done) });
    }
  }

  async #pieces(length: number, request: (from: number, length: number) => Promise<unknown>): Promise<void> {
    if (length <= this.#piece) return void (await request(0, length));
    const waits: Promise<void>[] = [];
    for (let from = 0; from < length; from += this.#piece) {
      waits.push(request(from, Math.min(this.#piece, length - from)).then(() => undefined));
    }
    await whenAll(waits);
  }

  #change(operation: string, at: number, length: number, work: () => Promise<void>): Promise<void> {
    if (!this.capabilities.writable) {
      return Promise.reject(
        new ZcowError("READ_ONLY", `${operation} on ${this.name}: opened for reading`, { data: { path: this.name } }),
      );
    }
    if (at + length > this.#size && !this.capabilities.resizable) {
      const text = `${operation} on ${this.name}: ${length} bytes at ${at} reach past the end at ${this.#size}`;
      return Promise.reject(
        new ZcowError("NO_SPACE", text, { data: { path: this.name, offset: at, length, limit: this.#size } }),
      );
    }
    return this.#call(operation, async () => {
      if (length === 0) return;
      if (at + length > this.#size) await this.#grow(at + length);
      await work();
    });
  }

  async #call(operation: string, work: () => Promise<void>): Promise<void> {
    this.#requireOpen(operation);
    await this.#calls.track(work());
  }

  #requireOpen(operation: string): void {
    if (this.#closing === undefined) return;
    throw new ZcowError("CLOSED", `${operation} on ${this.name}: the storage is closed`, { data: { path: this.name } });
  }
}
