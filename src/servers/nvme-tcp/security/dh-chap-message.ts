/** Messages of DH-HMAC-CHAP (NVMe base specification, "DH-HMAC-CHAP Protocol"). Little-endian; all sizes in bytes. */
import { DH_GROUP_IDS, type DhGroup } from "./dh-groups.js";

export type ChapHash = "sha256" | "sha384" | "sha512";

export const CHAP_HASH_IDS: Readonly<Record<ChapHash, number>> = { sha256: 1, sha384: 2, sha512: 3 };
export const CHAP_HASH_BYTES: Readonly<Record<ChapHash, number>> = { sha256: 32, sha384: 48, sha512: 64 };

const TYPE_COMMON = 0x00;
const TYPE_DH_CHAP = 0x01;
const ID_NEGOTIATE = 0x00;
const ID_CHALLENGE = 0x01;
const ID_REPLY = 0x02;
const ID_SUCCESS1 = 0x03;
const ID_SUCCESS2 = 0x04;
const ID_FAILURE2 = 0xf1;
const ID_FAILURE1 = 0xf0;

const HEADER = 16;
const DESCRIPTOR = 64;
const DESCRIPTORS_AT = 8;
/** Identifiers that one list of a descriptor can hold. */
const LIST = 30;
const AUTHID_DH_CHAP = 0x01;

/** Why an authentication failed, for the host (rescode_exp of the failure messages). */
export const CHAP_FAILURES = {
  authenticationFailed: 1,
  protocolUnusable: 2,
  secureConcatenation: 3,
  hashUnusable: 4,
  groupUnusable: 5,
  incorrectPayload: 6,
  incorrectMessage: 7,
} as const;

export type ChapFailure = (typeof CHAP_FAILURES)[keyof typeof CHAP_FAILURES];

/** What a host sends. `malformed`: its length or contents break the format. */
export type HostMessage =
  | {
      readonly kind: "negotiate";
      readonly transaction: number;
      readonly secureConcatenation: number;
      readonly offers: readonly { readonly hashes: readonly number[]; readonly groups: readonly number[] }[];
    }
  | {
      readonly kind: "reply";
      readonly transaction: number;
      readonly sequence: number;
      readonly response: Uint8Array;
      /** Present when the host wants the controller to prove itself. */
      readonly challenge: Uint8Array | undefined;
      readonly publicValue: Uint8Array;
    }
  | { readonly kind: "success2"; readonly transaction: number }
  | { readonly kind: "failure2"; readonly transaction: number; readonly reason: number }
  | { readonly kind: "malformed" }
  | { readonly kind: "unknown" };

const MALFORMED: HostMessage = { kind: "malformed" };

/** The view's fields are copied: the result does not hold on to `bytes`. */
export function decodeHostMessage(bytes: Uint8Array): HostMessage {
  if (bytes.length < DESCRIPTORS_AT) return MALFORMED;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const type = view.getUint8(0);
  const id = view.getUint8(1);
  if (type === TYPE_COMMON && id === ID_NEGOTIATE) return decodeNegotiate(view, bytes);
  const transaction = view.getUint16(4, true);
  if (type === TYPE_COMMON && id === ID_FAILURE2) return { kind: "failure2", transaction, reason: view.getUint8(7) };
  if (type !== TYPE_DH_CHAP) return { kind: "unknown" };
  if (id === ID_REPLY) return decodeReply(view, bytes);
  if (id === ID_SUCCESS2) return { kind: "success2", transaction };
  return { kind: "unknown" };
}

function decodeNegotiate(view: DataView, bytes: Uint8Array): HostMessage {
  const count = view.getUint8(7);
  if (count === 0 || bytes.length < DESCRIPTORS_AT + count * DESCRIPTOR) return MALFORMED;
  const offers: { hashes: number[]; groups: number[] }[] = [];
  for (let at = DESCRIPTORS_AT; at < DESCRIPTORS_AT + count * DESCRIPTOR; at += DESCRIPTOR) {
    if (view.getUint8(at) !== AUTHID_DH_CHAP) continue;
    const [hashes, groups] = [view.getUint8(at + 2), view.getUint8(at + 3)];
    if (hashes === 0 || groups === 0 || hashes > LIST || groups > LIST) return MALFORMED;
    const lists = at + 4;
    offers.push({
      hashes: [...bytes.subarray(lists, lists + hashes)],
      groups: [...bytes.subarray(lists + LIST, lists + LIST + groups)],
    });
  }
  return {
    kind: "negotiate",
    transaction: view.getUint16(4, true),
    secureConcatenation: view.getUint8(6),
    offers,
  };
}

function decodeReply(view: DataView, bytes: Uint8Array): HostMessage {
  if (bytes.length < HEADER) return MALFORMED;
  const hashLength = view.getUint8(6);
  const publicLength = view.getUint16(10, true);
  const challengeAt = HEADER + hashLength;
  const publicAt = challengeAt + hashLength;
  if (bytes.length < publicAt + publicLength) return MALFORMED;
  return {
    kind: "reply",
    transaction: view.getUint16(4, true),
    sequence: view.getUint32(12, true),
    response: bytes.slice(HEADER, challengeAt),
    challenge: view.getUint8(8) === 0 ? undefined : bytes.slice(challengeAt, publicAt),
    publicValue: bytes.slice(publicAt, publicAt + publicLength),
  };
}

export interface Challenge {
  readonly transaction: number;
  readonly hash: ChapHash;
  readonly group: DhGroup;
  readonly sequence: number;
  readonly value: Uint8Array;
  /** Empty in the group `null`. */
  readonly publicValue: Uint8Array;
}

export function encodeChallenge(challenge: Challenge): Uint8Array {
  const { view, bytes } = message(
    TYPE_DH_CHAP,
    ID_CHALLENGE,
    challenge.transaction,
    challenge.value.length + challenge.publicValue.length,
  );
  view.setUint8(6, challenge.value.length);
  view.setUint8(8, CHAP_HASH_IDS[challenge.hash]);
  view.setUint8(9, DH_GROUP_IDS[challenge.group]);
  view.setUint16(10, challenge.publicValue.length, true);
  view.setUint32(12, challenge.sequence, true);
  bytes.set(challenge.value, HEADER);
  bytes.set(challenge.publicValue, HEADER + challenge.value.length);
  return bytes;
}

/** `response`: the controller's proof, when the host asked for one. `hashLength` is stated in either case. */
export function encodeSuccess1(transaction: number, hashLength: number, response: Uint8Array | undefined): Uint8Array {
  const { view, bytes } = message(TYPE_DH_CHAP, ID_SUCCESS1, transaction, response?.length ?? 0);
  view.setUint8(6, hashLength);
  if (response !== undefined) {
    view.setUint8(8, 1);
    bytes.set(response, HEADER);
  }
  return bytes;
}

export function encodeFailure1(transaction: number, reason: ChapFailure): Uint8Array {
  const { view, bytes } = message(TYPE_COMMON, ID_FAILURE1, transaction, 0);
  view.setUint8(6, CHAP_FAILURES.authenticationFailed);
  view.setUint8(7, reason);
  return bytes;
}

function message(type: number, id: number, transaction: number, extra: number): { view: DataView; bytes: Uint8Array } {
  const bytes = new Uint8Array(HEADER + extra);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, type);
  view.setUint8(1, id);
  view.setUint16(4, transaction, true);
  return { view, bytes };
}
