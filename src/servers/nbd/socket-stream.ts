import type { Socket } from "node:net";
import type { NbdConnection, NbdTransport } from "../../protocols/nbd/connection.js";
import type { DataBuffers } from "../../protocols/nvme/data-buffers.js";

/**
 * A connection's way out over a socket, which TLS may replace on the way. What one call of the connection gives rise to
 * leaves in one write: a system call costs as much as several small requests.
 */
export class SocketStream implements NbdTransport {
  /** Bytes handed to the network and taken from it. */
  bytesSent = 0;
  bytesReceived = 0;
  readonly #pool: DataBuffers;
  readonly #startTls: (() => void) | undefined;
  #socket: Socket;
  #connection: NbdConnection | undefined;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  /** Memory that is free when what waits now has left. */
  #released: Uint8Array[] = [];
  #receiving = false;
  #scheduled = false;
  #ending = false;
  #gone = false;
  #reason: Error | undefined;

  /** `startTls`: makes the socket another one; see {@link useSocket}. */
  constructor(socket: Socket, pool: DataBuffers, startTls?: () => void) {
    this.#pool = pool;
    this.#startTls = startTls;
    this.#socket = socket;
    this.#listen(socket);
  }

  /** Who gets what arrives. Must be called before anything can arrive. */
  attach(connection: NbdConnection): void {
    this.#connection = connection;
  }

  /** TLS is in place on the socket. */
  useSocket(secure: Socket): void {
    this.#socket = secure;
    this.#listen(secure);
    this.#connection?.secured();
  }

  /** Bytes from the peer. */
  receive(chunk: Uint8Array): void {
    this.bytesReceived += chunk.length;
    this.#receiving = true;
    this.#connection?.receive(chunk);
    this.#receiving = false;
    this.#flush();
  }

  send(bytes: Uint8Array): void {
    if (this.#socket.destroyed || this.#ending) return;
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    if (this.#receiving || this.#scheduled) return;
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

  /** What was sent leaves first, so that the client sees it in the clear. */
  startTls(): void {
    this.#flush();
    this.#startTls?.();
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

  /** The stream is gone, whichever of its sockets it was. Idempotent. */
  closed(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#connection?.disconnected(this.#reason);
  }

  #listen(socket: Socket): void {
    socket.on("drain", () => this.#connection?.drained());
    socket.on("error", (error) => {
      this.#reason ??= error;
    });
    // A client that only stops sending has still said goodbye.
    socket.on("end", () => socket.end());
    socket.on("close", () => this.closed());
  }

  #flush(): void {
    const waiting = this.#waiting;
    if (waiting.length === 0 || this.#socket.destroyed) return;
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
