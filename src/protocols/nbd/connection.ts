/** One connection, from its greeting to its end. */
import type { ZcowError } from "../../base/errors.js";
import type { Transport, TransportListener } from "../nvme/transport.js";
import { type Agreement, Handshake, type HandshakeOwner } from "./handshake.js";
import { DEFERRED_BYTES, FAREWELL_MILLISECONDS } from "./limits.js";
import type { NbdTarget } from "./target.js";
import { Transmission, type TransmissionOwner } from "./transmission.js";

/** What the protocol needs of its stream beyond bytes. */
export interface NbdTransport extends Transport {
  /** Everything sent so far leaves in the clear; from then on the stream is TLS. `Connection.secured` is called when it is. */
  startTls?(): void;
}

const EMPTY = new Uint8Array(0);

export interface NbdPeer {
  /** For logs. */
  readonly address: string;
}

export class NbdConnection implements TransportListener, HandshakeOwner, TransmissionOwner {
  readonly #target: NbdTarget;
  readonly #transport: NbdTransport;
  readonly #peer: NbdPeer;
  readonly #onEnd: (connection: NbdConnection) => void;
  #handshake: Handshake | undefined;
  #transmission: Transmission | undefined = undefined;
  #secure = false;
  /** TLS was agreed on, and is not there yet. */
  #securing = false;
  /** Bytes that came in while the connection could not take them. */
  #deferred: Uint8Array[] = [];
  #deferredBytes = 0;
  #paused = false;
  #receiving = false;
  /** Nothing more is taken. */
  #ending = false;
  #ended = false;
  #cancelTimer: (() => void) | undefined;

