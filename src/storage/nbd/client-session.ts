/**
 * The client's side of a connection after the handshake: requests go out, replies come in, in any order. Knows no socket.
 *
 * A server is not trusted: replies must belong to a request, lie in its range and cover it, and nothing is kept of
 * what they claim to hold before that is known.
 */
import { viewOf } from "../../base/bytes.js";
import { ZcowError } from "../../base/errors.js";
import { KiB } from "../../base/units.js";
import {
  ALLOCATION,
  CHUNK,
  CHUNK_DONE,
  COMMAND,
  COMMAND_FLAG,
  ERROR_NUMBER,
  LENGTH,
  MAGIC,
  readU64,
} from "../../codec/nbd/wire.js";
import { encodeRequest, type NegotiatedExport } from "./negotiation.js";

/** A range and what the server says of it. */
export interface RemoteExtent {
  readonly length: number;
  /** Reads as zeros. */
  readonly zero: boolean;
}

export interface Request {
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  /** Reads: where the bytes go. */
  readonly into?: Uint8Array;
  /** Writes: the bytes. They must not change until the request has ended. */
  readonly from?: Uint8Array;
}

interface Pending extends Request {
  readonly resolve: (extents: readonly RemoteExtent[]) => void;
  readonly reject: (error: unknown) => void;
  covered: number;
  extents: RemoteExtent[];
  failure: ZcowError | undefined;
}

export interface SessionHooks {
  send(bytes: Uint8Array): void;
  /** The server broke the rules: nothing it says can be used any more. */
  broken(error: ZcowError): void;
}

/** Bytes of the payload of a chunk that is not data: as many extents as we would want to hear of. */
const PAYLOAD_BYTES = 512 * KiB;
const ERRNO_BY_NUMBER = new Map<number, string>(Object.entries(ERROR_NUMBER).map(([name, number]) => [number, name]));

export class ClientSession {
  readonly #name: string;
  readonly #negotiated: NegotiatedExport;
  readonly #hooks: SessionHooks;
  readonly #pending = new Map<number, Pending>();
  readonly #extended: boolean;
  #nextCookie = 1;
  #over = false;
  /** The header, or payload, that is coming in. */
  #gathered = new Uint8Array(64);
  #gatheredLength = 0;
  #wanted = 4;
  #step: "magic" | "head" | "offset" | "data" | "payload" = "magic";
  /** Of the chunk that is coming in. */
  #current: Pending | undefined = undefined;
  #cookie = 0;
  #done = false;
  #type = 0;
  #dataAt = 0;
  #dataLeft = 0;

  constructor(name: string, negotiated: NegotiatedExport, hooks: SessionHooks) {
    this.#name = name;
    this.#negotiated = negotiated;
    this.#hooks = hooks;
    this.#extended = negotiated.form === "extended";
  }

  /** Requests without an answer. */
  get outstanding(): number {
    return this.#pending.size;
  }

  /** Sends a request; the result is the extents of a block status. Fails with the code of the server's error. */
  request(request: Request): Promise<readonly RemoteExtent[]> {
    return new Promise((resolve, reject) => {
      const cookie = this.#freeCookie();
      this.#pending.set(cookie, { ...request, resolve, reject, covered: 0, extents: [], failure: undefined });
      const { type, offset, length, from } = request;
      const payload = this.#extended && from !== undefined ? COMMAND_FLAG.payloadLength : 0;
      this.#hooks.send(encodeRequest(this.#extended, type, request.flags | payload, cookie, offset, length));
      if (from !== undefined) this.#hooks.send(from);
    });
  }

  /** Tells the server that we leave. */
  leave(): void {
    this.#over = true;
    this.#hooks.send(encodeRequest(this.#extended, COMMAND.disconnect, 0, 0, 0, 0));
  }

