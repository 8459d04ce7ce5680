/** The client's side of the haggling at the start of a connection. Nothing here is hot: it reads message by message. */
import { viewOf, writeU64 } from "../../base/bytes.js";
import { ZcowError } from "../../base/errors.js";
import { KiB } from "../../base/units.js";
import {
  EXPORT_FLAG,
  HANDSHAKE,
  INFO,
  isRefusal,
  LENGTH,
  MAGIC,
  OPTION,
  OPTION_REPLY,
  readU64,
  STRING_BYTES,
} from "../../codec/nbd/wire.js";

/** A byte stream that is read as much as is needed. */
export interface NegotiationStream {
  /** Exactly `length` bytes. Fails when the stream ends before. */
  take(length: number): Promise<Uint8Array>;
  send(bytes: Uint8Array): void;
  /** Makes the stream TLS. */
  startTls(): Promise<void>;
}

export type ClientReplyForm = "simple" | "structured" | "extended";

/** What a server says of an export. */
export interface ExportInfo {
  /** Bytes. */
  readonly size: number;
  /** `EXPORT_FLAG` bits. */
  readonly flags: number;
  readonly description: string | undefined;
  /** Bytes; undefined where the server did not say. */
  readonly blockSizes: { readonly minimum: number; readonly preferred: number; readonly maximum: number } | undefined;
}

/** What was agreed on with a server. */
export interface NegotiatedExport extends ExportInfo {
  readonly form: ClientReplyForm;
  /** Number of the `base:allocation` context; undefined where there is none. */
  readonly allocationContext: number | undefined;
}

/** An export in a server's list. */
export interface ListedExport {
  readonly name: string;
  readonly info: ExportInfo | undefined;
  readonly contexts: readonly string[];
}

export interface NegotiationOptions {
  readonly uri: string;
  readonly tls: boolean;
}

/** Bytes of a reply to an option. */
const REPLY_BYTES = 64 * KiB;
/** Replies to one option: exports of a server, contexts of an export. */
const REPLIES = 16 * KiB;
const ALLOCATION = "base:allocation";

const encoder = new TextEncoder();
const NOTHING = new Uint8Array(0);

interface OptionReply {
  readonly type: number;
  readonly data: Uint8Array;
}

/** Fails with `REMOTE_REFUSED` or `REMOTE_PROTOCOL`. */
export async function negotiate(
  stream: NegotiationStream,
  exportName: string,
  options: NegotiationOptions,
): Promise<NegotiatedExport> {
  const haggle = new Haggle(stream, options);
  await haggle.begin();
  const form = await haggle.replyForm();
  const allocationContext = form === "simple" ? undefined : await haggle.setContext(exportName);
  const info = await haggle.go(exportName);
  return { ...info, form, allocationContext };
}

/** Asks for all exports of a server, then takes its leave. Fails as {@link negotiate}. */
export async function listExports(stream: NegotiationStream, options: NegotiationOptions): Promise<ListedExport[]> {
  const haggle = new Haggle(stream, options);
  await haggle.begin();
  const form = await haggle.replyForm();
  const listed: ListedExport[] = [];
  for (const { name, description } of await haggle.list()) {
    const info = await haggle.info(name, description);
    listed.push({ name, info, contexts: form === "simple" ? [] : await haggle.contexts(name) });
  }
  haggle.abort();
  return listed;
}

class Haggle {
  readonly #stream: NegotiationStream;
  readonly #options: NegotiationOptions;
  #noZeroes = false;

  constructor(stream: NegotiationStream, options: NegotiationOptions) {
    this.#stream = stream;
    this.#options = options;
  }

