import type { Socket } from "node:net";
import type { DataBuffers } from "../../protocols/nvme/data-buffers.js";
import type { Transport, TransportListener } from "../../protocols/nvme/transport.js";
import type { DirectSocket } from "../direct-socket.js";
import { SendQueue } from "../send-queue.js";

export interface SendingOptions {
  /** What must have happened before anything is answered. When it throws, nothing is. */
  readonly beforeSending?: (() => void) | undefined;
  /** Past the stream of the socket, which carries the bytes as they are. */
  readonly direct?: DirectSocket | undefined;
}

/**
 * A connection's way out over a socket. What is sent while the socket is read leaves in one write when it has nothing more to
 * read, and what is sent otherwise at the end of the turn of the event loop; in several writes when it is much: a system
 * call costs as much as several small commands.
 */
export class SocketTransport implements Transport {
  /** Bytes taken from the network. */
  bytesReceived = 0;
  readonly #socket: Socket;
  readonly #queue: SendQueue;
  readonly #beforeSending: (() => void) | undefined;
  #listener: TransportListener | undefined;
  #scheduled = false;
  #reading = false;
  #ending = false;
  #reason: Error | undefined;

  constructor(socket: Socket, pool: DataBuffers, { beforeSending, direct }: SendingOptions = {}) {
    this.#beforeSending = beforeSending;
    this.#socket = socket;
    this.#queue = new SendQueue(socket, pool, direct);
    socket.on("drain", () => this.#listener?.drained());
    socket.on("error", (error) => {
      this.#reason ??= error;
    });
    socket.on("close", () => {
      this.#queue.clear();
      this.#listener?.disconnected(this.#reason);
    });
  }

  /** Bytes handed to the network. */
  get bytesSent(): number {
    return this.#queue.bytesSent;
  }

  /** Who gets what arrives. Must be called before anything can arrive. */
  attach(listener: TransportListener): void {
    this.#listener = listener;
  }

  /** Bytes from the peer. `isLast`: no more of them wait, so the host gets to work before other connections are served. */
  receive(chunk: Uint8Array, isLast = false): void {
    this.bytesReceived += chunk.length;
    this.#reading = true;
    this.#listener?.receive(chunk);
    this.#reading = false;
    if (this.#queue.isEmpty) return;
    if (isLast) this.#flush();
    else this.#schedule();
  }

  send(bytes: Uint8Array): void {
    if (this.#socket.destroyed || this.#ending) return;
    // What is released with it may follow it.
    if (this.#queue.isLong) this.#flush();
    this.#queue.put(bytes);
    if (!this.#reading) this.#schedule();
  }

  release(block: Uint8Array): void {
    this.#queue.release(block);
    if (this.#queue.isLong) this.#flush();
  }

  get backlog(): number {
    return this.#queue.backlog;
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

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (this.#queue.isEmpty || this.#socket.destroyed) return;
    try {
      this.#beforeSending?.();
    } catch (error) {
      this.destroy(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    this.#queue.flush();
  }
}
