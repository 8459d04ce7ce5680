/** An NBD server and a client written by hand from the protocol's text, in one process, with time that stands still. */
import type { BlockDevice } from "../../src/block/block-device.js";
import { NbdConnection, type NbdTransport } from "../../src/protocols/nbd/connection.js";
import { NbdExport, type NbdExportOptions } from "../../src/protocols/nbd/export.js";
import { DEFAULT_NBD_LIMITS, type NbdLimits } from "../../src/protocols/nbd/limits.js";
import { depthContext, standardContexts } from "../../src/protocols/nbd/meta-context.js";
import type { NbdEvent, NbdTarget } from "../../src/protocols/nbd/target.js";
import { DataBuffers } from "../../src/protocols/nvme/data-buffers.js";
import { FakeClock } from "./nvme-pipe.js";

export const NBD_OPT = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structured: 8,
  listMeta: 9,
  setMeta: 10,
  extended: 11,
};
export const NBD_CMD = { read: 0, write: 1, disc: 2, flush: 3, trim: 4, cache: 5, zeroes: 6, status: 7, resize: 8 };

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

export interface Chunk {
  readonly kind: "simple" | "structured" | "extended";
  readonly flags: number;
  readonly type: number;
  readonly error: number;
  readonly cookie: bigint;
  /** Extended replies only. */
  readonly offset: bigint;
  readonly payload: Buffer;
}

/** Both ends of a connection in memory. What the server gets is spoilt after each call, as the seam allows. */
export class NbdPipe implements NbdTransport {
  connection: NbdConnection | undefined;
  readonly sent: Uint8Array[] = [];
  paused = false;
  ended = false;
  tlsStarted = false;
  destroyedFor: Error | undefined;
  /** Replies count as unread until `read` takes them. */
  held = false;
  #incoming: Uint8Array[] = [];

  send(bytes: Uint8Array): void {
    if (this.ended) throw new Error("send after end");
    this.sent.push(bytes);
  }

  get backlog(): number {
    return this.held ? this.sent.reduce((sum, bytes) => sum + bytes.length, 0) : 0;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
    queueMicrotask(() => this.#deliver());
  }

  end(): void {
    this.ended = true;
  }

  destroy(reason: Error): void {
    this.destroyedFor = reason;
    this.ended = true;
  }

  startTls(): void {
    this.tlsStarted = true;
  }

  /** Delivers bytes in pieces of `pieces` bytes. */
  write(bytes: Uint8Array, pieces = Number.POSITIVE_INFINITY): void {
    for (let at = 0; at < bytes.length; at += pieces)
      this.#incoming.push(new Uint8Array(bytes.subarray(at, Math.min(at + pieces, bytes.length))));
    this.#deliver();
  }

  /** Everything that was sent so far. */
  read(): Buffer {
    return Buffer.concat(this.sent.splice(0));
  }

  #deliver(): void {
    while (!this.paused && this.#incoming.length > 0) {
      const chunk = this.#incoming.shift() as Uint8Array;
      this.connection?.receive(chunk);
      chunk.fill(0xee);
    }
  }
}

export interface NbdBench {
  readonly target: NbdTarget;
  readonly clock: FakeClock;
  readonly events: NbdEvent[];
  readonly ends: number;
  /** A new connection, greeting read. */
  open(): NbdClient;
}

export function nbdBench(
  devices: Readonly<Record<string, BlockDevice>>,
  options: { limits?: Partial<NbdLimits>; tls?: "off" | "required"; export?: Partial<NbdExportOptions> } = {},
): NbdBench {
  const clock = new FakeClock();
  const events: NbdEvent[] = [];
  const buffers = new DataBuffers((bytes) => new Uint8Array(bytes).fill(0xdd));
  const exports = new Map(
    Object.entries(devices).map(([name, device]) => [
      name,
      new NbdExport({ name, device, ...options.export }, [...standardContexts(device), depthContext(device)]),
    ]),
  );
  const target: NbdTarget = {
    exports,
    limits: { ...DEFAULT_NBD_LIMITS, ...options.limits },
    tls: options.tls ?? "off",
    clock,
    soon: (callback) => void setImmediate(callback),
    allocate: (bytes) => new Uint8Array(bytes).fill(0xdd),
    buffers,
    report: (event) => events.push(event),
  };
  const bench = {
    target,
    clock,
    events,
    ends: 0,
    open: () => {
      const pipe = new NbdPipe();
      pipe.connection = new NbdConnection(target, pipe, { address: "test" }, () => {
        bench.ends += 1;
      });
      return new NbdClient(pipe);
    },
  };
  return bench;
}

/** Speaks the protocol with plain numbers. */
export class NbdClient {
  readonly pipe: NbdPipe;
  readonly greeting: Buffer;
  extended = false;

  constructor(pipe: NbdPipe) {
    this.pipe = pipe;
    this.greeting = pipe.read();
  }

  flags(value: number): this {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(value);
    this.pipe.write(bytes);
    return this;
  }

  option(option: number, data: Uint8Array = Buffer.alloc(0)): OptionReply[] {
    this.pipe.write(optionBytes(option, data));
    return parseOptionReplies(this.pipe.read());
  }

  /** Flags, structured or extended replies, contexts, GO. */
  go(
    name = "",
    form: "simple" | "structured" | "extended" = "structured",
    contexts: readonly string[] = [],
  ): OptionReply[] {
    this.flags(3);
    if (form !== "simple") this.option(form === "structured" ? NBD_OPT.structured : NBD_OPT.extended);
    this.extended = form === "extended";
    if (contexts.length > 0) this.option(NBD_OPT.setMeta, metaData(name, contexts));
    return this.option(NBD_OPT.go, goData(name, [3]));
  }

