/** An NBD server that dies, with everything that was not flushed, when a connection has carried so many bytes. */
import { connect, createServer, type Server, type Socket } from "node:net";
import { openRaw } from "../../src/formats/raw/device.js";
import type { NbdService } from "../../src/servers/nbd/service.js";
import { ForwardingStorage } from "../../src/storage/forwarding-storage.js";
import { type MemoryStorage, memoryStorage } from "../../src/storage/memory-storage.js";
import { startNbdService } from "./nbd-service.js";

export type Direction = "to server" | "to client";

/** Ends a connection when exactly `bytes` have passed in one direction. */
export interface Cut {
  readonly direction: Direction;
  readonly bytes: number;
}

/** Keeps what was there at the last flush. */
class VolatileStorage extends ForwardingStorage {
  readonly #cache: MemoryStorage;
  durable: MemoryStorage;

  constructor(cache: MemoryStorage) {
    super(cache);
    this.#cache = cache;
    this.durable = cache.clone();
  }

  override flush(): undefined {
    this.durable = this.#cache.clone();
  }
}

export class DyingNbdServer {
  /** Those that are still to come: the first is for the next connection. */
  readonly #cuts: Cut[];
  readonly #folder: (name: string) => string;
  readonly #front: Server;
  readonly #sockets = new Set<Socket>();
  readonly #services: NbdService[] = [];
  #disk: VolatileStorage;
  #current: Promise<string>;
  /** Cuts that were made. */
  made = 0;
  /** Bytes that the latest connection has carried. */
  carried: Record<Direction, number> = { "to server": 0, "to client": 0 };

  private constructor(folder: (name: string) => string, size: number, cuts: readonly Cut[]) {
    this.#folder = folder;
    this.#cuts = [...cuts];
    this.#disk = new VolatileStorage(memoryStorage(size));
    this.#current = this.#start();
    this.#front = createServer((client) => void this.#current.then((path) => this.#join(client, connect(path))));
  }

  /** Serves `size` zeros at the socket `folder("front")`. */
  static async listen(folder: (name: string) => string, size: number, cuts: readonly Cut[]): Promise<DyingNbdServer> {
    const server = new DyingNbdServer(folder, size, cuts);
    await server.#current;
    await new Promise<void>((resolve) => server.#front.listen(folder("front"), resolve));
    return server;
  }

  /** What would be left if it died now. */
  get durable(): Uint8Array {
    return this.#disk.durable.bytes();
  }

  async close(): Promise<void> {
    this.#front.close();
    for (const socket of this.#sockets) socket.destroy();
    await this.#current;
    for (const service of this.#services) await service.close();
  }

  async #start(): Promise<string> {
    const path = this.#folder(`${this.#services.length}-behind`);
    this.#services.push(await startNbdService(path, openRaw(this.#disk)));
    return path;
  }

  /** The next server finds what was durable. The one before works on for nobody. */
  #die(): void {
    this.made += 1;
    this.#disk = new VolatileStorage(this.#disk.durable.clone());
    this.#current = this.#start();
    for (const socket of this.#sockets) socket.destroy();
  }

  #join(client: Socket, server: Socket): void {
    const cut = this.#cuts.shift();
    for (const socket of [client, server]) {
      this.#sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        this.#sockets.delete(socket);
        client.destroy();
        server.destroy();
      });
    }
    this.carried = { "to server": 0, "to client": 0 };
    this.#pass(client, server, "to server", cut);
    this.#pass(server, client, "to client", cut);
  }

  #pass(from: Socket, to: Socket, direction: Direction, cut: Cut | undefined): void {
    const { carried } = this;
    let left = cut?.direction === direction ? cut.bytes : Number.POSITIVE_INFINITY;
    from.on("data", (chunk: Buffer) => {
      if (left === 0 || to.destroyed) return;
      const passed = Math.min(left, chunk.length);
      left -= passed;
      carried[direction] += passed;
      to.write(chunk.subarray(0, passed), () => {
        // What was passed on has left.
        if (left === 0) this.#die();
      });
    });
  }
}
