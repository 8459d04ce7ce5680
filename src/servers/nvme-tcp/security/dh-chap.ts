import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { AuthenticationState, Authenticator } from "../../../protocols/nvme/authenticator.js";
import type { AuthenticationContext } from "../../../protocols/nvme/subsystem.js";
import {
  CHAP_FAILURES,
  CHAP_HASH_BYTES,
  CHAP_HASH_IDS,
  type ChapFailure,
  type ChapHash,
  decodeHostMessage,
  encodeChallenge,
  encodeFailure1,
  encodeSuccess1,
  type HostMessage,
} from "./dh-chap-message.js";
import { DH_GROUP_IDS, DhExchange, type DhGroup } from "./dh-groups.js";
import { parseSecret, type Secret } from "./secret-text.js";

/** What an authentication is done with. */
export interface ChapOptions {
  /** Proves the host. */
  readonly hostSecret: Secret;
  /** Proves the controller to hosts that ask for it. Left out: such hosts are refused. */
  readonly controllerSecret?: Secret;
  /** Acceptable hashes, the preferred first. */
  readonly hashes?: readonly ChapHash[];
  /** Acceptable groups, the preferred first. */
  readonly groups?: readonly DhGroup[];
}

/** Reads the text of a DH-HMAC-CHAP secret; see {@link parseSecret}. */
export function parseChapSecret(text: string): Secret {
  return parseSecret(text, "DHHC-1");
}

export const CHAP_HASHES: readonly ChapHash[] = ["sha256", "sha384", "sha512"];
/** An exchange keeps whoever records the traffic from trying out weak secrets: `null` comes last. */
export const CHAP_GROUPS: readonly DhGroup[] = [
  "ffdhe2048",
  "ffdhe3072",
  "ffdhe4096",
  "ffdhe6144",
  "ffdhe8192",
  "null",
];

type HostReply = Extract<HostMessage, { kind: "reply" }>;
type HostOffer = Extract<HostMessage, { kind: "negotiate" }>;

interface Round {
  readonly transaction: number;
  readonly hash: ChapHash;
  readonly sequence: number;
  readonly challenge: Uint8Array;
  readonly exchange: DhExchange | undefined;
}

/** The controller's side of DH-HMAC-CHAP for one queue. */
export class ChapAuthenticator implements Authenticator {
  state: AuthenticationState = "pending";
  readonly #options: ChapOptions;
  readonly #names: AuthenticationContext;
  #round: Round | undefined;
  #step: "negotiate" | "reply" | "success2" | "done" = "negotiate";
  #next: Uint8Array | undefined;

  constructor(options: ChapOptions, names: AuthenticationContext) {
    this.#options = options;
    this.#names = names;
  }

  next(): Uint8Array | undefined {
    const message = this.#next;
    this.#next = undefined;
    return message;
  }

  receive(bytes: Uint8Array): void {
    const message = decodeHostMessage(bytes);
    if (message.kind === "malformed") return this.#fail(0, CHAP_FAILURES.incorrectPayload);
    if (message.kind === "unknown") return this.#fail(0, CHAP_FAILURES.incorrectMessage);
    if (message.kind === "failure2") {
      this.state = "failed";
      return;
    }
    // A host may authenticate again at any time after it has done so once.
    const atStart = this.#step === "negotiate" || this.#step === "done";
    if (message.kind === "negotiate" && atStart) return this.#negotiate(message);
    if (message.kind === this.#step && message.transaction === this.#round?.transaction) {
      if (message.kind === "reply") return this.#reply(message, this.#round);
      this.#finish();
      return;
    }
    this.#fail(message.transaction, CHAP_FAILURES.incorrectMessage);
  }

