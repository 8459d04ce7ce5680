import type { Socket } from "node:net";
import { NOTHING_YET, PEER_ENDED, SocketCalls } from "../host/socket-calls.js";

export { NOTHING_YET, PEER_ENDED };

/** What Node keeps in a socket without telling: the operating system's handle. */
const HANDLE = "_handle";
interface SocketWithHandle {
  [HANDLE]?: { readonly fd?: unknown } | null;
}

/** What Node reports for a handle without a descriptor is negative. */
const isDescriptor = (fd: unknown): fd is number => typeof fd === "number" && fd > 2;

/**
 * A socket, past the stream that Node makes of it. The stream goes on watching it, and whoever uses this must keep the order
 * of bytes: send nothing while the stream holds some, take nothing while it is paused. Nothing here waits.
 */
export class DirectSocket {
  readonly #socket: Socket;
  readonly #fd: number;
  readonly #calls: SocketCalls;

  private constructor(socket: Socket, fd: number, calls: SocketCalls) {
    this.#socket = socket;
    this.#fd = fd;
    this.#calls = calls;
  }

  /** `socket` carries bytes as they are (no TLS). Undefined without the native helper, or a descriptor. */
  static over(socket: Socket): DirectSocket | undefined {
    const fd = (socket as unknown as SocketWithHandle)[HANDLE]?.fd;
    if (!isDescriptor(fd)) return undefined;
    const calls = SocketCalls.load();
    return calls && new DirectSocket(socket, fd, calls);
  }

  /** Bytes now in `into` (and, behind it, in `rest`), {@link NOTHING_YET} or {@link PEER_ENDED}. Destroys a socket that fails. */
  receive(into: Uint8Array, rest?: Uint8Array): number {
    // Its descriptor may belong to somebody else by now.
    if (this.#socket.destroyed) return PEER_ENDED;
    try {
      if (rest === undefined) return this.#calls.receive(this.#fd, into);
      return this.#calls.receiveInto(this.#fd, into, rest);
    } catch (error) {
      this.#socket.destroy(error as Error);
      return PEER_ENDED;
    }
  }

  /** How many of the bytes the kernel has taken. `more`: others follow at once. */
  send(bytes: Uint8Array, more: boolean): number {
    return this.#socket.destroyed ? 0 : this.#calls.send(this.#fd, bytes, more);
  }

  yieldProcessor(): void {
    this.#calls.yieldProcessor();
  }
}
