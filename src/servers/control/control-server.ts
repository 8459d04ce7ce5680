import { createServer, type Server, type Socket } from "node:net";
import { isZcowError, ZcowError } from "../../base/errors.js";
import { removeDeadSocket, unusablePath } from "../socket-path.js";
import { LONGEST_LINE, readLines } from "./line-channel.js";

/** Carries out one request; what it throws is told to whoever asked. */
export type ControlHandler = (request: unknown) => Promise<unknown>;

const MOST_CONNECTIONS = 16;
/** Requests of one connection that may wait for their turn. */
const MOST_WAITING = 64;
/** Nobody but the owner may connect. */
const OWNER_ONLY = 0o177;

/**
 * A Unix socket for administrators: a JSON object per line as request, a JSON object per line as answer, in
 * order: `{"result": …}` or `{"error": {"code", "message"}}`.
 */
export class ControlServer {
  readonly #server: Server;
  readonly #handler: ControlHandler;
  readonly #sockets = new Set<Socket>();

  private constructor(handler: ControlHandler) {
    this.#handler = handler;
    this.#server = createServer((socket) => this.#accept(socket));
    this.#server.maxConnections = MOST_CONNECTIONS;
  }

  /**
   * Listens at `path`, which only this user can use. A socket file that no server listens at any more is replaced. Fails
   * with `ADDRESS_IN_USE` or `ADDRESS_UNAVAILABLE`.
   */
  static async listen(path: string, handler: ControlHandler): Promise<ControlServer> {
    await removeDeadSocket(path);
    const control = new ControlServer(handler);
    await control.#listen(path);
    return control;
  }

  /** Removes the socket file as well. */
  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #listen(path: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", (error: NodeJS.ErrnoException) => reject(unusablePath(path, error)));
      const mask = process.umask(OWNER_ONLY);
      try {
        this.#server.listen({ path }, resolve);
      } finally {
        process.umask(mask);
      }
    });
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("error", () => undefined);
    let waiting = 0;
    let turn = Promise.resolve();
    const answer = async (line: string): Promise<void> => {
      const reply = await this.#answer(line);
      waiting--;
      if (!socket.destroyed) socket.write(`${JSON.stringify(reply)}\n`);
    };
    const refuse = (why: string): void => {
      socket.end(`${JSON.stringify(errorReply(new ZcowError("CONTROL_PROTOCOL", why)))}\n`);
    };
    readLines(
      socket,
      LONGEST_LINE,
      (line) => {
        waiting++;
        if (waiting > MOST_WAITING) return refuse(`more than ${MOST_WAITING} requests wait for an answer`);
        turn = turn.then(() => answer(line));
      },
      () => refuse(`a request is longer than ${LONGEST_LINE} bytes`),
    );
  }

  async #answer(line: string): Promise<object> {
    try {
      return { result: await this.#handler(parsed(line)) };
    } catch (error) {
      return errorReply(error);
    }
  }
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line) as unknown;
  } catch {
    throw new ZcowError("CONTROL_PROTOCOL", "a request is not JSON");
  }
}

function errorReply(error: unknown): object {
  const code = isZcowError(error) ? error.code : "IO_ERROR";
  return { error: { code, message: error instanceof Error ? error.message : String(error) } };
}
