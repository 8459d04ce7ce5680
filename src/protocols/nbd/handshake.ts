/**
 * The haggling at the start of a connection: fixed newstyle, the options of the protocol's current text. It ends with an
 * export that the client has chosen, with TLS that is to begin, or with the connection.
 */
import { viewOf, writeU64 } from "../../base/bytes.js";
import { EXPORT_FLAG, HANDSHAKE, INFO, LENGTH, MAGIC, OPTION, OPTION_REPLY } from "../../codec/nbd/wire.js";
import type { NbdExport } from "./export.js";
import { CHOSEN_CONTEXTS, HANDSHAKE_OPTIONS, OPTION_BYTES, SKIPPED_OPTION_BYTES } from "./limits.js";
import type { MetaContext } from "./meta-context.js";
import { OptionError, OptionReader } from "./option-text.js";
import type { TlsPolicy } from "./target.js";

/** The form of replies. */
export type ReplyForm = "simple" | "structured" | "extended";

/** What both sides agreed on. */
export interface Agreement {
  readonly export: NbdExport;
  readonly form: ReplyForm;
  /** The contexts of block status, in the order of their ids, which start at 0. */
  readonly contexts: readonly MetaContext[];
}

/** What the handshake makes happen. */
export interface HandshakeOwner {
  send(bytes: Uint8Array): void;
  /** The option is acknowledged; nothing but TLS follows from either side. */
  startTls(): void;
  agreed(agreement: Agreement): void;
  /** The connection is to end: after what was sent has left, or `atOnce`. */
  leave(reason: string, atOnce: boolean): void;
}

export interface HandshakeOptions {
  readonly exports: ReadonlyMap<string, NbdExport>;
  readonly tls: TlsPolicy;
  /** TLS is in place already: this is the second handshake of the connection. */
  readonly secure: boolean;
}

const encoder = new TextEncoder();
const NOTHING = new Uint8Array(0);

export class Handshake {
  readonly #owner: HandshakeOwner;
  readonly #options: HandshakeOptions;
  /** What came in and was not used yet; at most one option and its header. */
  #held: Uint8Array = NOTHING;
  /** Bytes of an option that is too big, and is passed over. */
  #skip = 0;
  #greeted = false;
  #noZeroes = false;
  #form: ReplyForm = "simple";
  #contexts: { readonly exportName: string; readonly contexts: readonly MetaContext[] } | undefined;
  #optionCount = 0;
  #over = false;

  constructor(owner: HandshakeOwner, options: HandshakeOptions) {
    this.#owner = owner;
    this.#options = options;
  }

  /** Sends the greeting. TLS has no second one. */
  greet(): void {
    this.#owner.send(encodeGreeting());
  }

  /** TLS began after the flags of the client had come; they stay. */
  continueFrom(before: Handshake): void {
    this.#greeted = true;
    this.#noZeroes = before.#noZeroes;
  }

  /** Takes bytes; returns those behind the end of the handshake. */
  receive(chunk: Uint8Array): Uint8Array {
    let rest = this.#joined(chunk);
    while (!this.#over) {
      const used = this.#step(rest);
      if (used === 0) {
        // Not `slice`, which gives a view of what a socket delivered.
        this.#held = new Uint8Array(rest);
        return NOTHING;
      }
      rest = rest.subarray(used);
    }
    return rest;
  }

