import type { Socket } from "node:net";
import { KiB, MiB } from "../base/units.js";
import type { DataBuffers } from "../protocols/nvme/data-buffers.js";
import type { DirectSocket } from "./direct-socket.js";

/** With so much waiting, bytes, a write costs less than to wait until what is to be copied has left the processor's cache. */
const EAGER_BYTES = 96 * KiB;
/** More pieces than this, or more bytes, are left to the stream, which sends them all with one system call. */
const DIRECT_PIECES = 4;
const DIRECT_BYTES = MiB;
const NONE: Uint8Array[] = [];

/**
 * What is on its way to a socket. It is sent in few writes, since a system call costs as much as several small requests: the
 * owner says when (`flush`), or it is much.
 */
export class SendQueue {
  /** Bytes handed to the network. */
  bytesSent = 0;
  readonly #pool: DataBuffers;
  #socket: Socket;
  #direct: DirectSocket | undefined;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  /** Memory that is free when what waits now has left. */
  #released: Uint8Array[] = [];

  /** `direct`: past the stream of `socket`. */
  constructor(socket: Socket, pool: DataBuffers, direct?: DirectSocket) {
    this.#socket = socket;
    this.#direct = direct;
    this.#pool = pool;
  }

  /** What follows goes to another socket; nothing waits. */
  useSocket(socket: Socket): void {
    this.#socket = socket;
    this.#direct = undefined;
  }

  /** Bytes that have not left. */
  get backlog(): number {
    return this.#waitingBytes + this.#socket.writableLength;
  }

  /** The bytes must not change until they have left. */
  put(bytes: Uint8Array): void {
    const at = this.#waiting.length - 1;
    const last = this.#waiting[at];
    this.#waitingBytes += bytes.length;
    // One piece is written faster than two.
    if (last?.buffer === bytes.buffer && last.byteOffset + last.length === bytes.byteOffset) {
      this.#waiting[at] = new Uint8Array(last.buffer, last.byteOffset, last.length + bytes.length);
    } else {
      this.#waiting.push(bytes);
    }
  }

  /** `block`, from the pool, goes back to it when everything that was put so far has left. */
  release(block: Uint8Array): void {
    this.#released.push(block);
  }

  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  /** So much waits that it should leave now. */
  get isLong(): boolean {
    return this.#waitingBytes >= EAGER_BYTES;
  }

  flush(): void {
    const socket = this.#socket;
    if (this.#waiting.length === 0 || socket.destroyed) return;
    const waiting = this.#sendDirectly(this.#waiting);
    this.#waiting = [];
    this.bytesSent += this.#waitingBytes;
    this.#waitingBytes = 0;
    const released = this.#released;
    if (waiting.length === 0) return this.#give(released);
    const last = waiting.length - 1;
    if (last > 0) socket.cork();
    for (let index = 0; index < last; index++) socket.write(waiting[index] as Uint8Array);
    if (released.length === 0) socket.write(waiting[last] as Uint8Array);
    else socket.write(waiting[last] as Uint8Array, this.#giver(released));
    if (last > 0) socket.uncork();
    // The kernel has it all: the memory can be used again while it is in the processor's cache.
    if (released.length > 0 && socket.writableLength === 0) this.#give(released);
  }

  /** Nothing of what waits will be sent. */
  clear(): void {
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#released = [];
  }

  /** Gives the kernel what it takes at once, at less than half of what the stream costs; returns what is left for the stream. */
  #sendDirectly(waiting: Uint8Array[]): Uint8Array[] {
    const direct = this.#direct;
    const last = waiting.length - 1;
    if (direct === undefined || last >= DIRECT_PIECES || this.#waitingBytes > DIRECT_BYTES) return waiting;
    // What the stream holds comes first.
    if (this.#socket.writableLength > 0) return waiting;
    for (const [index, bytes] of waiting.entries()) {
      const sent = direct.send(bytes, index < last);
      if (sent < bytes.length) return [bytes.subarray(sent), ...waiting.slice(index + 1)];
    }
    return NONE;
  }

  #giver(released: Uint8Array[]): (error?: Error | null) => void {
    this.#released = [];
    return (error) => {
      if (error === undefined || error === null) this.#give(released);
    };
  }

  /** Once. */
  #give(released: Uint8Array[]): void {
    for (const block of released) this.#pool.give(block);
    released.length = 0;
  }
}