  constructor(target: NbdTarget, transport: NbdTransport, peer: NbdPeer, onEnd: (connection: NbdConnection) => void) {
    this.#target = target;
    this.#transport = transport;
    this.#peer = peer;
    this.#onEnd = onEnd;
    this.#handshake = new Handshake(this, { exports: target.exports, tls: target.tls, secure: false });
    const { handshakeMilliseconds } = target.limits;
    if (handshakeMilliseconds > 0) {
      this.#cancelTimer = target.clock.after(handshakeMilliseconds, () => {
        this.leave(`no export was chosen within ${handshakeMilliseconds} ms`, true);
      });
    }
    this.#handshake.greet();
  }

  /** The client has chosen an export. */
  get negotiated(): boolean {
    return this.#transmission !== undefined;
  }

  // --- what the transport tells ------------------------------------------------------------------

  receive(chunk: Uint8Array): void {
    if (this.#ending) return;
    if (this.#deferred.length > 0) this.#defer(chunk);
    else this.#process(chunk);
  }

  /**
   * Where the next bytes of the stream may be put, to be told to {@link filled}: data of a write, of which there is enough to
   * come that it pays. Only while {@link awaitsClient}.
   */
  get room(): Uint8Array | undefined {
    return this.#transmission?.room;
  }

  /** The next `count` bytes of the stream are in {@link room}. */
  filled(count: number): void {
    this.#process(EMPTY, count);
  }

  /** Requests that have come so far. */
  get requests(): number {
    return this.#transmission?.requests ?? 0;
  }

  /** An export was chosen, all that has come is answered or part of what is coming, and more may come. */
  get awaitsClient(): boolean {
    return !this.#paused && !this.#ending && this.#transmission?.idle === true;
  }

  drained(): void {
    this.#transmission?.drained();
    this.#resumeIfPossible();
  }

  disconnected(reason?: Error): void {
    this.#finish(reason?.message ?? "the client closed the connection");
  }

  /** TLS is in place. */
  secured(): void {
    const before = this.#handshake as Handshake;
    this.#securing = false;
    this.#secure = true;
    this.#handshake = new Handshake(this, { exports: this.#target.exports, tls: this.#target.tls, secure: true });
    this.#handshake.continueFrom(before);
  }

  /** Ends the connection; requests in flight are not answered any more. Idempotent. */
  end(reason: string): void {
    this.leave(reason, false);
  }

  // --- what the handshake tells -------------------------------------------------------------------

  send(bytes: Uint8Array): void {
    this.#transport.send(bytes);
  }

  startTls(): void {
    this.#securing = true;
    this.#transport.startTls?.();
  }

  agreed(agreement: Agreement): void {
    this.#cancelTimer?.();
    this.#handshake = undefined;
    this.#transmission = new Transmission(this.#target, this.#transport, agreement, this);
    this.#target.report({
      kind: "connected",
      peer: this.#peer.address,
      export: agreement.export.name,
      tls: this.#secure,
    });
  }

  leave(reason: string, atOnce: boolean): void {
    if (this.#ending) return;
    this.#ending = true;
    if (this.#handshake !== undefined && atOnce) {
      this.#target.report({ kind: "refused", peer: this.#peer.address, reason });
    }
    this.#farewell(reason);
  }

  // --- what the transmission tells -----------------------------------------------------------------

  left(): void {
    this.leave("the client took its leave", false);
  }

  broken(reason: string): void {
    if (this.#ending) return;
    this.#ending = true;
    this.#farewell(reason);
  }

  failed(operation: string, error: ZcowError): void {
    this.#target.report({ kind: "request-failed", peer: this.#peer.address, operation, error });
  }

  freed(): void {
    if (!this.#receiving) this.#resumeIfPossible();
  }

  // --- bytes in -------------------------------------------------------------------------------------

  /** `filled`: bytes that are in {@link room}; then there is no chunk. */
  #process(chunk: Uint8Array, filled = 0): void {
    this.#receiving = true;
    let rest = chunk;
    try {
      if (this.#securing) return this.leave("bytes came in the clear after TLS was agreed on", true);
      if (this.#handshake !== undefined) rest = this.#handshake.receive(chunk);
      if (this.#securing && rest.length > 0) return this.leave("bytes came in the clear after TLS was agreed on", true);
      if (filled > 0) this.#transmission?.filled(filled);
      if (this.#transmission !== undefined && rest.length > 0) rest = rest.subarray(this.#transmission.take(rest));
    } catch (error) {
      // A mistake of ours must not harm other connections.
      this.#target.report({ kind: "internal-error", peer: this.#peer.address, error });
      this.leave("internal error", true);
    } finally {
      this.#receiving = false;
    }
    if (this.#ending) return;
    if (this.#transmission !== undefined && rest.length > 0) this.#defer(rest);
    else if (this.#transmission?.halted() === true) this.#pause();
  }

  #defer(rest: Uint8Array): void {
    this.#deferred.push(new Uint8Array(rest));
    this.#deferredBytes += rest.length;
    this.#pause();
    if (this.#deferredBytes <= DEFERRED_BYTES) return;
    this.broken(`the transport delivered ${this.#deferredBytes} bytes to a paused connection`);
  }

  #pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#transport.pause();
  }

  #resumeIfPossible(): void {
    if (!this.#paused || this.#ending || this.#transmission?.halted() === true) return;
    while (this.#deferred.length > 0) {
      const waiting = this.#deferred.splice(0);
      this.#deferredBytes = 0;
      for (const chunk of waiting) this.receive(chunk);
      if (this.#ending || this.#transmission?.halted() === true) return;
    }
    this.#paused = false;
    this.#transport.resume();
  }

  // --- the end ---------------------------------------------------------------------------------------

  #farewell(reason: string): void {
    this.#cancelTimer?.();
    this.#transport.end();
    this.#cancelTimer = this.#target.clock.after(FAREWELL_MILLISECONDS, () => {
      this.#transport.destroy(new Error(reason));
    });
    this.#finish(reason);
  }

  #finish(reason: string): void {
    if (this.#ended) return;
    this.#ending = true;
    this.#ended = true;
    this.#deferred = [];
    this.#transmission?.finish();
    this.#target.report({ kind: "ended", peer: this.#peer.address, reason });
    this.#onEnd(this);
  }
}