  #joined(chunk: Uint8Array): Uint8Array {
    if (this.#held.length === 0) return chunk;
    const joined = new Uint8Array(this.#held.length + chunk.length);
    joined.set(this.#held);
    joined.set(chunk, this.#held.length);
    this.#held = NOTHING;
    return joined;
  }

  /** Uses the next flags, option or piece of one that is passed over; 0 when it has not come yet. */
  #step(bytes: Uint8Array): number {
    if (this.#skip > 0) {
      const skipped = Math.min(this.#skip, bytes.length);
      this.#skip -= skipped;
      return skipped;
    }
    if (!this.#greeted) return bytes.length < LENGTH.clientFlags ? 0 : this.#clientFlags(viewOf(bytes).getUint32(0));
    if (bytes.length < LENGTH.optionHeader) return 0;
    const view = viewOf(bytes);
    const option = view.getUint32(8);
    const length = view.getUint32(12);
    if (view.getUint32(0) !== MAGIC.optionHigh || view.getUint32(4) !== MAGIC.optionLow) {
      return this.#leave("an option does not start with IHAVEOPT");
    }
    if (length > OPTION_BYTES) return this.#tooBig(option, length);
    const total = LENGTH.optionHeader + length;
    if (bytes.length < total) return 0;
    this.#optionCount += 1;
    if (this.#optionCount > HANDSHAKE_OPTIONS) return this.#leave(`more than ${HANDSHAKE_OPTIONS} options`);
    this.#takeOption(option, bytes.subarray(LENGTH.optionHeader, total));
    return total;
  }

  #clientFlags(flags: number): number {
    const known = HANDSHAKE.fixedNewstyle | HANDSHAKE.noZeroes;
    if ((flags & ~known) !== 0) return this.#leave(`unknown client flags 0x${flags.toString(16)}`);
    this.#greeted = true;
    this.#noZeroes = (flags & HANDSHAKE.noZeroes) !== 0;
    return LENGTH.clientFlags;
  }

  #tooBig(option: number, length: number): number {
    if (option === OPTION.exportName || length > SKIPPED_OPTION_BYTES) {
      return this.#leave(`option ${option} has ${length} bytes of data; at most ${OPTION_BYTES} are taken`);
    }
    this.#skip = length;
    this.#refuse(option, OPTION_REPLY.tooBig, `at most ${OPTION_BYTES} bytes of data are taken`);
    return LENGTH.optionHeader;
  }

  #takeOption(option: number, data: Uint8Array): void {
    try {
      if (this.#options.tls === "required" && !this.#options.secure) this.#insecureOption(option, data);
      else this.#option(option, data);
    } catch (error) {
      if (!(error instanceof OptionError)) throw error;
      // This option has no reply that could refuse it.
      if (option === OPTION.exportName) this.#leave(error.message);
      else this.#refuse(option, OPTION_REPLY.invalid, error.message);
    }
  }

  /** Before TLS, nothing is told to anybody, not even whether an export exists. */
  #insecureOption(option: number, data: Uint8Array): void {
    if (option === OPTION.startTls) this.#startTls(data);
    else if (option === OPTION.abort) this.#abort();
    else if (option === OPTION.exportName) this.#leave("an export was chosen without the TLS that is required");
    else this.#refuse(option, OPTION_REPLY.tlsRequired, "this server takes no option before TLS");
  }

  #option(option: number, data: Uint8Array): void {
    switch (option) {
      case OPTION.exportName:
        return this.#exportName(new OptionReader(data).rest());
      case OPTION.abort:
        return this.#abort();
      case OPTION.list:
        return this.#list(data);
      case OPTION.startTls:
        return this.#startTls(data);
      case OPTION.info:
      case OPTION.go:
        return this.#infoOrGo(option, new OptionReader(data));
      case OPTION.structuredReply:
        return this.#changeForm(option, data, "structured");
      case OPTION.extendedHeaders:
        return this.#changeForm(option, data, "extended");
      case OPTION.listMetaContext:
      case OPTION.setMetaContext:
        return this.#metaContexts(option, new OptionReader(data));
      default:
        return this.#refuse(option, OPTION_REPLY.unsupported, "unknown option");
    }
  }

  #exportName(name: string): void {
    const found = this.#options.exports.get(name);
    if (found === undefined) {
      this.#leave(`there is no export '${name}'`);
      return;
    }
    const padding = this.#noZeroes ? 0 : LENGTH.exportNamePadding;
    const reply = new Uint8Array(LENGTH.exportNameReply + padding);
    writeExport(viewOf(reply), 0, found, this.#flagsOf(found));
    this.#owner.send(reply);
    this.#agree(found);
  }

  #abort(): void {
    this.#reply(OPTION.abort, OPTION_REPLY.ack);
    this.#leave("the client ended the handshake", false);
  }

