/** Messages of DH-HMAC-CHAP (NVMe base, "DH-HMAC-CHAP Protocol"). All integers little-endian. */
import { type ChapGroup, type ChapHash, GROUPS, HASHES } from "./chap-crypto.js";

/** AUTH_TYPE: messages common to all protocols, and those of this one. */
const TYPE = { common: 0, chap: 1 } as const;
const ID = {
  negotiate: 0x00,
  challenge: 0x01,
  reply: 0x02,
  success1: 0x03,
  success2: 0x04,
  failure2: 0xf0,
  failure1: 0xf1,
} as const;

/** Reason code explanations of AUTH_Failure1. */
export const FAILURE = {
  authentication: 1,
  protocolUnusable: 2,
  secureChannelMismatch: 3,
  hashUnusable: 4,
  groupUnusable: 5,
  incorrectPayload: 6,
  incorrectMessage: 7,
} as const;
export type FailureReason = (typeof FAILURE)[keyof typeof FAILURE];

/** Reason code: authentication failed. */
const REASON_FAILED = 1;

const HEADER_LENGTH = 16;
const DESCRIPTOR_LENGTH = 64;
/** In a protocol descriptor: where the lists of hashes and groups start, and how long they can be. */
const LISTS = { hashes: 4, groups: 34, length: 30 } as const;
const PROTOCOL_CHAP = 1;

export interface Negotiation {
  readonly kind: "negotiate";
  readonly transaction: number;
  /** SC_C: what the host wants of a secure channel; 0 = nothing. */
  readonly secureChannel: number;
  readonly hashes: readonly ChapHash[];
  readonly groups: readonly ChapGroup[];
}

export interface Reply {
  readonly kind: "reply";
  readonly transaction: number;
  readonly response: Uint8Array;
  /** The host wants a response of ours to this. */
  readonly challenge: Uint8Array | undefined;
  readonly sequence: number;
  /** The host's Diffie-Hellman value. */
  readonly publicValue: Uint8Array;
}

export type HostMessage =
  | Negotiation
  | Reply
  | { readonly kind: "success2"; readonly transaction: number }
  | { readonly kind: "failure2" }
  | { readonly kind: "wrong"; readonly reason: FailureReason };

/** Never throws: what is no message is `wrong`, with the reason to tell. */
export function parseHostMessage(bytes: Uint8Array): HostMessage {
  if (bytes.length < 8) return { kind: "wrong", reason: FAILURE.incorrectPayload };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [type, id] = [bytes[0], bytes[1]];
  const transaction = view.getUint16(4, true);
  if (type === TYPE.common && id === ID.negotiate) return parseNegotiation(bytes, transaction);
  if (id === ID.failure2) return { kind: "failure2" };
  if (type === TYPE.chap && id === ID.reply) return parseReply(bytes, view, transaction);
  if (type === TYPE.chap && id === ID.success2) return { kind: "success2", transaction };
  return { kind: "wrong", reason: FAILURE.incorrectMessage };
}

function parseNegotiation(bytes: Uint8Array, transaction: number): HostMessage {
  const count = bytes[7] as number;
  for (let index = 0; index < count; index += 1) {
    const at = 8 + index * DESCRIPTOR_LENGTH;
    if (at + DESCRIPTOR_LENGTH > bytes.length) return { kind: "wrong", reason: FAILURE.incorrectPayload };
    if (bytes[at] !== PROTOCOL_CHAP) continue;
    const hashCount = bytes[at + 2] as number;
    const groupCount = bytes[at + 3] as number;
    if (hashCount > LISTS.length || groupCount > LISTS.length) {
      return { kind: "wrong", reason: FAILURE.incorrectPayload };
    }
    const hashes = named(HASHES, bytes.subarray(at + LISTS.hashes, at + LISTS.hashes + hashCount));
    const groups = named(GROUPS, bytes.subarray(at + LISTS.groups, at + LISTS.groups + groupCount));
    return { kind: "negotiate", transaction, secureChannel: bytes[6] as number, hashes, groups };
  }
  return { kind: "wrong", reason: FAILURE.protocolUnusable };
}

function named<Name extends string>(table: Readonly<Record<Name, { readonly id: number }>>, ids: Uint8Array): Name[] {
  const names = Object.keys(table) as Name[];
  return [...ids].flatMap((id) => names.filter((name) => table[name].id === id));
}

function parseReply(bytes: Uint8Array, view: DataView, transaction: number): HostMessage {
  const wrong: HostMessage = { kind: "wrong", reason: FAILURE.incorrectPayload };
  if (bytes.length < HEADER_LENGTH) return wrong;
  const length = bytes[6] as number;
  const publicLength = view.getUint16(10, true);
  // Room for a challenge is there whether it is used or not.
  const end = HEADER_LENGTH + 2 * length + publicLength;
  if (length === 0 || bytes.length < end) return wrong;
  const challengeAt = HEADER_LENGTH + length;
  return {
    kind: "reply",
    transaction,
    response: bytes.slice(HEADER_LENGTH, challengeAt),
    challenge: bytes[8] === 1 ? bytes.slice(challengeAt, challengeAt + length) : undefined,
    sequence: view.getUint32(12, true),
    publicValue: bytes.slice(end - publicLength, end),
  };
}

export interface Challenge {
  readonly transaction: number;
  readonly hash: ChapHash;
  readonly group: ChapGroup;
  readonly sequence: number;
  readonly challenge: Uint8Array;
  readonly publicValue: Uint8Array;
}

export function encodeChallenge(fields: Challenge): Uint8Array {
  const { challenge, publicValue } = fields;
  const { bytes, view } = message(TYPE.chap, ID.challenge, fields.transaction, challenge.length + publicValue.length);
  bytes[6] = challenge.length;
  bytes[8] = HASHES[fields.hash].id;
  bytes[9] = GROUPS[fields.group].id;
  view.setUint16(10, publicValue.length, true);
  view.setUint32(12, fields.sequence, true);
  bytes.set(challenge, HEADER_LENGTH);
  bytes.set(publicValue, HEADER_LENGTH + challenge.length);
  return bytes;
}

/** `response`: ours to the host's challenge, when it sent one. `hashLength`: bytes of a digest. */
export function encodeSuccess1(transaction: number, hashLength: number, response: Uint8Array | undefined): Uint8Array {
  const { bytes } = message(TYPE.chap, ID.success1, transaction, hashLength);
  bytes[6] = hashLength;
  if (response !== undefined) {
    bytes[8] = 1;
    bytes.set(response, HEADER_LENGTH);
  }
  return bytes;
}

export function encodeFailure1(transaction: number, reason: FailureReason): Uint8Array {
  const { bytes } = message(TYPE.common, ID.failure1, transaction, 0);
  bytes[6] = REASON_FAILED;
  bytes[7] = reason;
  return bytes;
}

function message(type: number, id: number, transaction: number, rest: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(HEADER_LENGTH + rest);
  const view = new DataView(bytes.buffer);
  bytes[0] = type;
  bytes[1] = id;
  view.setUint16(4, transaction, true);
  return { bytes, view };
}