  #negotiate(message: HostOffer): void {
    if (message.secureConcatenation !== 0) return this.#fail(message.transaction, CHAP_FAILURES.secureConcatenation);
    const [offer] = message.offers;
    if (offer === undefined) return this.#fail(message.transaction, CHAP_FAILURES.protocolUnusable);
    const hashes = this.#options.hashes ?? CHAP_HASHES;
    const hash = hashes.find((name) => offer.hashes.includes(CHAP_HASH_IDS[name]));
    if (hash === undefined) return this.#fail(message.transaction, CHAP_FAILURES.hashUnusable);
    const groups = this.#options.groups ?? CHAP_GROUPS;
    const group = groups.find((name) => offer.groups.includes(DH_GROUP_IDS[name]));
    if (group === undefined) return this.#fail(message.transaction, CHAP_FAILURES.groupUnusable);
    const exchange = group === "null" ? undefined : new DhExchange(group);
    const round: Round = {
      transaction: message.transaction,
      hash,
      sequence: nonZeroRandom(),
      challenge: Uint8Array.from(randomBytes(CHAP_HASH_BYTES[hash])),
      exchange,
    };
    this.#round = round;
    this.#step = "reply";
    this.#next = encodeChallenge({
      transaction: round.transaction,
      hash,
      group,
      sequence: round.sequence,
      value: round.challenge,
      publicValue: exchange?.publicValue ?? new Uint8Array(0),
    });
  }

  #reply(reply: HostReply, round: Round): void {
    if (reply.response.length !== CHAP_HASH_BYTES[round.hash]) {
      return this.#fail(round.transaction, CHAP_FAILURES.incorrectPayload);
    }
    let session: Uint8Array | undefined;
    try {
      session = round.exchange?.sharedSecret(reply.publicValue);
    } catch {
      return this.#fail(round.transaction, CHAP_FAILURES.incorrectPayload);
    }
    const { hostNqn, subsystemNqn } = this.#names;
    const expected = chapResponse({
      hash: round.hash,
      key: transformedKey(this.#options.hostSecret, hostNqn),
      challenge: augmentedChallenge(round.hash, round.challenge, session),
      sequence: round.sequence,
      transaction: round.transaction,
      role: "HostHost",
      prover: hostNqn,
      verifier: subsystemNqn,
    });
    if (!timingSafeEqual(expected, reply.response)) {
      return this.#fail(round.transaction, CHAP_FAILURES.authenticationFailed);
    }
    if (reply.challenge === undefined) {
      this.#next = encodeSuccess1(round.transaction, CHAP_HASH_BYTES[round.hash], undefined);
      this.#finish();
      return;
    }
    this.#prove(reply, reply.challenge, round, session);
  }

  /** Answers the host's own challenge. */
  #prove(reply: HostReply, challenge: Uint8Array, round: Round, session: Uint8Array | undefined): void {
    const secret = this.#options.controllerSecret;
    if (secret === undefined) return this.#fail(round.transaction, CHAP_FAILURES.authenticationFailed);
    // Our own challenge and number sent back would make us compute the answer for a thief.
    if (equalBytes(challenge, round.challenge))
      return this.#fail(round.transaction, CHAP_FAILURES.authenticationFailed);
    const { hostNqn, subsystemNqn } = this.#names;
    const response = chapResponse({
      hash: round.hash,
      key: transformedKey(secret, subsystemNqn),
      challenge: augmentedChallenge(round.hash, challenge, session),
      sequence: reply.sequence,
      transaction: round.transaction,
      role: "Controller",
      prover: subsystemNqn,
      verifier: hostNqn,
    });
    this.#next = encodeSuccess1(round.transaction, CHAP_HASH_BYTES[round.hash], response);
    this.#step = "success2";
  }

  #finish(): void {
    this.state = "authenticated";
    this.#step = "done";
    this.#round = undefined;
  }

  #fail(transaction: number, reason: ChapFailure): void {
    this.state = "failed";
    this.#step = "done";
    this.#round = undefined;
    this.#next = encodeFailure1(transaction, reason);
  }
}

/** What both sides compute; see {@link chapResponse}. */
export interface ChapProof {
  readonly hash: ChapHash;
  readonly key: Uint8Array;
  readonly challenge: Uint8Array;
  readonly sequence: number;
  readonly transaction: number;
  readonly role: "HostHost" | "Controller";
  readonly prover: string;
  readonly verifier: string;
}

/** HMAC over challenge, sequence number, transaction, SC_C (0), role, and both names with a zero byte between. */
export function chapResponse(proof: ChapProof): Uint8Array {
  const numbers = new DataView(new ArrayBuffer(7));
  numbers.setUint32(0, proof.sequence, true);
  numbers.setUint16(4, proof.transaction, true);
  return createHmac(proof.hash, proof.key)
    .update(proof.challenge)
    .update(numbers)
    .update(proof.role)
    .update(proof.prover)
    .update(Uint8Array.of(0))
    .update(proof.verifier)
    .digest();
}

/** The key that a secret becomes for the owner of `nqn`: secrets with a hash are bound to the name. */
export function transformedKey(secret: Secret, nqn: string): Uint8Array {
  if (secret.hash === "none") return secret.key;
  return createHmac(secret.hash, secret.key).update(nqn).update("NVMe-over-Fabrics").digest();
}

/** The challenge bound to the shared secret of an exchange; without one, itself. */
export function augmentedChallenge(
  hash: ChapHash,
  challenge: Uint8Array,
  sharedSecret: Uint8Array | undefined,
): Uint8Array {
  if (sharedSecret === undefined) return challenge;
  const sessionKey = createHash(hash).update(sharedSecret).digest();
  return createHmac(hash, sessionKey).update(challenge).digest();
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

function nonZeroRandom(): number {
  const sequence = randomBytes(4).readUInt32LE();
  return sequence === 0 ? 1 : sequence;
}