  #list(data: Uint8Array): void {
    if (data.length > 0) throw new OptionError("this option takes no data");
    for (const { name, description } of this.#options.exports.values()) {
      const nameBytes = encoder.encode(name);
      const text = encoder.encode(description ?? "");
      const entry = new Uint8Array(4 + nameBytes.length + text.length);
      viewOf(entry).setUint32(0, nameBytes.length);
      entry.set(nameBytes, 4);
      entry.set(text, 4 + nameBytes.length);
      this.#reply(OPTION.list, OPTION_REPLY.server, entry);
    }
    this.#reply(OPTION.list, OPTION_REPLY.ack);
  }

  #startTls(data: Uint8Array): void {
    const { tls, secure } = this.#options;
    if (data.length > 0) throw new OptionError("this option takes no data");
    if (secure) this.#refuse(OPTION.startTls, OPTION_REPLY.invalid, "TLS is in place already");
    else if (tls === "off") this.#refuse(OPTION.startTls, OPTION_REPLY.policy, "this server has no TLS");
    else {
      this.#reply(OPTION.startTls, OPTION_REPLY.ack);
      this.#over = true;
      this.#owner.startTls();
    }
  }

  #infoOrGo(option: number, reader: OptionReader): void {
    const name = reader.string();
    const wanted = new Set<number>();
    for (let left = reader.u16(); left > 0; left--) wanted.add(reader.u16());
    reader.end();
    const found = this.#options.exports.get(name);
    if (found === undefined) {
      this.#refuse(option, OPTION_REPLY.unknownExport, `export '${name}' not present`);
      return;
    }
    if (wanted.has(INFO.name)) this.#reply(option, OPTION_REPLY.info, textInfo(INFO.name, name));
    if (wanted.has(INFO.description) && found.description !== undefined) {
      this.#reply(option, OPTION_REPLY.info, textInfo(INFO.description, found.description));
    }
    // Told even when not asked for: who asks for nothing can still avoid what would be refused.
    this.#reply(option, OPTION_REPLY.info, blockSizeInfo(found));
    const info = new Uint8Array(2 + LENGTH.exportNameReply);
    viewOf(info).setUint16(0, INFO.export);
    writeExport(viewOf(info), 2, found, this.#flagsOf(found));
    this.#reply(option, OPTION_REPLY.info, info);
    this.#reply(option, OPTION_REPLY.ack);
    if (option === OPTION.go) this.#agree(found);
  }

  #changeForm(option: number, data: Uint8Array, form: ReplyForm): void {
    if (data.length > 0) throw new OptionError("this option takes no data");
    if (this.#form === form) throw new OptionError(`${form} replies were agreed on already`);
    if (this.#form === "extended") {
      this.#refuse(option, OPTION_REPLY.extendedHeadersRequired, "extended headers were agreed on already");
      return;
    }
    this.#form = form;
    this.#reply(option, OPTION_REPLY.ack);
  }

  #metaContexts(option: number, reader: OptionReader): void {
    // A choice is forgotten by the next one, whether that succeeds or not.
    if (option === OPTION.setMetaContext) this.#contexts = undefined;
    if (this.#form === "simple") throw new OptionError("metadata contexts need structured replies");
    const exportName = reader.string();
    const count = reader.u32();
    const queries: string[] = [];
    for (let left = count; left > 0; left--) queries.push(reader.string());
    reader.end();
    const found = this.#options.exports.get(exportName);
    if (found === undefined) {
      this.#refuse(option, OPTION_REPLY.unknownExport, `export '${exportName}' not present`);
      return;
    }
    const chosen = matching(found.contexts, queries, option === OPTION.listMetaContext).slice(0, CHOSEN_CONTEXTS);
    for (const [id, context] of chosen.entries()) {
      const name = encoder.encode(context.name);
      const entry = new Uint8Array(4 + name.length);
      viewOf(entry).setUint32(0, option === OPTION.setMetaContext ? id : 0);
      entry.set(name, 4);
      this.#reply(option, OPTION_REPLY.metaContext, entry);
    }
    if (option === OPTION.setMetaContext) this.#contexts = { exportName, contexts: chosen };
    this.#reply(option, OPTION_REPLY.ack);
  }

  /** Without structured replies there is nothing that could be fragmented. */
  #flagsOf(found: NbdExport): number {
    return this.#form === "simple" ? found.flags & ~EXPORT_FLAG.dontFragment : found.flags;
  }

  #agree(found: NbdExport): void {
    this.#over = true;
    // Contexts that were chosen for another export mean nothing for this one.
    const contexts = this.#contexts?.exportName === found.name ? this.#contexts.contexts : [];
    this.#owner.agreed({ export: found, form: this.#form, contexts });
  }

  #refuse(option: number, type: number, text: string): void {
    this.#reply(option, type, encoder.encode(text));
  }

  #reply(option: number, type: number, data: Uint8Array = NOTHING): void {
    const reply = new Uint8Array(LENGTH.optionReplyHeader + data.length);
    const view = viewOf(reply);
    view.setUint32(0, MAGIC.optionReplyHigh);
    view.setUint32(4, MAGIC.optionReplyLow);
    view.setUint32(8, option);
    view.setUint32(12, type);
    view.setUint32(16, data.length);
    reply.set(data, LENGTH.optionReplyHeader);
    this.#owner.send(reply);
  }

  #leave(reason: string, atOnce = true): number {
    this.#over = true;
    this.#owner.leave(reason, atOnce);
    return 0;
  }
}

function encodeGreeting(): Uint8Array {
  const greeting = new Uint8Array(LENGTH.greeting);
  const view = viewOf(greeting);
  view.setUint32(0, MAGIC.greetingHigh);
  view.setUint32(4, MAGIC.greetingLow);
  view.setUint32(8, MAGIC.optionHigh);
  view.setUint32(12, MAGIC.optionLow);
  view.setUint16(16, HANDSHAKE.fixedNewstyle | HANDSHAKE.noZeroes);
  return greeting;
}

function writeExport(view: DataView, at: number, { size }: NbdExport, flags: number): void {
  writeU64(view, at, size);
  view.setUint16(at + 8, flags);
}

function textInfo(kind: number, value: string): Uint8Array {
  const bytes = encoder.encode(value);
  const info = new Uint8Array(2 + bytes.length);
  viewOf(info).setUint16(0, kind);
  info.set(bytes, 2);
  return info;
}

function blockSizeInfo({ blockSizes }: NbdExport): Uint8Array {
  const info = new Uint8Array(14);
  const view = viewOf(info);
  view.setUint16(0, INFO.blockSize);
  view.setUint32(2, blockSizes.minimum);
  view.setUint32(6, blockSizes.preferred);
  view.setUint32(10, blockSizes.maximum);
  return info;
}

/** Listing takes no query at all as all contexts, and `space:` as all of a name space, which other servers allow for choosing, too. */
function matching(all: readonly MetaContext[], queries: readonly string[], listing: boolean): MetaContext[] {
  if (listing && queries.length === 0) return [...all];
  return all.filter(({ name }) =>
    queries.some((query) => query === name || (listing && query.endsWith(":") && name.startsWith(query))),
  );
}
