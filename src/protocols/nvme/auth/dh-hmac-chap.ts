/**
 * The controller's side of DH-HMAC-CHAP (NVMe base, "DH-HMAC-CHAP Protocol").
 *
 * | state | host sends | we answer | next |
 * |---|---|---|---|
 * | negotiate | AUTH_Negotiate | AUTH_Challenge | reply |
 * | reply | AUTH_Reply, response right | AUTH_Success1 | done, or success2 when the host challenged us |
 * | success2 | AUTH_Success2 | - | done |
 * | any | anything else | AUTH_Failure1 | failed |
 * | any | AUTH_Failure2 | - | failed |
 *
 * The host is authenticated when it has fetched AUTH_Success1, or has confirmed that we are who it wants.
 */
import type { MaybePromise } from "../../../base/maybe-promise.js";
import type { AuthenticationState, Authenticator } from "../authenticator.js";
import { type ChapCrypto, type ChapGroup, type ChapHash, type ChapKeyPair, GROUPS, HASHES } from "./chap-crypto.js";
import {
  encodeChallenge,
  encodeFailure1,
  encodeSuccess1,
  FAILURE,
  type FailureReason,
  type HostMessage,
  type Negotiation,
  parseHostMessage,
  type Reply,
} from "./chap-messages.js";
import { type ChapSecret, transformedKey } from "./chap-secret.js";

export interface DhHmacChapOptions {
  readonly crypto: ChapCrypto;
  readonly hostNqn: string;
  readonly subsystemNqn: string;
  /** The host's secret. */
  readonly hostSecret: ChapSecret;
  /** Ours, for hosts that want to know whom they talk to. Left out: a host that challenges us is refused. */
  readonly controllerSecret?: ChapSecret;
  /** Hashes that may be used, the preferred first. Default: all, the longest first. */
  readonly hashes?: readonly ChapHash[];
  /** Groups that may be used, the preferred first. Default: all, the smallest that keeps past sessions secret first, NULL last. */
  readonly groups?: readonly ChapGroup[];
}

const DEFAULT_HASHES: readonly ChapHash[] = ["sha512", "sha384", "sha256"];
const DEFAULT_GROUPS: readonly ChapGroup[] = ["ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192", "null"];

/** What the challenge was about. */
interface Exchange {
  readonly transaction: number;
  readonly hash: ChapHash;
  readonly group: ChapGroup;
  readonly sequence: number;
  readonly challenge: Uint8Array;
  readonly keyPair: ChapKeyPair | undefined;
}

const text = new TextEncoder();

export class DhHmacChap implements Authenticator {
  readonly #options: DhHmacChapOptions;
  #state: AuthenticationState = "pending";
  #expects: "negotiate" | "reply" | "success2" | "nothing" = "negotiate";
  #transaction = 0;
  #exchange: Exchange | undefined = undefined;
  #outgoing: Uint8Array | undefined = undefined;
  /** The state once `#outgoing` was fetched. */
  #stateAfter: AuthenticationState = "pending";

  constructor(options: DhHmacChapOptions) {
    this.#options = options;
  }

  get state(): AuthenticationState {
    return this.#state;
  }

  receive(message: Uint8Array): MaybePromise<void> {
    if (this.#state !== "pending") return undefined;
    const parsed = parseHostMessage(message);
    if (parsed.kind === "negotiate") this.#transaction = parsed.transaction;
    return this.#act(parsed).catch(() => this.#fail(FAILURE.authentication));
  }

  next(): Uint8Array | undefined {
    const message = this.#outgoing;
    if (message === undefined) return undefined;
    this.#outgoing = undefined;
    this.#state = this.#stateAfter;
    return message;
  }

  async #act(message: HostMessage): Promise<void> {
    if (message.kind === "failure2") {
      this.#state = "failed";
    } else if (message.kind === "wrong") {
      this.#fail(message.reason);
    } else if (message.kind !== this.#expects || this.#outgoing !== undefined) {
      this.#fail(FAILURE.incorrectMessage);
    } else if (message.transaction !== this.#transaction) {
      this.#fail(FAILURE.incorrectPayload);
    } else if (message.kind === "negotiate") {
      await this.#challenge(message);
    } else if (message.kind === "reply") {
      await this.#judge(message);
    } else {
      this.#expects = "nothing";
      this.#state = "authenticated";
    }
  }