  request(
    type: number,
    offset: number | bigint,
    length: number | bigint,
    extra: { flags?: number; cookie?: bigint; data?: Uint8Array; pieces?: number } = {},
  ): void {
    const head = requestBytes(
      this.extended,
      type,
      BigInt(offset),
      BigInt(length),
      extra.flags ?? 0,
      extra.cookie ?? 1n,
    );
    const bytes = extra.data === undefined ? head : Buffer.concat([head, extra.data]);
    this.pipe.write(bytes, extra.pieces);
  }

  chunks(): Chunk[] {
    return parseChunks(this.pipe.read());
  }

  /** Sends a request and waits until its last chunk is there. */
  async ask(...request: Parameters<NbdClient["request"]>): Promise<Chunk[]> {
    this.request(...request);
    const chunks: Chunk[] = [];
    for (let turn = 0; turn < 10_000; turn++) {
      chunks.push(...this.chunks());
      const last = chunks.at(-1);
      if (last !== undefined && (last.kind === "simple" || (last.flags & 1) !== 0)) return chunks;
      await new Promise((resolve) => setImmediate(resolve));
    }
    throw new Error("no answer came");
  }
}

export function optionBytes(option: number, data: Uint8Array): Buffer {
  const head = Buffer.alloc(16);
  head.write("IHAVEOPT", "latin1");
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(data.length, 12);
  return Buffer.concat([head, data]);
}

export function requestBytes(
  extended: boolean,
  type: number,
  offset: bigint,
  length: bigint,
  flags: number,
  cookie: bigint,
): Buffer {
  const head = Buffer.alloc(extended ? 32 : 28);
  head.writeUInt32BE(extended ? 0x21e41c71 : 0x25609513, 0);
  head.writeUInt16BE(flags, 4);
  head.writeUInt16BE(type, 6);
  head.writeBigUInt64BE(cookie, 8);
  head.writeBigUInt64BE(offset, 16);
  if (extended) head.writeBigUInt64BE(length, 24);
  else head.writeUInt32BE(Number(length), 24);
  return head;
}

export function sizedText(text: string): Buffer {
  const bytes = Buffer.from(text);
  const size = Buffer.alloc(4);
  size.writeUInt32BE(bytes.length);
  return Buffer.concat([size, bytes]);
}

export function goData(name: string, infos: readonly number[] = []): Buffer {
  const tail = Buffer.alloc(2 + 2 * infos.length);
  tail.writeUInt16BE(infos.length);
  for (const [index, info] of infos.entries()) tail.writeUInt16BE(info, 2 + 2 * index);
  return Buffer.concat([sizedText(name), tail]);
}

export function metaData(name: string, queries: readonly string[]): Buffer {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(queries.length);
  return Buffer.concat([sizedText(name), count, ...queries.map(sizedText)]);
}

export function parseOptionReplies(bytes: Buffer): OptionReply[] {
  const replies: OptionReply[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (bytes.readBigUInt64BE(at) !== 0x3e889045565a9n) throw new Error(`no option reply at ${at}`);
    const length = bytes.readUInt32BE(at + 16);
    replies.push({
      option: bytes.readUInt32BE(at + 8),
      type: bytes.readUInt32BE(at + 12),
      data: bytes.subarray(at + 20, at + 20 + length),
    });
    at += 20 + length;
  }
  return replies;
}

/** Payload lengths of simple replies are not in them: only replies without data can be parsed. */
export function parseChunks(bytes: Buffer): Chunk[] {
  const chunks: Chunk[] = [];
  for (let at = 0; at < bytes.length; ) {
    const magic = bytes.readUInt32BE(at);
    if (magic === 0x67446698) {
      const error = bytes.readUInt32BE(at + 4);
      const cookie = bytes.readBigUInt64BE(at + 8);
      chunks.push({ kind: "simple", flags: 1, type: 0, error, cookie, offset: 0n, payload: Buffer.alloc(0) });
      at += 16;
      continue;
    }
    const extended = magic === 0x6e8a278c;
    if (!extended && magic !== 0x668e33ef) throw new Error(`no reply at ${at}`);
    const head = extended ? 32 : 20;
    const length = extended ? Number(bytes.readBigUInt64BE(at + 24)) : bytes.readUInt32BE(at + 16);
    const payload = bytes.subarray(at + head, at + head + length);
    if (payload.length !== length) throw new Error(`a chunk of ${length} bytes has only ${payload.length}`);
    const type = bytes.readUInt16BE(at + 6);
    chunks.push({
      kind: extended ? "extended" : "structured",
      flags: bytes.readUInt16BE(at + 4),
      type,
      error: type >= 0x8000 ? payload.readUInt32BE(0) : 0,
      cookie: bytes.readBigUInt64BE(at + 8),
      offset: extended ? bytes.readBigUInt64BE(at + 16) : 0n,
      payload,
    });
    at += head + length;
  }
  return chunks;
}

/** Puts the data chunks of a read together. */
export function assembled(chunks: readonly Chunk[], offset: number, length: number): Buffer {
  const data = Buffer.alloc(length, 0xaa);
  let covered = 0;
  for (const { type, payload } of chunks) {
    if (type !== 1 && type !== 2) continue;
    const at = Number(payload.readBigUInt64BE(0)) - offset;
    const bytes = type === 1 ? payload.subarray(8) : Buffer.alloc(payload.readUInt32BE(8));
    bytes.copy(data, at);
    covered += bytes.length;
  }
  if (covered !== length) throw new Error(`chunks cover ${covered} of ${length} bytes`);
  return data;
}
