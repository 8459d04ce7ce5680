/** A client of an NBD server that asks, and takes the answers only when it is told to. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { goData, NBD_CMD, NBD_OPT, optionBytes, requestBytes } from "./nbd-pipe.js";

const GREETING_BYTES = 18;
const OPTION_REPLY_BYTES = 20;
const SIMPLE_REPLY_BYTES = 16;
const OPTION_REPLY_MAGIC = 0x3e889045565a9n;
const ACK = 1;

export class SlowNbdClient {
  readonly #socket: Socket;
  #asked = 0;
  #received: Buffer[] = [];
  #receivedBytes = 0;
  gone = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("close", () => {
      this.gone = true;
    });
  }

  /** Connects to the unnamed export at a Unix socket. From then on nothing is read. */
  static async connect(path: string): Promise<SlowNbdClient> {
    const socket = connect(path);
    // What befalls it shows in `gone`.
    socket.on("error", () => undefined);
    await once(socket, "connect");
    const client = new SlowNbdClient(socket);
    const flags = Buffer.from([0, 0, 0, 3]);
    socket.write(Buffer.concat([flags, optionBytes(NBD_OPT.go, goData(""))]));
    let said = Buffer.alloc(0);
    while (!isAgreed(said)) {
      await once(socket, "readable");
      said = Buffer.concat([said, socket.read() as Buffer]);
    }
    return client;
  }

  /** Asks for `length` bytes at `offset`. */
  read(offset: number, length: number): void {
    this.#socket.write(requestBytes(false, NBD_CMD.read, BigInt(offset), BigInt(length), 0, BigInt(++this.#asked)));
  }

  /** Announces a write of `length` bytes, and sends `data`, which may be less. */
  write(offset: number, length: number, data: Uint8Array): void {
    const head = requestBytes(false, NBD_CMD.write, BigInt(offset), BigInt(length), 0, BigInt(++this.#asked));
    this.#socket.write(Buffer.concat([head, data]));
  }

  /** Resolves when the kernel has taken everything that was sent. */
  async sent(): Promise<void> {
    if (this.#socket.writableLength > 0) await once(this.#socket, "drain");
  }

  /** Begins to take answers. */
  startReading(): void {
    this.#socket.on("data", (chunk: Buffer) => {
      this.#received.push(chunk);
      this.#receivedBytes += chunk.length;
    });
  }

  /** The data of the next reply to a read of `length` bytes, after {@link startReading}. */
  async answer(length: number): Promise<Buffer> {
    while (this.#receivedBytes < SIMPLE_REPLY_BYTES + length) {
      if (this.gone) throw new Error(`the connection ended after ${this.#receivedBytes} bytes of a reply`);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const all = Buffer.concat(this.#received);
    const error = all.readUInt32BE(4);
    if (error !== 0) throw new Error(`the server answered with error ${error}`);
    const end = SIMPLE_REPLY_BYTES + length;
    this.#received = [all.subarray(end)];
    this.#receivedBytes = all.length - end;
    return all.subarray(SIMPLE_REPLY_BYTES, end);
  }

  end(): void {
    this.#socket.destroy();
  }
}

/** The last option reply says that the export was chosen. */
function isAgreed(said: Buffer): boolean {
  const at = said.length - OPTION_REPLY_BYTES;
  return at >= GREETING_BYTES && said.readBigUInt64BE(at) === OPTION_REPLY_MAGIC && said.readUInt32BE(at + 12) === ACK;
}
