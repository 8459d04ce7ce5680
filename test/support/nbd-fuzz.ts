/** Messages of NBD clients and servers, spoilt at random; neither end may throw, hang, or hold more than its bounds. */
import { ZcowError } from "../../src/base/errors.js";
import { openRaw } from "../../src/formats/raw/device.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { ClientSession, type SessionHooks } from "../../src/storage/nbd/client-session.js";
import {
  listExports,
  type NegotiatedExport,
  type NegotiationStream,
  negotiate,
} from "../../src/storage/nbd/negotiation.js";
import { goData, metaData, NBD_CMD, NBD_OPT, type NbdClient, nbdBench, optionBytes, requestBytes } from "./nbd-pipe.js";
import { memoryImage } from "./nvme-pipe.js";
import { Random } from "./random.js";

const SIZE = 1 << 20;

export interface FuzzOutcome {
  readonly messages: number;
  /** Connections that the other end gave up: mutations that mattered. */
  readonly ended: number;
  readonly internalErrors: number;
  /** Bytes that this process has grown by at most. */
  readonly growth: number;
}

/** Watches how large this process becomes. */
class Growth {
  readonly #before = process.memoryUsage.rss();
  bytes = 0;

  look(): void {
    this.bytes = Math.max(this.bytes, process.memoryUsage.rss() - this.#before);
  }
}

/** Mutated options and requests against the server. */
export async function fuzzServer(messages: number, seed: number): Promise<FuzzOutcome> {
  const random = new Random(seed);
  const below = (limit: number): number => random.below(limit);
  const device = await memoryImage({ size: SIZE });
  const raw = openRaw(memoryStorage(new Uint8Array(SIZE)));
  const bench = nbdBench({ "": device, raw }, { export: { resizable: true } });
  const growth = new Growth();
  let done = 0;
  let ended = 0;
  while (done < messages) {
    const client = bench.open().flags(3);
    const extended = below(3) === 0;
    const script = [
      optionBytes(extended ? NBD_OPT.extended : NBD_OPT.structured, Buffer.alloc(0)),
      optionBytes(NBD_OPT.setMeta, metaData("", ["base:allocation", "qemu:"])),
      optionBytes(NBD_OPT.list, Buffer.alloc(0)),
      optionBytes(NBD_OPT.go, goData(below(2) === 0 ? "" : "raw", [3])),
    ];
    // Most connections reach the requests unharmed.
    const firstSpoilt = below(4) === 0 ? 0 : script.length;
    for (let index = 0; index < 24; index++) {
      const type = below(9);
      const length = type === NBD_CMD.resize && below(4) > 0 ? 0 : below(5000);
      const head = requestBytes(
        extended,
        type,
        BigInt(type === NBD_CMD.resize ? SIZE + 512 * below(64) : below(SIZE)),
        BigInt(length),
        type === 1 && extended ? 32 : 0,
        BigInt(index),
      );
      script.push(type === NBD_CMD.write ? Buffer.concat([head, Buffer.alloc(length, index)]) : head);
    }
    for (const [index, message] of script.entries()) {
      if (client.pipe.ended) break;
      if (index >= firstSpoilt && below(3) === 0) spoil(message, below);
      client.pipe.write(message, below(4) === 0 ? 1 + below(50) : undefined);
      client.pipe.sent.length = 0;
      done += 1;
    }
    await new Promise((resolve) => setImmediate(resolve));
    if (client.pipe.ended) ended += 1;
    client.pipe.connection?.disconnected();
    growth.look();
  }
  await device.close();
  const internalErrors = bench.events.filter(({ kind }) => kind === "internal-error").length;
  return { messages: done, ended, internalErrors, growth: growth.bytes };
}

/** Mutated replies to requests against the client. */
export async function fuzzClient(messages: number, seed: number): Promise<FuzzOutcome> {
  const random = new Random(seed);
  const below = (limit: number): number => random.below(limit);
  const device = await memoryImage({ size: SIZE });
  const bench = nbdBench({ "": device });
  const growth = new Growth();
  let done = 0;
  let ended = 0;
  let internalErrors = 0;
  while (done < messages) {
    const form = (["simple", "structured", "extended"] as const)[below(3)] ?? "simple";
    const server = bench.open();
    server.go("", form, form === "simple" ? [] : ["base:allocation"]);
    const negotiated: NegotiatedExport = {
      size: SIZE,
      flags: 0xfff,
      description: undefined,
      blockSizes: undefined,
      form,
      allocationContext: form === "simple" ? undefined : 0,
    };
    const link = { broken: false };
    const hooks: SessionHooks = {
      send: (bytes) => server.pipe.write(bytes),
      broken: () => {
        link.broken = true;
      },
    };
    const session = new ClientSession("fuzz", negotiated, hooks);
    const waits: Promise<unknown>[] = [];
    for (let index = 0; index < 24 && !link.broken; index++) {
      const length = 1 + below(5000);
      const offset = below(SIZE - length);
      const types = [
        NBD_CMD.read,
        NBD_CMD.write,
        NBD_CMD.flush,
        NBD_CMD.zeroes,
        ...(form === "simple" ? [] : [NBD_CMD.status]),
      ];
      const type = types[below(types.length)] ?? 0;
      const data =
        type === NBD_CMD.read
          ? { into: new Uint8Array(length) }
          : type === NBD_CMD.write
            ? { from: new Uint8Array(length) }
            : {};
      waits.push(
        session
          .request({ type, flags: 0, offset, length: type === NBD_CMD.flush ? 0 : length, ...data })
          .catch(() => undefined),
      );
      await new Promise((resolve) => setImmediate(resolve));
      const reply = server.pipe.read();
      if (below(3) === 0 && reply.length > 0) spoil(reply, below);
      try {
        session.receive(reply);
      } catch {
        internalErrors += 1;
      }
      done += 1;
    }
    if (link.broken) ended += 1;
    session.abandon(new Error("the end of the round"));
    // Whatever was said, no request may be left without an end.
    await Promise.all(waits);
    server.pipe.connection?.disconnected();
    growth.look();
  }
  await device.close();
  return { messages: done, ended, internalErrors, growth: growth.bytes };
}

/** A server's side of the handshake whose messages may be spoilt. It ends when it is waited for in vain. */
class SpoiltStream implements NegotiationStream {
  readonly #server: NbdClient;
  readonly #spoil: (message: Uint8Array) => void;
  #unread: Uint8Array;
  messages = 1;

