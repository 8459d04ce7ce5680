/** One connection to a server: socket, TLS, handshake, then a session. */
import { connect, type Socket } from "node:net";
import { ZcowError } from "../../base/errors.js";
import { MiB } from "../../base/units.js";
import { ClientSession, type RemoteExtent, type Request } from "./client-session.js";
import type { NbdAddress } from "./nbd-uri.js";
import {
  type ListedExport,
  listExports,
  type NegotiatedExport,
  type NegotiationStream,
  negotiate,
} from "./negotiation.js";
import { secureSocket } from "./tls-client.js";

/** Milliseconds for connecting, TLS and the handshake together. */
const SETUP_MILLISECONDS = 10_000;
/** Milliseconds for the server to close its side after our farewell. */
const FAREWELL_MILLISECONDS = 1_000;
/** Bytes that may come in before the handshake asks for them. */
const UNREAD_BYTES = MiB;

/** Connects, does the handshake, and gives the link to the export. Fails with `REMOTE_*`. */
export async function openLink(address: NbdAddress): Promise<ClientLink> {
  const stream = await HandshakeStream.connect(address);
  try {
    const { uri, exportName, tls } = address;
    const negotiated = await negotiate(stream, exportName, { uri, tls: tls !== undefined });
    return new ClientLink(address, negotiated, stream);
  } catch (error) {
    stream.destroy();
    throw error;
  } finally {
    stream.settled();
  }
}

/** The exports of the server at `address`. Fails with `REMOTE_*`. */
export async function listRemoteExports(address: NbdAddress): Promise<ListedExport[]> {
  const stream = await HandshakeStream.connect(address);
  try {
    return await listExports(stream, { uri: address.uri, tls: address.tls !== undefined });
  } finally {
    stream.settled();
    stream.end();
  }
}

export class ClientLink {
  readonly negotiated: NegotiatedExport;
  /** Resolves, with the reason, when the connection is gone. */
  readonly gone: Promise<ZcowError>;
  readonly #session: ClientSession;
  readonly #socket: Socket;
  #alive = true;

  constructor(address: NbdAddress, negotiated: NegotiatedExport, stream: HandshakeStream) {
    this.negotiated = negotiated;
    const socket = stream.socket;
    this.#socket = socket;
    let corked = false;
    this.#session = new ClientSession(address.uri, negotiated, {
      // What one turn asks for leaves in one write.
      send: (bytes) => {
        if (!corked) {
          corked = true;
          socket.cork();
          setImmediate(() => {
            corked = false;
            socket.uncork();
          });
        }
        socket.write(bytes);
      },
      broken: (error) => socket.destroy(error),
    });
    this.gone = new Promise((resolve) => {
      let cause: Error | undefined;
      socket.on("error", (error) => {
        cause = error;
      });
      socket.on("end", () => socket.destroy());
      socket.once("close", () => {
        const error = cause instanceof ZcowError ? cause : lost(address.uri, cause);
        this.#alive = false;
        resolve(error);
        this.#session.abandon(error);
      });
    });
    stream.handOver((chunk) => this.#session.receive(chunk));
  }

  get outstanding(): number {
    return this.#session.outstanding;
  }

  request(request: Request): Promise<readonly RemoteExtent[]> {
    return this.#session.request(request);
  }

  /** Ends the connection at once; requests without an answer fail. */
  drop(): void {
    this.#socket.destroy();
  }

  async close(): Promise<void> {
    if (!this.#alive) return;
    this.#session.leave();
    this.#socket.end();
    const timer = setTimeout(() => this.#socket.destroy(), FAREWELL_MILLISECONDS);
    await this.gone;
    clearTimeout(timer);
  }
}

/** A socket that is read as much as the handshake needs. */
class HandshakeStream implements NegotiationStream {
  readonly #address: NbdAddress;
  readonly #timer: NodeJS.Timeout;
  #socket: Socket;
  #unread = Buffer.alloc(0);
  #failure: ZcowError | undefined;
  #wake: (() => void) | undefined;

  private constructor(address: NbdAddress, socket: Socket) {
    this.#address = address;
    this.#socket = socket;
    this.#timer = setTimeout(() => this.#fail(new Error("the handshake took too long")), SETUP_MILLISECONDS);
    this.#listen();
  }

  static async connect(address: NbdAddress): Promise<HandshakeStream> {
    return new HandshakeStream(address, await connectSocket(address));
  }

  get socket(): Socket {
    return this.#socket;
  }

  async take(length: number): Promise<Uint8Array> {
    while (this.#unread.length < length) {
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const taken = this.#unread.subarray(0, length);
    this.#unread = this.#unread.subarray(length);
    return taken;
  }

  send(bytes: Uint8Array): void {
    if (!this.#socket.destroyed) this.#socket.write(bytes);
  }

  async startTls(): Promise<void> {
    if (this.#unread.length > 0) throw lost(this.#address.uri, new Error("bytes came in the clear before TLS"));
    this.#socket.removeAllListeners();
    this.#socket = await secureSocket(this.#socket, this.#address);
    this.#socket.removeAllListeners("close");
    this.#listen();
  }

  /** From now on, and for what was not read yet, `receive` gets the bytes. */
  handOver(receive: (chunk: Uint8Array) => void): void {
    this.#socket.removeAllListeners("data");
    const unread = this.#unread;
    this.#unread = Buffer.alloc(0);
    this.#socket.on("data", receive);
    if (unread.length > 0) receive(unread);
  }

  settled(): void {
    clearTimeout(this.#timer);
  }

  end(): void {
    this.#socket.end();
    this.#socket.unref();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #listen(): void {
    this.#socket.on("data", (chunk: Buffer) => {
      this.#unread = Buffer.concat([this.#unread, chunk]);
      if (this.#unread.length > UNREAD_BYTES) this.#fail(new Error("more comes in than was asked for"));
      this.#awake();
    });
    this.#socket.on("error", (error) => this.#fail(error));
    this.#socket.on("close", () => this.#fail(new Error("the server closed the connection")));
  }

  #fail(cause: Error): void {
    this.#failure ??= lost(this.#address.uri, cause);
    this.#socket.destroy();
    this.#awake();
  }

  #awake(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}

function connectSocket({ uri, where }: NbdAddress): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const name = where.kind === "unix" ? where.path : `${where.host}:${where.port}`;
    const socket =
      where.kind === "unix" ? connect(where.path) : connect({ host: where.host, port: where.port, noDelay: true });
    const timer = setTimeout(() => socket.destroy(new Error("no answer")), SETUP_MILLISECONDS);
    socket.once("connect", () => {
      clearTimeout(timer);
      socket.removeAllListeners("error");
      resolve(socket);
    });
    socket.once("error", (cause: NodeJS.ErrnoException) => {
      clearTimeout(timer);
      const errno = cause.code === undefined ? {} : { errno: cause.code };
      const words = { ECONNREFUSED: "Connection refused", ENOENT: "No such file or directory" }[cause.code ?? ""];
      reject(
        new ZcowError("REMOTE_UNREACHABLE", `${uri}: cannot connect to ${name}: ${words ?? cause.message}`, {
          data: { path: uri, ...errno },
          cause,
          stockText: `Failed to connect to '${name}': ${words ?? cause.message}`,
        }),
      );
    });
  });
}

function lost(uri: string, cause: Error | undefined): ZcowError {
  const why = cause === undefined ? "the server closed it" : cause.message;
  return new ZcowError("REMOTE_LOST", `${uri}: the connection was lost: ${why}`, { data: { path: uri }, cause });
}