  /** The connection is gone: every request without an answer fails with `error`. */
  abandon(error: unknown): void {
    this.#over = true;
    const left = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of left) reject(error);
  }

  /** Bytes from the server; valid during the call only. */
  receive(chunk: Uint8Array): void {
    let at = 0;
    try {
      while (at < chunk.length && !this.#over) at += this.#take(chunk, at);
    } catch (error) {
      this.#over = true;
      if (!(error instanceof ZcowError)) throw error;
      this.#hooks.broken(error);
    }
  }

  #freeCookie(): number {
    while (this.#pending.has(this.#nextCookie)) this.#nextCookie = (this.#nextCookie + 1) >>> 0;
    const cookie = this.#nextCookie;
    this.#nextCookie = (cookie + 1) >>> 0;
    return cookie;
  }

  #take(chunk: Uint8Array, at: number): number {
    if (this.#step === "data") return this.#takeData(chunk, at);
    const taken = Math.min(this.#wanted - this.#gatheredLength, chunk.length - at);
    this.#gathered.set(chunk.subarray(at, at + taken), this.#gatheredLength);
    this.#gatheredLength += taken;
    if (this.#gatheredLength === this.#wanted) this.#gatheredAll(viewOf(this.#gathered));
    return taken;
  }

  #gatheredAll(view: DataView): void {
    switch (this.#step) {
      case "magic":
        return this.#await(
          "head",
          headLength(view.getUint32(0), this.#negotiated.form, (why) => this.#protocol(why)),
          true,
        );
      case "head":
        return view.getUint32(0) === MAGIC.simpleReply ? this.#simple(view) : this.#chunk(view);
      case "offset":
        return this.#dataBegins(readU64(view, 0));
      default:
        this.#payload(view, this.#wanted);
        return this.#chunkEnds();
    }
  }

  /** The next step needs `wanted` bytes; `keep`: those of this step are the first of them. */
  #await(step: "magic" | "head" | "offset" | "payload", wanted: number, keep = false): void {
    this.#step = step;
    this.#wanted = wanted;
    if (!keep) this.#gatheredLength = 0;
    if (this.#gathered.length >= wanted) return;
    const larger = new Uint8Array(wanted);
    larger.set(this.#gathered.subarray(0, this.#gatheredLength));
    this.#gathered = larger;
  }

  #find(view: DataView, at: number): Pending {
    const found = view.getUint32(at) === 0 ? this.#pending.get(view.getUint32(at + 4)) : undefined;
    if (found === undefined) throw this.#protocol("a reply belongs to no request");
    this.#cookie = view.getUint32(at + 4);
    this.#current = found;
    return found;
  }

  #simple(view: DataView): void {
    const pending = this.#find(view, 8);
    const error = view.getUint32(4);
    this.#done = true;
    if (error !== 0) {
      pending.failure ??= this.#remoteError(pending, error, "");
      return this.#chunkEnds();
    }
    if (pending.type === COMMAND.blockStatus || (pending.type === COMMAND.read && this.#negotiated.form !== "simple")) {
      throw this.#protocol("a simple reply came where a structured one must");
    }
    if (pending.type !== COMMAND.read) return this.#chunkEnds();
    this.#dataAt = 0;
    this.#dataLeft = pending.length;
    this.#step = "data";
  }

  #chunk(view: DataView): void {
    const pending = this.#find(view, 8);
    this.#done = (view.getUint16(4) & CHUNK_DONE) !== 0;
    this.#type = view.getUint16(6);
    const length = this.#extended ? readU64(view, 24) : view.getUint32(16);
    if (this.#extended && readU64(view, 16) !== pending.offset)
      throw this.#protocol("a reply has the offset of another request");
    if (this.#type === CHUNK.data) {
      if (
        pending.type !== COMMAND.read ||
        length <= LENGTH.chunkOffset ||
        length > pending.length + LENGTH.chunkOffset
      ) {
        throw this.#protocol(`a chunk of ${length} bytes of data does not fit its request`);
      }
      this.#dataLeft = length - LENGTH.chunkOffset;
      return this.#await("offset", LENGTH.chunkOffset);
    }
    if (length > PAYLOAD_BYTES) throw this.#protocol(`a chunk has a payload of ${length} bytes`);
    if (length > 0) return this.#await("payload", length);
    this.#payload(view, 0);
    this.#chunkEnds();
  }

  #dataBegins(offset: number): void {
    const pending = this.#current as Pending;
    this.#dataAt = offset - pending.offset;
    if (this.#dataAt < 0 || this.#dataAt + this.#dataLeft > pending.length) {
      throw this.#protocol("a chunk of data lies outside of what was asked for");
    }
    this.#step = "data";
  }

  #takeData(chunk: Uint8Array, at: number): number {
    const pending = this.#current as Pending;
    const taken = Math.min(this.#dataLeft, chunk.length - at);
    pending.into?.set(chunk.subarray(at, at + taken), this.#dataAt);
    this.#dataAt += taken;
    this.#dataLeft -= taken;
    pending.covered += taken;
    if (this.#dataLeft === 0) this.#chunkEnds();
    return taken;
  }

  /** A chunk other than data. `view` starts with its payload. */
  #payload(view: DataView, length: number): void {
    const pending = this.#current as Pending;
    switch (this.#type) {
      case CHUNK.none:
        if (length !== 0 || !this.#done) throw this.#protocol("an empty chunk is not empty, or not the last");
        return;
      case CHUNK.hole:
        return this.#hole(pending, view, length);
      case CHUNK.blockStatus:
      case CHUNK.extendedBlockStatus:
        return this.#blockStatus(pending, view, length);
      default:
        if ((this.#type & 0x8000) === 0) throw this.#protocol(`a chunk is of the unknown type ${this.#type}`);
        if (length < 6) throw this.#protocol("an error is cut off");
        pending.failure ??= this.#remoteError(pending, view.getUint32(0), errorText(view, length));
    }
  }

  #hole(pending: Pending, view: DataView, length: number): void {
    const at = length === 12 ? readU64(view, 0) - pending.offset : -1;
    const size = length === 12 ? view.getUint32(8) : 0;
    if (pending.type !== COMMAND.read || at < 0 || size === 0 || at + size > pending.length) {
      throw this.#protocol("a hole lies outside of what was asked for");
    }
    pending.into?.fill(0, at, at + size);
    pending.covered += size;
  }

  #blockStatus(pending: Pending, view: DataView, length: number): void {
    const wide = this.#type === CHUNK.extendedBlockStatus;
    const [fixed, each] = wide ? [8, 16] : [4, 8];
    if (
      pending.type !== COMMAND.blockStatus ||
      wide !== this.#extended ||
      length < fixed + each ||
      (length - fixed) % each > 0
    ) {
      throw this.#protocol("a block status has no extents, or the wrong form");
    }
    if (view.getUint32(0) !== this.#negotiated.allocationContext) return;
    for (let at = fixed; at < length; at += each) {
      const size = wide ? readU64(view, at) : view.getUint32(at);
      if (size === 0 || !Number.isSafeInteger(size)) throw this.#protocol("an extent has no length");
      // The low word has all bits of this context.
      const status = view.getUint32(at + (wide ? 12 : 4));
      pending.extents.push({ length: size, zero: (status & ALLOCATION.zero) !== 0 });
    }
  }

  #chunkEnds(): void {
    const pending = this.#current as Pending;
    this.#current = undefined;
    this.#await("magic", 4);
    if (!this.#done) return;
    this.#pending.delete(this.#cookie);
    if (pending.failure !== undefined) return pending.reject(pending.failure);
    if (pending.type === COMMAND.read && pending.covered !== pending.length) {
      throw this.#protocol(`a reply to a read of ${pending.length} bytes has ${pending.covered}`, pending);
    }
    pending.resolve(pending.extents);
  }

  #remoteError({ offset, length }: Pending, number: number, said: string): ZcowError {
    const errno = ERRNO_BY_NUMBER.get(number) ?? "EIO";
    const code = { ENOSPC: "NO_SPACE", EPERM: "READ_ONLY", ENOTSUP: "STORAGE_UNSUPPORTED" }[errno] ?? "IO_ERROR";
    const words = said === "" ? errno : `${errno}, ${said}`;
    return new ZcowError(
      code as "NO_SPACE" | "READ_ONLY" | "STORAGE_UNSUPPORTED" | "IO_ERROR",
      `${this.#name}: the server failed a request of ${length} bytes at ${offset}: ${words}`,
      { data: { path: this.#name, offset, length, errno } },
    );
  }

  /** `pending`: a request that is no longer among those that fail with the connection. */
  #protocol(why: string, pending?: Pending): ZcowError {
    const error = new ZcowError("REMOTE_PROTOCOL", `${this.#name}: ${why}`, { data: { path: this.#name } });
    pending?.reject(error);
    return error;
  }
}

function headLength(magic: number, form: string, refuse: (why: string) => ZcowError): number {
  if (magic === MAGIC.simpleReply && form !== "extended") return LENGTH.simpleReply;
  if (magic === MAGIC.structuredReply && form === "structured") return LENGTH.structuredReply;
  if (magic === MAGIC.extendedReply && form === "extended") return LENGTH.extendedReply;
  throw refuse("what came is no reply of the form agreed on");
}

function errorText(view: DataView, length: number): string {
  const size = Math.min(view.getUint16(4), length - 6);
  const text = new TextDecoder().decode(new Uint8Array(view.buffer, view.byteOffset + 6, size));
  // oxlint-disable-next-line no-control-regex -- what a server says is shown
  return text.replace(/[\u0000-\u001f\u007f]/g, "?");
}
