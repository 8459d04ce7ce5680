import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import type { DataBuffers } from "../../protocols/nvme/data-buffers.js";
import { COMMON } from "../../protocols/nvme/pdu/pdu-format.js";
import type { PeerInfo, Transport, TransportListener } from "../../protocols/nvme/transport.js";
import { BusyPoll } from "../busy-poll.js";
import { DirectSocket } from "../direct-socket.js";
import { bracketed, listenAt } from "./listening.js";
import type { Logger } from "./logger.js";
import type { ServerLimits } from "./server-limits.js";
import { readIntoOwnBuffer } from "./socket-reading.js";
import { SocketTransport } from "./socket-transport.js";
import { TlsAcceptor, type TlsKeys } from "./tls-accepting.js";

export interface NvmeTcpServerOptions {
  /** Serves a new connection. */
  readonly accept: (transport: Transport, peer: PeerInfo) => TransportListener;
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  readonly limits: ServerLimits;
  readonly log: Logger;
  /** Where memory goes that connections give back. */
  readonly pool: DataBuffers;
  /** Called before answers leave; see `SocketTransport`. */
  readonly beforeSending?: () => void;
  /** With keys, every connection must be TLS. */
  readonly tls?: TlsKeys;
}

/** What the server has seen since it started. */
export interface ServerCounters {
  connectionsAccepted: number;
  /** Turned away: a limit was reached. */
  connectionsRefused: number;
  /** TLS handshakes that failed. */
  tlsFailures: number;
  /** Of connections that have ended. */
  bytesReceived: number;
  bytesSent: number;
}

