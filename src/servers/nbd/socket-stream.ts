import type { Socket } from "node:net";
import type { NbdConnection, NbdTransport } from "../../protocols/nbd/connection.js";
import type { DataBuffers } from "../../protocols/nvme/data-buffers.js";
import type { DirectSocket } from "../direct-socket.js";
import { SendQueue } from "../send-queue.js";

/**
 * A connection's way out over a socket, which TLS may replace on the way. What one call of the connection gives rise to
 * leaves in one write: a system call costs as much as several small requests.
 */
export class SocketStream implements NbdTransport {
  /** Bytes taken from the network. */
  bytesReceived = 0;
  readonly #queue: SendQueue;
  readonly #startTls: (() => void) | undefined;
  #socket: Socket;
  #connection: NbdConnection | undefined;
  #receiving = false;
  #scheduled = false;
  #ending = false;
  #gone = false;
  #reason: Error | undefined;

  /** `direct`: past the stream of `socket`. `startTls`: makes the socket another one; see {@link useSocket}. */
  constructor(socket: Socket, pool: DataBuffers, direct?: DirectSocket, startTls?: () => void) {
    this.#queue = new SendQueue(socket, pool, direct);
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
    this.#queue.useSocket(secure);
    this.#listen(secure);
    this.#connection?.secured();
  }

  /** Bytes handed to the network. */
  get bytesSent(): number {
    return this.#queue.bytesSent;
  }

  /** Bytes from the peer. */
  receive(chunk: Uint8Array): void {
    this.bytesReceived += chunk.length;
    this.#receiving = true;
    this.#connection?.receive(chunk);
    this.#receiving = false;
    this.#queue.flush();
  }

  /** Requests that have come so far. */
  get requests(): number {
    return this.#connection?.requests ?? 0;
  }

  /** Where the next bytes from the peer may be put; then they are told to {@link filled}. */
  get room(): Uint8Array | undefined {
    return this.#connection?.room;
  }

  /** `count` bytes from the peer are in {@link room}. */
  filled(count: number): void {
    this.bytesReceived += count;
    this.#receiving = true;
    this.#connection?.filled(count);
    this.#receiving = false;
    this.#queue.flush();
  }

  /** All that has come is answered, and more may come. */
  get awaitsPeer(): boolean {
    return this.#connection?.awaitsClient === true && this.#queue.backlog === 0;
  }

  send(bytes: Uint8Array): void {
    if (this.#socket.destroyed || this.#ending) return;
    // What is released with it may follow it.
    if (this.#queue.isLong) this.#queue.flush();
    this.#queue.put(bytes);
    if (this.#receiving || this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#queue.flush();
    });
  }

  release(block: Uint8Array): void {
    this.#queue.release(block);
    if (this.#queue.isLong) this.#queue.flush();
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

  /** What was sent leaves first, so that the client sees it in the clear. */
  startTls(): void {
    this.#queue.flush();
    this.#startTls?.();
  }

  end(): void {
    if (this.#ending) return;
    this.#queue.flush();
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
    this.#queue.clear();
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
}
