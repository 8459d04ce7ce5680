import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import type { ChapGroup } from "../../../../../src/protocols/nvme/auth/chap-crypto.js";
import { parseChapSecret } from "../../../../../src/protocols/nvme/auth/chap-secret.js";
import { DhHmacChap } from "../../../../../src/protocols/nvme/auth/dh-hmac-chap.js";
import { DhExchange, dhPrime } from "../../../../../src/servers/nvme-tcp/security/dh-groups.js";
import { nodeChapCrypto } from "../../../../../src/servers/nvme-tcp/security/node-chap-crypto.js";
import {
  authenticateHost,
  type ChapChannel,
  type ChapHostSettings,
  secretText,
} from "../../../../support/chap-host.js";

const NAMES = { hostNqn: "nqn.2026-01.test:host", subsystemNqn: "nqn.2026-01.test:disk" };
const HOST_SECRET = secretText("DHHC-1", 1);
const CONTROLLER_SECRET = secretText("DHHC-1", 2, "03");
/** SHA-256 of the primes as OpenSSL has them. */
const PRIMES: Readonly<Record<Exclude<ChapGroup, "null">, string>> = {
  ffdhe2048: "9cd3b7f336872f46c09428d1bbc19877a4d440512cda8d1c1cf0cd6e33698966",
  ffdhe3072: "0eaf67db3a839156d5013494a5318a772b5697d270d721f37f092efc69ea5a17",
  ffdhe4096: "4648414224ac881b3d0dc59b466f96d06a558278776807797ecf1f66ff397b3e",
  ffdhe6144: "227ac9066b3ddd9e193670cda2388fa884f65ba0cf98b742d1fe77a6687c79c7",
  ffdhe8192: "770b14efaf6f049929c523113b3fa99a8d11dab1b18af3609590122075d19833",
};
const EXCHANGES = Object.keys(PRIMES) as (keyof typeof PRIMES)[];

function controller(): { chap: DhHmacChap; channel: ChapChannel } {
  const chap = new DhHmacChap({
    crypto: nodeChapCrypto,
    ...NAMES,
    hostSecret: parseChapSecret(HOST_SECRET),
    controllerSecret: parseChapSecret(CONTROLLER_SECRET),
  });
  const channel = {
    send: async (message: Uint8Array) => chap.receive(message),
    receive: async () => chap.next() ?? new Uint8Array(0),
  };
  return { chap, channel };
}

const settings = (more: Partial<ChapHostSettings>): ChapHostSettings => ({
  hash: "sha256",
  groupId: 0,
  ...NAMES,
  secret: HOST_SECRET,
  ...more,
});

describe("the groups of RFC 7919", () => {
  test.each(EXCHANGES)("%s has the prime that OpenSSL has", (group) => {
    expect(createHash("sha256").update(dhPrime(group)).digest("hex")).toBe(PRIMES[group]);
  });

  test.each(EXCHANGES)("two sides of %s find the same secret, as long as the prime", (group) => {
    const [a, b] = [new DhExchange(group), new DhExchange(group)];
    const secret = a.sharedSecret(b.publicValue);
    expect(b.sharedSecret(a.publicValue)).toEqual(secret);
    expect(secret).toHaveLength(dhPrime(group).length);
    expect(a.publicValue).toHaveLength(dhPrime(group).length);
    expect(a.publicValue).not.toEqual(b.publicValue);
  });

  test("values that give the secret away are refused", () => {
    const prime = dhPrime("ffdhe2048");
    const bytes = (last: number, base: Uint8Array = new Uint8Array(256)): Uint8Array =>
      Uint8Array.from([...base.slice(0, -1), last]);
    for (const value of [bytes(0), bytes(1), bytes(0xfe, prime), prime, new Uint8Array(255).fill(3)]) {
      expect(() => new DhExchange("ffdhe2048").sharedSecret(value)).toThrow();
    }
  });
});

describe("DH-HMAC-CHAP with real cryptography", () => {
  const pairs = (["sha256", "sha384", "sha512"] as const).flatMap((hash) =>
    (["null", ...EXCHANGES] as const).map((group, groupId) => [hash, group, groupId] as const),
  );

  test.each(pairs)("host and controller prove themselves with %s and %s", async (hash, group, groupId) => {
    const prime = group === "null" ? {} : { prime: dhPrime(group) };
    for (const proof of [{}, { controllerSecret: CONTROLLER_SECRET }]) {
      const { chap, channel } = controller();
      const answer = await authenticateHost(channel, settings({ hash, groupId, ...prime, ...proof }));
      expect([answer[0], answer[1], chap.state]).toEqual([1, 3, "authenticated"]);
    }
  });

  test.each([
    ["a wrong secret", { secret: secretText("DHHC-1", 9) }],
    ["another host's name", { hostNqn: "nqn.2026-01.test:other" }],
    ["another disk's name", { subsystemNqn: "nqn.2026-01.test:other" }],
    ["zero as public value", { spoil: (reply: Buffer) => reply.fill(0, 16 + 64) }],
    ["a shorter public value", { spoil: (reply: Buffer) => reply.writeUInt16LE(255, 10) }],
    ["another transaction", { spoil: (reply: Buffer) => reply.writeUInt16LE(1, 4) }],
  ])("%s fails", async (_what, more) => {
    const { chap, channel } = controller();
    const answer = await authenticateHost(channel, settings({ groupId: 1, prime: dhPrime("ffdhe2048"), ...more }));
    expect([answer[0], answer[1], chap.state]).toEqual([0, 0xf1, "failed"]);
  });
});