/** Accepts TCP connections for a target. */
export class NvmeTcpServer {
  readonly #options: NvmeTcpServerOptions;
  readonly #server: Server;
  readonly #tls: TlsAcceptor | undefined;
  readonly #sockets = new Set<Socket>();
  readonly #poll = new BusyPoll();
  readonly #transports = new Set<SocketTransport>();
  readonly #perAddress = new Map<string, number>();
  readonly #counters: ServerCounters = {
    connectionsAccepted: 0,
    connectionsRefused: 0,
    tlsFailures: 0,
    bytesReceived: 0,
    bytesSent: 0,
  };

  private constructor(options: NvmeTcpServerOptions) {
    this.#options = options;
    this.#tls = options.tls && new TlsAcceptor(options.tls, options.limits.tlsHandshakeMilliseconds);
    if (this.#tls?.ticketsSuppressed === false) options.log.warn("tls-tickets", { node: process.version });
    // Paused: nothing may be read before it is known into which memory. TLS reads for itself.
    this.#server = createServer({ noDelay: true, pauseOnConnect: this.#tls === undefined }, (socket) =>
      this.#accept(socket),
    );
  }

  /** Starts to listen. Fails with `ADDRESS_IN_USE` or `ADDRESS_UNAVAILABLE`. */
  static async listen(options: NvmeTcpServerOptions): Promise<NvmeTcpServer> {
    const server = new NvmeTcpServer(options);
    await listenAt(server.#server, options.host, options.port);
    return server;
  }

  /** Where it listens. */
  get address(): { readonly host: string; readonly port: number } {
    const { address, port } = this.#server.address() as AddressInfo;
    return { host: address, port };
  }

  get connections(): number {
    return this.#sockets.size;
  }

  /** Counters as they are now, connections that are there included. */
  counters(): Readonly<ServerCounters> {
    const now = { ...this.#counters };
    for (const transport of this.#transports) {
      now.bytesReceived += transport.bytesReceived;
      now.bytesSent += transport.bytesSent;
    }
    return now;
  }

  /** Takes no more connections. Those that are there stay. */
  stopAccepting(): void {
    if (this.#server.listening) this.#server.close();
  }

  /** Resolves when no connection is left. */
  async allGone(): Promise<void> {
    while (this.#sockets.size > 0) {
      const [socket] = this.#sockets;
      await new Promise<void>((resolve) => socket?.once("close", () => resolve()) ?? resolve());
    }
  }

  /** Drops whatever connections are left. */
  destroyConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  #accept(socket: Socket): void {
    const address = socket.remoteAddress;
    // Gone already.
    if (address === undefined) return void socket.destroy();
    if (!this.#admit(address)) return void socket.destroy();
    this.#counters.connectionsAccepted++;
    this.#sockets.add(socket);
    socket.once("close", () => {
      this.#sockets.delete(socket);
      this.#leave(address);
    });
    const peer = peerOf(socket);
    // A peer may reset the connection at any time.
    socket.on("error", () => undefined);
    if (this.#tls === undefined) this.#serve(socket, peer);
    else this.#acceptTls(this.#tls, socket, peer);
  }

  #admit(address: string): boolean {
    const { connections, connectionsPerAddress } = this.#options.limits;
    const sameAddress = this.#perAddress.get(address) ?? 0;
    if (this.#sockets.size < connections && sameAddress < connectionsPerAddress) {
      this.#perAddress.set(address, sameAddress + 1);
      return true;
    }
    this.#counters.connectionsRefused++;
    this.#options.log.warn("connection-limit", { peer: address, connections: this.#sockets.size, sameAddress });
    return false;
  }

  #leave(address: string): void {
    const left = (this.#perAddress.get(address) ?? 1) - 1;
    if (left === 0) this.#perAddress.delete(address);
    else this.#perAddress.set(address, left);
  }

  #acceptTls(tls: TlsAcceptor, socket: Socket, peer: PeerInfo): void {
    tls.accept(
      socket,
      (secure, { hostNqn, subsystemNqn }) => {
        const transport = this.#connect(secure, { ...peer, tls: { hostNqn, subsystemNqn } });
        secure.on("data", (chunk: Uint8Array) => transport.receive(chunk));
      },
      (reason) => {
        this.#counters.tlsFailures++;
        this.#options.log.warn("tls-refused", { peer: peer.address, reason });
      },
    );
  }

  /** `accepted` is paused. */
  #serve(accepted: Socket, peer: PeerInfo): void {
    // Reads happen in later turns, when the transport is there.
    const receive = (chunk: Uint8Array, isLast = false): void => {
      transport.receive(chunk, isLast);
      if (isOnePdu(chunk)) this.#poll.noteRequest();
    };
    const own = readIntoOwnBuffer(accepted, receive);
    const transport = this.#connect(own ?? accepted, peer, own && DirectSocket.over(own));
    if (own !== undefined) return;
    accepted.on("data", receive);
    accepted.resume();
  }

  #connect(socket: Socket, peer: PeerInfo, direct?: DirectSocket): SocketTransport {
    const { pool, beforeSending } = this.#options;
    const transport = new SocketTransport(socket, pool, { beforeSending, direct });
    this.#transports.add(transport);
    socket.once("close", () => {
      this.#transports.delete(transport);
      this.#counters.bytesReceived += transport.bytesReceived;
      this.#counters.bytesSent += transport.bytesSent;
    });
    transport.attach(this.#options.accept(transport, peer));
    return transport;
  }
}

/** The chunk is one PDU by its length field: the host sends one command at a time and waits for the answer, as a rule. */
function isOnePdu(chunk: Uint8Array): boolean {
  const at = COMMON.pduLength;
  const low = chunk[at] ?? 0;
  const middle = chunk[at + 1] ?? 0;
  const high = chunk[at + 2] ?? 0;
  return low + 0x100 * middle + 0x10000 * high === chunk.length;
}

function peerOf(socket: Socket): PeerInfo {
  const address = `${bracketed(socket.remoteAddress ?? "?")}:${socket.remotePort ?? 0}`;
  const { localAddress } = socket;
  return localAddress === undefined ? { address } : { address, localAddress };
}
