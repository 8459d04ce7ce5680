import { createHash, randomBytes } from "node:crypto";
import { crc32 } from "node:zlib";
import { describe, expect, test } from "vitest";
import {
  augmentedChallenge,
  CHAP_GROUPS,
  CHAP_HASHES,
  ChapAuthenticator,
  type ChapOptions,
  chapResponse,
  parseChapSecret,
  transformedKey,
} from "../../../../../src/servers/nvme-tcp/security/dh-chap.js";
import {
  CHAP_HASH_BYTES,
  CHAP_HASH_IDS,
  type ChapHash,
} from "../../../../../src/servers/nvme-tcp/security/dh-chap-message.js";
import {
  DH_GROUP_IDS,
  DhExchange,
  type DhGroup,
  dhPrime,
} from "../../../../../src/servers/nvme-tcp/security/dh-groups.js";

const NAMES = { hostNqn: "nqn.2026-01.test:host", subsystemNqn: "nqn.2026-01.test:disk" };
const TRANSACTION = 0x1234;

function secret(fill: number, hh = "01"): string {
  const key = Buffer.alloc({ "01": 32, "02": 48, "03": 64 }[hh] ?? 32, fill);
  const crc = Buffer.alloc(4);
  crc.writeUInt32LE(crc32(key));
  return `DHHC-1:${hh}:${Buffer.concat([key, crc]).toString("base64")}:`;
}

const HOST_SECRET = parseChapSecret(secret(1));
const CONTROLLER_SECRET = parseChapSecret(secret(2, "03"));