  constructor(server: NbdClient, spoil: (message: Uint8Array) => void) {
    this.#server = server;
    this.#spoil = spoil;
    this.#unread = Uint8Array.from(server.greeting);
    spoil(this.#unread);
  }

  take(length: number): Promise<Uint8Array> {
    if (length > this.#unread.length) return Promise.reject(new ZcowError("REMOTE_LOST", "the server has ended", {}));
    const taken = this.#unread.slice(0, length);
    this.#unread = this.#unread.slice(length);
    return Promise.resolve(taken);
  }

  send(bytes: Uint8Array): void {
    if (this.#server.pipe.ended) return;
    this.#server.pipe.write(bytes);
    const replies = Uint8Array.from(this.#server.pipe.read());
    if (replies.length > 0) this.#spoil(replies);
    this.messages += 1;
    this.#unread = Buffer.concat([this.#unread, replies]);
  }

  startTls(): Promise<void> {
    return Promise.resolve();
  }
}

/** Mutated greetings and replies to options against the client. */
export async function fuzzNegotiation(messages: number, seed: number): Promise<FuzzOutcome> {
  const random = new Random(seed);
  const below = (limit: number): number => random.below(limit);
  const device = await memoryImage({ size: SIZE });
  const bench = nbdBench({ "": device, other: device }, { export: { description: "a disk" } });
  const growth = new Growth();
  let done = 0;
  let ended = 0;
  let internalErrors = 0;
  while (done < messages) {
    const server = bench.open();
    const stream = new SpoiltStream(server, (message) => {
      if (below(6) === 0) spoil(message, below, message.length);
    });
    const options = { uri: "fuzz", tls: below(8) === 0 };
    const work =
      below(3) === 0 ? listExports(stream, options) : negotiate(stream, below(2) === 0 ? "" : "other", options);
    await Promise.resolve(work).catch((error: unknown) => {
      ended += 1;
      if (!(error instanceof ZcowError)) internalErrors += 1;
    });
    done += stream.messages;
    server.pipe.connection?.disconnected();
    growth.look();
  }
  await device.close();
  return { messages: done, ended, internalErrors, growth: growth.bytes };
}

/** Changes some of the first `reach` bytes: where the header is, unless told otherwise. */
function spoil(message: Uint8Array, below: (limit: number) => number, reach = 40): void {
  for (let count = 1 + below(3); count > 0; count--) {
    const at = below(Math.min(message.length, reach));
    message[at] = [0, 0xff, 0x7f, 0x80, below(256), (message[at] ?? 0) ^ (1 << below(8))][below(6)] ?? 0;
  }
}