  async begin(): Promise<void> {
    const view = viewOf(await this.#stream.take(16));
    if (view.getUint32(0) !== MAGIC.greetingHigh || view.getUint32(4) !== MAGIC.greetingLow) {
      throw this.#protocol("the server does not speak NBD");
    }
    if (view.getUint32(8) !== MAGIC.optionHigh || view.getUint32(12) !== MAGIC.optionLow) {
      throw this.#protocol("the server speaks a form of NBD that is too old");
    }
    const flags = viewOf(await this.#stream.take(2)).getUint16(0);
    if ((flags & HANDSHAKE.fixedNewstyle) === 0) throw this.#protocol("the server does not have the fixed newstyle");
    this.#noZeroes = (flags & HANDSHAKE.noZeroes) !== 0;
    const answer = new Uint8Array(LENGTH.clientFlags);
    viewOf(answer).setUint32(0, HANDSHAKE.fixedNewstyle | (this.#noZeroes ? HANDSHAKE.noZeroes : 0));
    this.#stream.send(answer);
    if (this.#options.tls) await this.#startTls();
  }

  async #startTls(): Promise<void> {
    const [reply] = await this.#ask(OPTION.startTls);
    if (reply?.type !== OPTION_REPLY.ack) throw this.#refused("the server has no TLS", reply);
    await this.#stream.startTls();
  }

  /** The newest form that the server has. */
  async replyForm(): Promise<ClientReplyForm> {
    if ((await this.#ask(OPTION.extendedHeaders)).at(-1)?.type === OPTION_REPLY.ack) return "extended";
    if ((await this.#ask(OPTION.structuredReply)).at(-1)?.type === OPTION_REPLY.ack) return "structured";
    return "simple";
  }

  async setContext(exportName: string): Promise<number | undefined> {
    const replies = await this.#ask(OPTION.setMetaContext, metaQuery(exportName, [ALLOCATION]));
    const found = replies.find(({ type }) => type === OPTION_REPLY.metaContext);
    return found === undefined || found.data.length < 4 ? undefined : viewOf(found.data).getUint32(0);
  }

  async go(exportName: string): Promise<ExportInfo> {
    const replies = await this.#ask(OPTION.go, infoQuery(exportName));
    const last = replies.at(-1);
    if (last?.type === OPTION_REPLY.unsupported) return this.#exportName(exportName);
    if (last?.type !== OPTION_REPLY.ack) {
      throw this.#refused(`export '${exportName}' is not to be had`, last, "Requested export not available");
    }
    return this.#infoOf(replies, undefined);
  }

  /** What is known of an export; undefined where the server cannot tell. */
  async info(name: string, description: string | undefined): Promise<ExportInfo | undefined> {
    const replies = await this.#ask(OPTION.info, infoQuery(name));
    return replies.at(-1)?.type === OPTION_REPLY.ack ? this.#infoOf(replies, description) : undefined;
  }

  async list(): Promise<{ readonly name: string; readonly description: string | undefined }[]> {
    const replies = await this.#ask(OPTION.list);
    const last = replies.at(-1);
    if (last?.type !== OPTION_REPLY.ack) throw this.#refused("the server does not list its exports", last);
    return replies
      .filter(({ type }) => type === OPTION_REPLY.server)
      .map(({ data }) => {
        const length = data.length < 4 ? Number.POSITIVE_INFINITY : viewOf(data).getUint32(0);
        if (length > data.length - 4 || length > STRING_BYTES) throw this.#protocol("an entry of its list is cut off");
        const description = textOf(data.subarray(4 + length));
        return {
          name: textOf(data.subarray(4, 4 + length)),
          description: description === "" ? undefined : description,
        };
      });
  }

  async contexts(exportName: string): Promise<string[]> {
    const replies = await this.#ask(OPTION.listMetaContext, metaQuery(exportName, []));
    return replies.filter(({ type }) => type === OPTION_REPLY.metaContext).map(({ data }) => textOf(data.subarray(4)));
  }

  abort(): void {
    this.#stream.send(optionBytes(OPTION.abort, NOTHING));
  }

  async #exportName(name: string): Promise<ExportInfo> {
    this.#stream.send(optionBytes(OPTION.exportName, encoder.encode(name)));
    const view = viewOf(await this.#stream.take(LENGTH.exportNameReply));
    if (!this.#noZeroes) await this.#stream.take(LENGTH.exportNamePadding);
    return { ...this.#sizeAndFlags(view, 0), description: undefined, blockSizes: undefined };
  }

  #infoOf(replies: readonly OptionReply[], listedAs: string | undefined): ExportInfo {
    let sizeAndFlags: { size: number; flags: number } | undefined;
    let description = listedAs;
    let blockSizes: ExportInfo["blockSizes"];
    for (const { type, data } of replies) {
      if (type !== OPTION_REPLY.info || data.length < 2) continue;
      const view = viewOf(data);
      const kind = view.getUint16(0);
      if (kind === INFO.export && data.length === 12) sizeAndFlags = this.#sizeAndFlags(view, 2);
      if (kind === INFO.description) description = textOf(data.subarray(2));
      if (kind === INFO.blockSize && data.length === 14) blockSizes = this.#blockSizes(view);
    }
    if (sizeAndFlags === undefined) throw this.#protocol("it did not tell the size of the export");
    return { ...sizeAndFlags, description, blockSizes };
  }

  #sizeAndFlags(view: DataView, at: number): { size: number; flags: number } {
    const size = readU64(view, at);
    if (!Number.isSafeInteger(size)) throw this.#protocol("the export is larger than 2^53 bytes");
    const flags = view.getUint16(at + 8);
    return { size, flags: (flags & EXPORT_FLAG.hasFlags) === 0 ? 0 : flags };
  }

  #blockSizes(view: DataView): NonNullable<ExportInfo["blockSizes"]> {
    const [minimum, preferred, maximum] = [view.getUint32(2), view.getUint32(6), view.getUint32(10)];
    const power = minimum > 0 && minimum <= 64 * KiB && (minimum & (minimum - 1)) === 0;
    if (!power || maximum < minimum || preferred < minimum) {
      throw this.#protocol(`block sizes of ${minimum}, ${preferred} and ${maximum} bytes make no sense`);
    }
    return { minimum, preferred, maximum };
  }

  /** Sends an option; the replies to it, the last of which ends them. */
  async #ask(option: number, data: Uint8Array = NOTHING): Promise<OptionReply[]> {
    this.#stream.send(optionBytes(option, data));
    const replies: OptionReply[] = [];
    for (;;) {
      const view = viewOf(await this.#stream.take(LENGTH.optionReplyHeader));
      const magic = view.getUint32(0) === MAGIC.optionReplyHigh && view.getUint32(4) === MAGIC.optionReplyLow;
      if (!magic || view.getUint32(8) !== option) throw this.#protocol(`what came is no reply to option ${option}`);
      const type = view.getUint32(12);
      const length = view.getUint32(16);
      if (length > REPLY_BYTES) throw this.#protocol(`a reply to an option has ${length} bytes`);
      replies.push({ type, data: await this.#stream.take(length) });
      if (type === OPTION_REPLY.ack || isRefusal(type)) return replies;
      if (replies.length > REPLIES) throw this.#protocol(`more than ${REPLIES} replies to one option`);
    }
  }

  #protocol(why: string): ZcowError {
    return new ZcowError("REMOTE_PROTOCOL", `${this.#options.uri}: ${why}`, { data: { path: this.#options.uri } });
  }

  #refused(what: string, reply: OptionReply | undefined, stockText?: string): ZcowError {
    const { uri } = this.#options;
    const said = reply === undefined || reply.data.length === 0 ? "" : textOf(reply.data);
    const text = said === "" ? what : `${what}; the server says: ${said}`;
    const needsTls = reply?.type === OPTION_REPLY.tlsRequired ? " (it requires TLS: use nbds://)" : "";
    return new ZcowError("REMOTE_REFUSED", `${uri}: ${text}${needsTls}`, {
      data: { path: uri, ...(reply === undefined ? {} : { value: reply.type }) },
      ...(stockText === undefined
        ? {}
        : { stockText: said === "" ? stockText : `${stockText}\nserver reported: ${said}` }),
    });
  }
}

/** Text of a server may hold anything: it is shown, so control characters are not kept. */
function textOf(bytes: Uint8Array): string {
  const text = new TextDecoder().decode(bytes.subarray(0, STRING_BYTES));
  // oxlint-disable-next-line no-control-regex -- these are the characters that must go
  return text.replace(/[\u0000-\u001f\u007f]/g, "?");
}

function optionBytes(option: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(LENGTH.optionHeader + data.length);
  const view = viewOf(bytes);
  view.setUint32(0, MAGIC.optionHigh);
  view.setUint32(4, MAGIC.optionLow);
  view.setUint32(8, option);
  view.setUint32(12, data.length);
  bytes.set(data, LENGTH.optionHeader);
  return bytes;
}

function infoQuery(exportName: string): Uint8Array {
  const name = encoder.encode(exportName);
  const wanted = [INFO.description, INFO.blockSize];
  const query = new Uint8Array(4 + name.length + 2 + 2 * wanted.length);
  const view = viewOf(query);
  view.setUint32(0, name.length);
  query.set(name, 4);
  view.setUint16(4 + name.length, wanted.length);
  for (const [index, kind] of wanted.entries()) view.setUint16(6 + name.length + 2 * index, kind);
  return query;
}

function metaQuery(exportName: string, queries: readonly string[]): Uint8Array {
  const parts = [exportName, ...queries].map((text) => encoder.encode(text));
  const query = new Uint8Array(4 + parts.reduce((sum, part) => sum + 4 + part.length, 0));
  const view = viewOf(query);
  let at = 0;
  for (const [index, part] of parts.entries()) {
    view.setUint32(at, part.length);
    query.set(part, at + 4);
    at += 4 + part.length;
    if (index > 0) continue;
    view.setUint32(at, queries.length);
    at += 4;
  }
  return query;
}

/** A request's header. `data` of a write follows it. */
export function encodeRequest(
  extended: boolean,
  type: number,
  flags: number,
  cookie: number,
  offset: number,
  length: number,
): Uint8Array {
  const bytes = new Uint8Array(extended ? LENGTH.extendedRequest : LENGTH.request);
  const view = viewOf(bytes);
  view.setUint32(0, extended ? MAGIC.extendedRequest : MAGIC.request);
  view.setUint16(4, flags);
  view.setUint16(6, type);
  view.setUint32(12, cookie);
  writeU64(view, 16, offset);
  if (extended) writeU64(view, 24, length);
  else view.setUint32(24, length);
  return bytes;
}