  async #challenge(negotiation: Negotiation): Promise<void> {
    const { crypto, hashes = DEFAULT_HASHES, groups = DEFAULT_GROUPS } = this.#options;
    if (negotiation.secureChannel !== 0) return this.#fail(FAILURE.secureChannelMismatch);
    const hash = hashes.find((candidate) => negotiation.hashes.includes(candidate));
    if (hash === undefined) return this.#fail(FAILURE.hashUnusable);
    const group = groups.find((candidate) => negotiation.groups.includes(candidate));
    if (group === undefined) return this.#fail(FAILURE.groupUnusable);
    const keyPair = group === "null" ? undefined : await crypto.generateKeyPair(group);
    const { transaction } = negotiation;
    const random = crypto.randomBytes(4);
    // Zero means that no sequence number is there.
    const sequence = new DataView(random.buffer, random.byteOffset, 4).getUint32(0, true) || 1;
    const challenge = crypto.randomBytes(HASHES[hash].length);
    this.#exchange = { transaction, hash, group, sequence, challenge, keyPair };
    const publicValue = keyPair === undefined ? new Uint8Array(0) : padded(keyPair.publicValue, GROUPS[group].length);
    this.#expects = "reply";
    this.#outgoing = encodeChallenge({ transaction, hash, group, sequence, challenge, publicValue });
  }

  async #judge(reply: Reply): Promise<void> {
    const exchange = this.#exchange as Exchange;
    const { crypto, hostSecret, hostNqn, controllerSecret } = this.#options;
    const { length } = HASHES[exchange.hash];
    if (reply.response.length !== length || reply.publicValue.length !== GROUPS[exchange.group].length) {
      return this.#fail(FAILURE.incorrectPayload);
    }
    const sessionKey = await this.#sessionKey(exchange, reply.publicValue);
    const key = transformedKey(crypto, hostSecret, hostNqn);
    const expected = this.#response(key, exchange, exchange.challenge, exchange.sequence, "host", sessionKey);
    if (!crypto.equal(expected, reply.response)) return this.#fail(FAILURE.authentication);
    if (reply.challenge === undefined) {
      this.#succeed("nothing", "authenticated", length, undefined);
    } else if (controllerSecret === undefined || crypto.equal(reply.challenge, exchange.challenge)) {
      // Our own challenge sent back to us would make us compute a host's response.
      this.#fail(FAILURE.authentication);
    } else {
      const ownKey = transformedKey(crypto, controllerSecret, this.#options.subsystemNqn);
      const own = this.#response(ownKey, exchange, reply.challenge, reply.sequence, "controller", sessionKey);
      this.#succeed("success2", "pending", length, own);
    }
  }

  async #sessionKey(exchange: Exchange, peerValue: Uint8Array): Promise<Uint8Array | undefined> {
    if (exchange.keyPair === undefined) return undefined;
    const secret = await exchange.keyPair.secretWith(peerValue);
    return this.#options.crypto.digest(exchange.hash, padded(secret, GROUPS[exchange.group].length));
  }

  /** The response of one side: an HMAC over the challenge, bound to the session key, and all that names the exchange. */
  #response(
    key: Uint8Array,
    exchange: Exchange,
    challenge: Uint8Array,
    sequence: number,
    side: "host" | "controller",
    sessionKey: Uint8Array | undefined,
  ): Uint8Array {
    const { crypto, hostNqn, subsystemNqn } = this.#options;
    const bound = sessionKey === undefined ? challenge : crypto.hmac(exchange.hash, sessionKey, challenge);
    const numbers = new DataView(new ArrayBuffer(7));
    numbers.setUint32(0, sequence, true);
    numbers.setUint16(4, exchange.transaction, true);
    const names = side === "host" ? ["HostHost", hostNqn, subsystemNqn] : ["Controller", subsystemNqn, hostNqn];
    const tail = text.encode(`${names[0]}${names[1]}\0${names[2]}`);
    const data = new Uint8Array(bound.length + 7 + tail.length);
    data.set(bound);
    data.set(new Uint8Array(numbers.buffer), bound.length);
    data.set(tail, bound.length + 7);
    return crypto.hmac(exchange.hash, key, data);
  }

  #succeed(
    expects: "nothing" | "success2",
    after: AuthenticationState,
    hashLength: number,
    response: Uint8Array | undefined,
  ): void {
    this.#expects = expects;
    this.#stateAfter = after;
    this.#outgoing = encodeSuccess1(this.#transaction, hashLength, response);
  }

  #fail(reason: FailureReason): void {
    this.#expects = "nothing";
    this.#stateAfter = "failed";
    this.#outgoing = encodeFailure1(this.#transaction, reason);
  }
}

/** Numbers of a group have its length: implementations drop leading zeros. */
function padded(value: Uint8Array, length: number): Uint8Array {
  if (value.length >= length) return value;
  const whole = new Uint8Array(length);
  whole.set(value, length - value.length);
  return whole;
}