/** A host, written down from the protocol and not from the code under test, save for the HMAC itself. */
function negotiate(hashes: readonly number[], groups: readonly number[], secureConcatenation = 0): Uint8Array {
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

interface HostSettings {
  readonly hash: ChapHash;
  readonly group: DhGroup;
  readonly hostSecret?: ReturnType<typeof parseChapSecret>;
  readonly proveController?: boolean;
  readonly spoil?: (reply: Buffer) => void;
}

function authenticateHost(server: ChapAuthenticator, settings: HostSettings): Buffer | undefined {
  const { hash, group } = settings;
  server.receive(negotiate([CHAP_HASH_IDS[hash]], [DH_GROUP_IDS[group]]));
  const challenge = Buffer.from(server.next() ?? []);
  expect([challenge[0], challenge[1], challenge.readUInt16LE(4)]).toEqual([1, 1, TRANSACTION]);
  expect([challenge[8], challenge[9]]).toEqual([CHAP_HASH_IDS[hash], DH_GROUP_IDS[group]]);
  const bytes = CHAP_HASH_BYTES[hash];
  const value = challenge.subarray(16, 16 + bytes);
  const exchange = group === "null" ? undefined : new DhExchange(group);
  const shared = exchange?.sharedSecret(challenge.subarray(16 + bytes, 16 + bytes + challenge.readUInt16LE(10)));
  const response = chapResponse({
    hash,
    key: transformedKey(settings.hostSecret ?? HOST_SECRET, NAMES.hostNqn),
    challenge: augmentedChallenge(hash, value, shared),
    sequence: challenge.readUInt32LE(12),
    transaction: TRANSACTION,
    role: "HostHost",
    prover: NAMES.hostNqn,
    verifier: NAMES.subsystemNqn,
  });
  const own = randomBytes(bytes);
  const reply = Buffer.concat([
    Buffer.alloc(16),
    response,
    settings.proveController === true ? own : Buffer.alloc(bytes),
    exchange?.publicValue ?? new Uint8Array(0),
  ]);
  reply[0] = 1;
  reply[1] = 2;
  reply.writeUInt16LE(TRANSACTION, 4);
  reply[6] = bytes;
  reply[8] = settings.proveController === true ? 1 : 0;
  reply.writeUInt16LE(exchange?.publicValue.length ?? 0, 10);
  reply.writeUInt32LE(77, 12);
  settings.spoil?.(reply);
  server.receive(reply);
  const answer = server.next();
  if (answer === undefined) return undefined;
  if (settings.proveController === true && answer[1] === 3) {
    const expected = chapResponse({
      hash,
      key: transformedKey(CONTROLLER_SECRET, NAMES.subsystemNqn),
      challenge: augmentedChallenge(hash, own, shared),
      sequence: 77,
      transaction: TRANSACTION,
      role: "Controller",
      prover: NAMES.subsystemNqn,
      verifier: NAMES.hostNqn,
    });
    expect(Buffer.from(answer.subarray(16))).toEqual(Buffer.from(expected));
  }
  return Buffer.from(answer);
}

const authenticator = (options: Partial<ChapOptions> = {}): ChapAuthenticator =>
  new ChapAuthenticator({ hostSecret: HOST_SECRET, ...options }, NAMES);

describe("DH-HMAC-CHAP", () => {
  const pairs = CHAP_HASHES.flatMap((hash) => CHAP_GROUPS.map((group) => [hash, group] as const));

  test.each(pairs)("a host with the right secret gets in with %s and %s", (hash, group) => {
    const server = authenticator();
    const answer = authenticateHost(server, { hash, group });
    expect([answer?.[0], answer?.[1], server.state]).toEqual([1, 3, "authenticated"]);
  });

  test.each(pairs)("the controller proves itself to a host that asks with %s and %s", (hash, group) => {
    const server = authenticator({ controllerSecret: CONTROLLER_SECRET });
    const answer = authenticateHost(server, { hash, group, proveController: true });
    expect([answer?.[1], answer?.[8], server.state]).toEqual([3, 1, "pending"]);
    const success2 = Buffer.alloc(16);
    success2[0] = 1;
    success2[1] = 4;
    success2.writeUInt16LE(TRANSACTION, 4);
    server.receive(success2);
    expect(server.state).toBe("authenticated");
  });

  test("a wrong secret fails, with the reason for the host", () => {
    const server = authenticator();
    const answer = authenticateHost(server, {
      hash: "sha256",
      group: "ffdhe2048",
      hostSecret: parseChapSecret(secret(9)),
    });
    expect([...(answer ?? [])].slice(0, 8)).toEqual([0, 0xf0, 0, 0, 0x34, 0x12, 1, 1]);
    expect(server.state).toBe("failed");
  });

  test("a host that wants proof from a controller without a secret fails", () => {
    const server = authenticator();
    authenticateHost(server, { hash: "sha256", group: "null", proveController: true });
    expect(server.state).toBe("failed");
  });

  test("a host may authenticate once more", () => {
    const server = authenticator();
    authenticateHost(server, { hash: "sha256", group: "null" });
    authenticateHost(server, { hash: "sha512", group: "null" });
    expect(server.state).toBe("authenticated");
  });

  test.each([
    ["zero as public value", (reply: Buffer) => reply.fill(0, 16 + 64)],
    ["one as public value", (reply: Buffer) => reply.fill(0, 16 + 64).fill(1, reply.length - 1)],
    [
      "the prime less one as public value",
      (reply: Buffer) => {
        reply.set(dhPrime("ffdhe2048"), 16 + 64);
        reply[reply.length - 1] = 0xfe;
      },
    ],
    ["a shorter public value", (reply: Buffer) => reply.writeUInt16LE(255, 10)],
    ["another length of hash", (reply: Buffer) => reply.writeUInt8(31, 6)],
    ["another transaction", (reply: Buffer) => reply.writeUInt16LE(1, 4)],
    ["a length past its end", (reply: Buffer) => reply.writeUInt16LE(60_000, 10)],
  ])("a reply with %s fails", (_what, spoil) => {
    const server = authenticator();
    authenticateHost(server, { hash: "sha256", group: "ffdhe2048", spoil });
    expect(server.state).toBe("failed");
  });

  test.each([
    ["no known hash", negotiate([9], [0]), 4],
    ["no known group", negotiate([1], [9]), 5],
    ["secure concatenation", negotiate([1], [0], 1), 3],
    ["no descriptor", negotiate([1], [0]).subarray(0, 8), 6],
    ["too many hashes", negotiate(new Array(31).fill(1), [0]), 6],
    ["nothing", new Uint8Array(0), 6],
    ["a reply first", Uint8Array.from([1, 2, 0, 0, 0, 0, 32, 0, ...new Array(80).fill(0)]), 7],
    ["an unknown message", Uint8Array.from([5, 5, 0, 0, 0, 0, 0, 0]), 7],
  ])("a beginning with %s fails, and says why", (_what, message, reason) => {
    const server = authenticator();
    server.receive(message);
    const answer = server.next();
    expect([server.state, answer?.[1], answer?.[7]]).toEqual(["failed", 0xf0, reason]);
  });

  test("hashes and groups that the administrator left out are not taken", () => {
    const server = authenticator({ groups: ["ffdhe3072"], hashes: ["sha384"] });
    server.receive(negotiate([1, 2, 3], [0, 1, 2]));
    const challenge = server.next();
    expect([challenge?.[8], challenge?.[9]]).toEqual([2, 2]);
  });

  test("the groups are those of RFC 7919", () => {
    // SHA-256 of the primes as OpenSSL has them.
    const known = {
      ffdhe2048: "9cd3b7f336872f46c09428d1bbc19877a4d440512cda8d1c1cf0cd6e33698966",
      ffdhe3072: "0eaf67db3a839156d5013494a5318a772b5697d270d721f37f092efc69ea5a17",
      ffdhe4096: "4648414224ac881b3d0dc59b466f96d06a558278776807797ecf1f66ff397b3e",
      ffdhe6144: "227ac9066b3ddd9e193670cda2388fa884f65ba0cf98b742d1fe77a6687c79c7",
      ffdhe8192: "770b14efaf6f049929c523113b3fa99a8d11dab1b18af3609590122075d19833",
    };
    for (const [group, hash] of Object.entries(known)) {
      const prime = dhPrime(group as Exclude<DhGroup, "null">);
      expect(createHash("sha256").update(prime).digest("hex"), group).toBe(hash);
    }
  });
});
