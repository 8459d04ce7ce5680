import type { Socket } from "node:net";
import { KiB } from "../../base/units.js";
import type { DataBuffers } from "../../protocols/nvme/data-buffers.js";
import type { Transport, TransportListener } from "../../protocols/nvme/transport.js";

/** With so much waiting, bytes, a write costs less than to wait until what is to be copied has left the processor's cache. */
const EAGER_BYTES = 96 * KiB;

/**
 * A connection's way out over a socket. What is sent in one turn of the event loop leaves in one write at its end, or in
 * several when it is much: a system call costs as much as several small commands.
 */
export class SocketTransport implements Transport {
  /** Bytes handed to the network and taken from it. */
  bytesSent = 0;
  bytesReceived = 0;
  readonly #socket: Socket;
  readonly #pool: DataBuffers;
  readonly #beforeSending: (() => void) | undefined;
  #listener: TransportListener | undefined;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  /** Memory that is free when what waits now has left. */
  #released: Uint8Array[] = [];
  #scheduled = false;
  #ending = false;
  #reason: Error | undefined;

  /** `beforeSending`: what must have happened before anything is answered. When it throws, nothing is. */
  constructor(socket: Socket, pool: DataBuffers, beforeSending?: () => void) {
    this.#beforeSending = beforeSending;
    this.#socket = socket;
    this.#pool = pool;
    socket.on("drain", () => this.#listener?.drained());
    socket.on("error", (error) => {
      this.#reason ??= error;
    });
    socket.on("close", () => {
      this.#waiting = [];
      this.#waitingBytes = 0;
      this.#listener?.disconnected(this.#reason);
    });
  }

  /** Who gets what arrives. Must be called before anything can arrive. */
  attach(listener: TransportListener): void {
    this.#listener = listener;
  }

  /** Bytes from the peer. */
  receive(chunk: Uint8Array): void {
    this.bytesReceived += chunk.length;
    this.#listener?.receive(chunk);
  }

  send(bytes: Uint8Array): void {
    if (this.#socket.destroyed || this.#ending) return;
    this.#put(bytes);
    if (this.#waitingBytes >= EAGER_BYTES) {
      this.#flush();
      return;
    }
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#flush();
    });
  }

  release(block: Uint8Array): void {
    this.#released.push(block);
  }

  get backlog(): number {
    return this.#waitingBytes + this.#socket.writableLength;
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  end(): void {
    if (this.#ending) return;
    this.#flush();
    this.#ending = true;
    this.#socket.end();
  }

  destroy(reason: Error): void {
    this.#reason ??= reason;
    this.#socket.destroy();
  }

  /** Bytes that follow the last ones in memory make them longer: one piece is written faster than two. */
  #put(bytes: Uint8Array): void {
    this.#waitingBytes += bytes.length;
    const at = this.#waiting.length - 1;
    const last = this.#waiting[at];
    if (last?.buffer === bytes.buffer && last.byteOffset + last.length === bytes.byteOffset) {
      this.#waiting[at] = new Uint8Array(last.buffer, last.byteOffset, last.length + bytes.length);
    } else {
      this.#waiting.push(bytes);
    }
  }

  #flush(): void {
    const waiting = this.#waiting;
    if (waiting.length === 0 || this.#socket.destroyed) return;
    try {
      this.#beforeSending?.();
    } catch (error) {
      this.destroy(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    this.#waiting = [];
    this.bytesSent += this.#waitingBytes;
    this.#waitingBytes = 0;
    const socket = this.#socket;
    const last = waiting.length - 1;
    if (last > 0) socket.cork();
    for (let index = 0; index < last; index++) socket.write(waiting[index] as Uint8Array);
    socket.write(waiting[last] as Uint8Array, this.#whenWritten());
    if (last > 0) socket.uncork();
  }

  #whenWritten(): ((error?: Error | null) => void) | undefined {
    const released = this.#released;
    if (released.length === 0) return undefined;
    this.#released = [];
    return (error) => {
      if (error === undefined || error === null) for (const block of released) this.#pool.give(block);
    };
  }
}
