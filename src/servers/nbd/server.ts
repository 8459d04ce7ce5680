import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { boundSocketPath } from "../../host/bound-socket.js";
import { NbdConnection } from "../../protocols/nbd/connection.js";
import type { NbdTarget } from "../../protocols/nbd/target.js";
import { BusyPoll } from "../busy-poll.js";
import { DirectSocket } from "../direct-socket.js";
import { bracketed } from "../nvme-tcp/listening.js";
import type { Logger } from "../nvme-tcp/logger.js";
import { readIntoOwnBuffer } from "../nvme-tcp/socket-reading.js";
import { EagerReader } from "./eager-reader.js";
import { type ListenAddress, listenOn } from "./listen-address.js";
import { RequestRhythm } from "./request-rhythm.js";
import type { NbdServerLimits } from "./server-limits.js";
import { SocketStream } from "./socket-stream.js";
import type { TlsAcceptor } from "./tls-acceptor.js";

export interface NbdServerOptions {
  readonly target: NbdTarget;
  readonly addresses: readonly ListenAddress[];
  readonly limits: NbdServerLimits;
  readonly log: Logger;
  readonly tls?: TlsAcceptor;
  /** A client that had chosen an export has gone; `left` clients are still there. */
  readonly onClientGone?: (left: number) => void;
}

/** A socket without a path that whoever started this process listens at. */
export interface HandedOver {
  readonly descriptor: number;
}

/** What the server has seen since it started. */
export interface NbdServerCounters {
  connectionsAccepted: number;
  /** Turned away: a limit was reached. */
  connectionsRefused: number;
  tlsFailures: number;
}

/** Accepts connections for a target. */
export class NbdServer {
  readonly counters: NbdServerCounters = { connectionsAccepted: 0, connectionsRefused: 0, tlsFailures: 0 };
  readonly #options: NbdServerOptions;
  readonly #servers: Server[] = [];
  readonly #sockets = new Set<Socket>();
  readonly #connections = new Set<NbdConnection>();
  readonly #waiting: Socket[] = [];
  readonly #poll = new BusyPoll();
  readonly #rhythm = new RequestRhythm();
  #serving = 0;

  private constructor(options: NbdServerOptions) {
    this.#options = options;
  }

  /** Starts to listen. Fails with `ADDRESS_IN_USE` or `ADDRESS_UNAVAILABLE`. */
  static async listen(options: NbdServerOptions): Promise<NbdServer> {
    const nbd = new NbdServer(options);
    try {
      for (const address of options.addresses) {
        // Paused: nothing may be read before it is known into which memory.
        const server = createServer({ noDelay: true, pauseOnConnect: true }, (socket) => nbd.#accept(socket));
        await listenOn(server, address);
        nbd.#servers.push(server);
      }
    } catch (error) {
      nbd.stopAccepting();
      throw error;
    }
    return nbd;
  }

  /** Where it listens: TCP addresses, paths, and the descriptors of sockets that were handed over and have no path. */
  get addresses(): readonly (AddressInfo | string | HandedOver)[] {
    return this.#servers.flatMap<AddressInfo | string | HandedOver>((server, index) => {
      const address = server.address();
      if (address !== null) return [address];
      const wish = this.#options.addresses[index];
      if (wish?.kind !== "descriptor" || !server.listening) return [];
      return [boundSocketPath(wish.fd) ?? { descriptor: wish.fd }];
    });
  }

  /** Connections, those that wait included. */
  get connections(): number {
    return this.#sockets.size;
  }

  /** Takes no more connections. Those that are there stay. */
  stopAccepting(): void {
    for (const server of this.#servers) if (server.listening) server.close();
    for (const socket of this.#waiting.splice(0)) socket.destroy();
  }

  /** Ends the connections there are. */
  endConnections(reason: string): void {
    for (const connection of this.#connections) connection.end(reason);
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
    const { limits, log } = this.#options;
    // A peer may reset the connection at any time.
    socket.on("error", () => undefined);
    if (this.#sockets.size >= limits.connections) {
      this.counters.connectionsRefused += 1;
      log.warn("connection-limit", { peer: peerName(socket), connections: this.#sockets.size });
      socket.destroy();
      return;
    }
    this.counters.connectionsAccepted += 1;
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    if (limits.clients > 0 && this.#serving >= limits.clients) this.#wait(socket);
    else this.#serve(socket);
  }

  /** As with the stock server, a client too many hears nothing until another leaves. */
  #wait(socket: Socket): void {
    this.#waiting.push(socket);
    socket.once("close", () => {
      const at = this.#waiting.indexOf(socket);
      if (at >= 0) this.#waiting.splice(at, 1);
    });
  }

  #serve(accepted: Socket): void {
    this.#serving += 1;
    accepted.once("close", () => {
      this.#serving -= 1;
      const next = this.#waiting.shift();
      if (next !== undefined) this.#serve(next);
    });
    const { tls, target } = this.#options;
    const peer = peerName(accepted);
    // Reads happen in later turns, when the stream is there.
    const receive = (chunk: Uint8Array): void => {
      stream.receive(chunk);
      if (reader === undefined) this.#poll.noteRequest();
      else reader.follow();
    };
    // TLS reads for itself.
    const own = tls === undefined ? readIntoOwnBuffer(accepted, receive) : undefined;
    const socket = own ?? accepted;
    const startTls = tls === undefined ? undefined : () => this.#secure(tls, accepted, stream, peer);
    const direct = own && DirectSocket.over(own);
    const stream = new SocketStream(socket, target.buffers, direct, startTls);
    const reader = direct && new EagerReader(direct, stream, this.#rhythm, this.#poll);
    const connection = new NbdConnection(target, stream, { address: peer }, (ended) => this.#ended(ended));
    this.#connections.add(connection);
    stream.attach(connection);
    if (own !== undefined) return;
    accepted.on("data", receive);
    accepted.resume();
  }

  #secure(tls: TlsAcceptor, socket: Socket, stream: SocketStream, peer: string): void {
    socket.removeAllListeners("data");
    tls.accept(
      socket,
      (secure) => {
        secure.on("data", (chunk: Uint8Array) => stream.receive(chunk));
        stream.useSocket(secure);
      },
      (reason) => {
        this.counters.tlsFailures += 1;
        this.#options.log.warn("tls-refused", { peer, reason });
        socket.destroy();
      },
    );
  }

  #ended(connection: NbdConnection): void {
    this.#connections.delete(connection);
    if (!connection.negotiated) return;
    const left = [...this.#connections].filter((one) => one.negotiated).length;
    this.#options.onClientGone?.(left);
  }
}

function peerName(socket: Socket): string {
  const { remoteAddress, remotePort } = socket;
  return remoteAddress === undefined ? "unix" : `${bracketed(remoteAddress)}:${remotePort ?? 0}`;
}
