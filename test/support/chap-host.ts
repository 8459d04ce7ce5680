import { createDiffieHellman, createHash, createHmac, randomBytes } from "node:crypto";
import { crc32 } from "node:zlib";
import { expect } from "vitest";

/**
 * A host's side of DH-HMAC-CHAP, written from the specification alone: no encoder, number or formula of the code under test.
 */

export type Hash = "sha256" | "sha384" | "sha512";
const HASHES: Readonly<Record<Hash, { id: number; bytes: number }>> = {
  sha256: { id: 1, bytes: 32 },
  sha384: { id: 2, bytes: 48 },
  sha512: { id: 3, bytes: 64 },
};
const TRANSACTION = 0x1234;
const SEQUENCE = 77;

/** `DHHC-1:…` or `NVMeTLSkey-1:…` with a key of one byte repeated. */
export function secretText(kind: string, fill: number, hh = "01"): string {
  const key = Buffer.alloc({ "02": 48, "03": 64 }[hh] ?? 32, fill);
  const crc = Buffer.alloc(4);
  crc.writeUInt32LE(crc32(key));
  return `${kind}:${hh}:${Buffer.concat([key, crc]).toString("base64")}:`;
}

function keyOf(text: string, nqn: string): Buffer {
  const [, hh = "", body = ""] = text.split(":");
  const key = Buffer.from(body, "base64").subarray(0, -4);
  const hash = { "01": "sha256", "02": "sha384", "03": "sha512" }[hh];
  return hash === undefined ? key : createHmac(hash, key).update(`${nqn}NVMe-over-Fabrics`).digest();
}

export interface ChapHostSettings {
  readonly hash: Hash;
  readonly groupId: number;
  /** Big-endian prime of the group; left out for the group without an exchange. */
  readonly prime?: Uint8Array;
  readonly hostNqn: string;
  readonly subsystemNqn: string;
  readonly secret: string;
  /** Ask the controller for a proof, which is checked against this secret. */
  readonly controllerSecret?: string;
  /** Spoils the reply. */
  readonly spoil?: (reply: Buffer) => void;
}

/** How messages travel. */
export interface ChapChannel {
  send(message: Uint8Array): Promise<void>;
  receive(): Promise<Uint8Array>;
}

export function negotiation(hashes: readonly number[], groups: readonly number[], secureConcatenation = 0): Buffer {
  const message = Buffer.alloc(8 + 64);
  message.writeUInt16LE(TRANSACTION, 4);
  message[6] = secureConcatenation;
  message[7] = 1;
  message[8] = 1;
  message[10] = hashes.length;
  message[11] = groups.length;
  message.set(hashes, 12);
  message.set(groups, 12 + 30);
  return message;
}

/** Goes through one authentication; resolves to the controller's answer to the reply. */
export async function authenticateHost(channel: ChapChannel, settings: ChapHostSettings): Promise<Buffer> {
  const { hash, groupId, hostNqn, subsystemNqn, controllerSecret } = settings;
  const { id, bytes } = HASHES[hash];
  await channel.send(negotiation([id], [groupId]));
  const challenge = Buffer.from(await channel.receive());
  expect([challenge[0], challenge[1], challenge.readUInt16LE(4)]).toEqual([1, 1, TRANSACTION]);
  expect([challenge[6], challenge[8], challenge[9]]).toEqual([bytes, id, groupId]);
  const exchange = settings.prime === undefined ? undefined : createDiffieHellman(settings.prime, Uint8Array.of(2));
  const length = settings.prime?.length ?? 0;
  expect(challenge.readUInt16LE(10)).toBe(length);
  const publicValue = exchange === undefined ? Buffer.alloc(0) : leftPadded(exchange.generateKeys(), length);
  const shared = exchange?.computeSecret(challenge.subarray(16 + bytes, 16 + bytes + length));
  const bound = (value: Uint8Array): Uint8Array =>
    shared === undefined
      ? value
      : createHmac(hash, createHash(hash).update(leftPadded(shared, length)).digest())
          .update(value)
          .digest();
  const proof = (key: Buffer, value: Uint8Array, sequence: number, role: string, names: string): Buffer => {
    const numbers = Buffer.alloc(7);
    numbers.writeUInt32LE(sequence, 0);
    numbers.writeUInt16LE(TRANSACTION, 4);
    return createHmac(hash, key).update(bound(value)).update(numbers).update(`${role}${names}`).digest();
  };
  const value = challenge.subarray(16, 16 + bytes);
  const names = `${hostNqn}\0${subsystemNqn}`;
  const response = proof(keyOf(settings.secret, hostNqn), value, challenge.readUInt32LE(12), "HostHost", names);
  const own = controllerSecret === undefined ? Buffer.alloc(bytes) : randomBytes(bytes);
  const reply = Buffer.concat([Buffer.alloc(16), response, own, publicValue]);
  reply[0] = 1;
  reply[1] = 2;
  reply.writeUInt16LE(TRANSACTION, 4);
  reply[6] = bytes;
  reply[8] = controllerSecret === undefined ? 0 : 1;
  reply.writeUInt16LE(length, 10);
  reply.writeUInt32LE(controllerSecret === undefined ? 0 : SEQUENCE, 12);
  settings.spoil?.(reply);
  await channel.send(reply);
  const answer = Buffer.from(await channel.receive());
  if (controllerSecret !== undefined && answer[1] === 3) {
    const key = keyOf(controllerSecret, subsystemNqn);
    const expected = proof(key, own, SEQUENCE, "Controller", `${subsystemNqn}\0${hostNqn}`);
    expect(answer[8]).toBe(1);
    expect(answer.subarray(16, 16 + bytes)).toEqual(expected);
    const success2 = Buffer.alloc(16);
    success2[0] = 1;
    success2[1] = 4;
    success2.writeUInt16LE(TRANSACTION, 4);
    await channel.send(success2);
  }
  return answer;
}

function leftPadded(value: Uint8Array, length: number): Buffer {
  return Buffer.concat([Buffer.alloc(length - value.length), value]);
}
