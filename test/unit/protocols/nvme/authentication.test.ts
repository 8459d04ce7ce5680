import {
  createDiffieHellman,
  createHash,
  createHmac,
  getDiffieHellman,
  randomBytes,
  timingSafeEqual,
} from "node:crypto";
import { afterEach, describe, expect, it } from "vitest";
import type { ChapCrypto, ChapGroup, ChapHash } from "../../../../src/protocols/nvme/auth/chap-crypto.js";
import { crc32, parseChapSecret } from "../../../../src/protocols/nvme/auth/chap-secret.js";
import { DhHmacChap, type DhHmacChapOptions } from "../../../../src/protocols/nvme/auth/dh-hmac-chap.js";
import { connectCommand, HOST_NQN, HostQueue, ioCommand } from "../../../support/nvme-initiator.js";
import { type Bench, memoryImage, SUBSYSTEM_NQN, startTarget } from "../../../support/nvme-pipe.js";

const MIB = 1024 * 1024;

/** Any safe prime of 2048 bits does for the protocol. */
const PRIME = getDiffieHellman("modp14").getPrime();

const nodeCrypto: ChapCrypto = {
  digest: (hash, data) => createHash(hash).update(data).digest(),
  hmac: (hash, key, data) => createHmac(hash, key).update(data).digest(),
  randomBytes: (length) => randomBytes(length),
  equal: (a, b) => a.length === b.length && timingSafeEqual(a, b),
  generateKeyPair: () => {
    const dh = createDiffieHellman(PRIME, 2);
    const publicValue = dh.generateKeys();
    return { publicValue, secretWith: (peer) => dh.computeSecret(peer) };
  },
};

function secretText(transform: 0 | 1 | 2 | 3, fill: number, length: 32 | 48 | 64): string {
  const key = Buffer.alloc(length + 4, fill);
  key.writeUInt32LE(crc32(key.subarray(0, length)), length);
  return `DHHC-1:0${transform}:${key.toString("base64")}:`;
}

/** A host that follows the specification, on its own. */
class ChapHost {
  readonly queue: HostQueue;
  readonly key: Buffer;
  readonly transaction = 0x1234;
  hash = "sha256";
  group = 0;
  sequence = 0;
  challenge: Buffer = Buffer.alloc(0);
  skey: Buffer = Buffer.alloc(0);

  constructor(queue: HostQueue, key: Buffer) {
    this.queue = queue;
    this.key = key;
  }

  send(data: Uint8Array) {
    return this.queue.command({ opcode: 0x7f, nsid: 5, dword10: 0xe901_0100, dword11: data.length, data });
  }

  async receive(): Promise<Buffer> {
    const { status, data } = await this.queue.command({
      opcode: 0x7f,
      nsid: 6,
      dword10: 0xe901_0100,
      dword11: 4096,
      room: 4096,
    });
    expect(status).toBe(0);
    return Buffer.from(data);
  }

  negotiation(hashes: readonly number[], groups: readonly number[], secureChannel = 0): Buffer {
    const message = Buffer.alloc(8 + 64);
    message.writeUInt16LE(this.transaction, 4);
    message[6] = secureChannel;
    message[7] = 1;
    message[8] = 1;
    message[10] = hashes.length;
    message[11] = groups.length;
    message.set(hashes, 12);
    message.set(groups, 42);
    return message;
  }

  readChallenge(message: Buffer): { dh: Buffer } {
    expect([message[0], message[1], message.readUInt16LE(4)]).toEqual([1, 1, this.transaction]);
    const length = message[6] as number;
    this.hash = ["", "sha256", "sha384", "sha512"][message[8] as number] as string;
    this.group = message[9] as number;
    this.sequence = message.readUInt32LE(12);
    this.challenge = message.subarray(16, 16 + length);
    return { dh: message.subarray(16 + length, 16 + length + message.readUInt16LE(10)) };
  }

  response(side: "HostHost" | "Controller", key: Buffer, challenge: Buffer, sequence: number): Buffer {
    let bound = challenge;
    if (this.group !== 0) {
      const session = createHash(this.hash).update(this.skey).digest();
      bound = createHmac(this.hash, session).update(challenge).digest();
    }
    const numbers = Buffer.alloc(7);
    numbers.writeUInt32LE(sequence, 0);
    numbers.writeUInt16LE(this.transaction, 4);
    const names = side === "HostHost" ? [HOST_NQN, SUBSYSTEM_NQN] : [SUBSYSTEM_NQN, HOST_NQN];
    return createHmac(this.hash, key).update(bound).update(numbers).update(`${side}${names[0]}\0${names[1]}`).digest();
  }

  reply(response: Buffer, challenge: Buffer | undefined, dh: Buffer): Buffer {
    const header = Buffer.alloc(16);
    header.set([1, 2]);
    header.writeUInt16LE(this.transaction, 4);
    header[6] = response.length;
    header[8] = challenge === undefined ? 0 : 1;
    header.writeUInt16LE(dh.length, 10);
    header.writeUInt32LE(challenge === undefined ? 0 : 77, 12);
    return Buffer.concat([header, response, challenge ?? Buffer.alloc(response.length), dh]);
  }

  /** Answers a challenge, with our own value where the group wants one. */
  answer(message: Buffer, challenge?: Buffer): Buffer {
    const { dh } = this.readChallenge(message);
    let own = Buffer.alloc(0);
    if (this.group !== 0) {
      const pair = createDiffieHellman(PRIME, 2);
      own = Buffer.concat([Buffer.alloc(256), pair.generateKeys()]).subarray(-256);
      this.skey = Buffer.concat([Buffer.alloc(256), pair.computeSecret(dh)]).subarray(-256);
    }
    return this.reply(this.response("HostHost", this.key, this.challenge, this.sequence), challenge, own);
  }
}

let bench: Bench;

async function connect(more: Partial<DhHmacChapOptions> = {}, key = 7): Promise<ChapHost> {
  const hostSecret = parseChapSecret(secretText(0, 7, 32));
  const begin = (names: { hostNqn: string; subsystemNqn: string }) =>
    new DhHmacChap({ crypto: nodeCrypto, ...names, hostSecret, ...more });
  bench = startTarget({
    devices: [await memoryImage({ size: MIB })],
    subsystem: { hosts: new Map([[HOST_NQN, { authenticate: begin }]]) },
  });
  const queue = new HostQueue(bench.open(), { inCapsule: 8192 });
  await queue.initialize();
  const completion = await queue.command(connectCommand({ subsystemNqn: SUBSYSTEM_NQN }));
  expect([completion.status, completion.low >>> 16]).toEqual([0, 2]);
  return new ChapHost(queue, Buffer.alloc(32, key));
}

afterEach(async () => {
  await bench.target.close();
});

const isIn = async (host: ChapHost): Promise<boolean> => {
  const { status } = await host.queue.command({ opcode: 0x7f, nsid: 4, dword11: 0x1c });
  expect([0, 0x191]).toContain(status);
  return status === 0;
};

describe("DH-HMAC-CHAP", () => {
  it.each<[number[], number[], string, number]>([
    [[1], [0], "sha256", 0],
    [[2], [0], "sha384", 0],
    [[1, 2, 3], [0, 1], "sha512", 1],
    [[1], [1], "sha256", 1],
  ])("lets in a host that knows the secret: hashes %j, groups %j", async (hashes, groups, hash, group) => {
    const host = await connect();
    expect(await isIn(host)).toBe(false);
    expect((await host.send(host.negotiation(hashes, groups))).status).toBe(0);
    const reply = host.answer(await host.receive());
    expect([host.hash, host.group]).toEqual([hash, group]);
    expect((await host.send(reply)).status).toBe(0);
    expect(await isIn(host)).toBe(false);
    const success = await host.receive();
    expect([success[0], success[1], success[8]]).toEqual([1, 3, 0]);
    expect(await isIn(host)).toBe(true);
    bench.clock.advance(100_000);
    expect(await isIn(host)).toBe(true);
  });

  it("shows the host who we are when it asks", async () => {
    const host = await connect({ controllerSecret: parseChapSecret(secretText(0, 9, 48)) });
    await host.send(host.negotiation([1], [1]));
    const challenge = randomBytes(32);
    await host.send(host.answer(await host.receive(), challenge));
    const success = await host.receive();
    expect(success[8]).toBe(1);
    const expected = host.response("Controller", Buffer.alloc(48, 9), challenge, 77);
    expect(Buffer.compare(success.subarray(16, 48), expected)).toBe(0);
    expect(await isIn(host)).toBe(false);
    const success2 = Buffer.alloc(16);
    success2.set([1, 4]);
    success2.writeUInt16LE(host.transaction, 4);
    await host.send(success2);
    expect(await isIn(host)).toBe(true);
  });

  it("binds a transformed secret to the host's name", async () => {
    const host = await connect({ hostSecret: parseChapSecret(secretText(1, 7, 32)) });
    const key = createHmac("sha256", Buffer.alloc(32, 7)).update(`${HOST_NQN}NVMe-over-Fabrics`).digest();
    const bound = new ChapHost(host.queue, key);
    await bound.send(bound.negotiation([1], [0]));
    await bound.send(bound.answer(await bound.receive()));
    expect((await bound.receive())[1]).toBe(3);
    expect(await isIn(bound)).toBe(true);
  });

  const failureOf = async (host: ChapHost): Promise<number> => {
    const message = await host.receive();
    expect([message[0], message[1], message[6]]).toEqual([0, 0xf1, 1]);
    await host.queue.untilClosed();
    expect(bench.events.map((event) => event.kind)).toContain("authentication-failed");
    return message[7] as number;
  };

  it("keeps out a host with another secret, after telling it", async () => {
    const host = await connect({}, 8);
    await host.send(host.negotiation([1], [0]));
    await host.send(host.answer(await host.receive()));
    expect(await failureOf(host)).toBe(1);
  });

  it.each<[string, (host: ChapHost) => Buffer, Partial<DhHmacChapOptions>, number]>([
    ["a secure channel", (host) => host.negotiation([1], [0], 1), {}, 3],
    ["no hash of ours", (host) => host.negotiation([1], [0]), { hashes: ["sha512"] as ChapHash[] }, 4],
    ["no group of ours", (host) => host.negotiation([1], [0]), { groups: ["ffdhe3072"] as ChapGroup[] }, 5],
    ["another protocol", (host) => Buffer.from(host.negotiation([1], [0])).fill(2, 8, 9), {}, 2],
    ["a list that is cut off", (host) => host.negotiation([1], [0]).subarray(0, 40), {}, 6],
    ["too many hashes", (host) => Buffer.from(host.negotiation([1], [0])).fill(31, 10, 11), {}, 6],
    ["a reply before the challenge", (host) => host.reply(Buffer.alloc(32), undefined, Buffer.alloc(0)), {}, 7],
    ["a message that is none", () => Buffer.alloc(16, 0x55), {}, 7],
    ["a message of three bytes", () => Buffer.alloc(3), {}, 6],
  ])("refuses a host that sends %s", async (_what, message, more, reason) => {
    const host = await connect(more);
    expect((await host.send(message(host))).status).toBe(0);
    expect(await failureOf(host)).toBe(reason);
  });

  it.each<[string, (host: ChapHost, challenge: Buffer) => Buffer, number]>([
    ["a response of another length", (host) => host.reply(Buffer.alloc(48), undefined, Buffer.alloc(0)), 6],
    ["a value no group has", (host) => host.reply(Buffer.alloc(32), undefined, Buffer.alloc(8)), 6],
    ["a challenge to us, who have no secret", (host, challenge) => host.answer(challenge, randomBytes(32)), 1],
    ["a reply that is cut off", (host, challenge) => host.answer(challenge).subarray(0, 50), 6],
  ])("refuses a host that answers with %s", async (_what, reply, reason) => {
    const host = await connect();
    await host.send(host.negotiation([1], [0]));
    await host.send(reply(host, await host.receive()));
    expect(await failureOf(host)).toBe(reason);
  });

  it("does not sign a host's copy of our own challenge", async () => {
    const host = await connect({ controllerSecret: parseChapSecret(secretText(0, 9, 32)) });
    await host.send(host.negotiation([1], [0]));
    const message = await host.receive();
    await host.send(host.answer(message, message.subarray(16, 48)));
    expect(await failureOf(host)).toBe(1);
  });

  it("refuses values of the group that give the secret away", async () => {
    const host = await connect();
    await host.send(host.negotiation([1], [1]));
    await host.receive();
    await host.send(host.reply(Buffer.alloc(32), undefined, Buffer.alloc(256)));
    expect(await failureOf(host)).toBe(1);
  });

  it("checks the fields of its commands, and drops hosts that take too long", async () => {
    const host = await connect();
    const send = (fields: object) => host.queue.command({ opcode: 0x7f, nsid: 5, ...fields });
    const data = new Uint8Array(16);
    expect((await send({ dword10: 0xea01_0100, dword11: 16, data })).status).toBe(2);
    expect((await send({ dword10: 0xe901_0100, dword11: 0 })).status).toBe(2);
    expect((await send({ dword10: 0xe901_0100, dword11: 5000, data: new Uint8Array(5000) })).status).toBe(2);
    const receive = { opcode: 0x7f, nsid: 6, dword10: 0xe901_0100, dword11: 64, room: 64 };
    expect((await host.queue.command(receive)).status).toBe(0x0c);
    expect((await host.queue.command(ioCommand.flush(1))).status).toBe(0x191);
    bench.clock.advance(10_000);
    await host.queue.untilClosed();
  });
});

describe("a DH-HMAC-CHAP secret", () => {
  it.each([
    ["another form", "DHHC-2:00:AAAA:"],
    ["an unknown transformation", secretText(0, 1, 32).replace(":00:", ":04:")],
    ["a key of 16 bytes", `DHHC-1:00:${Buffer.alloc(20).toString("base64")}:`],
    ["a wrong checksum", `DHHC-1:00:${Buffer.alloc(36, 1).toString("base64")}:`],
  ])("is refused with %s, without being shown", (_what, text) => {
    const read = (): unknown => parseChapSecret(text);
    expect(read).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }) as Error);
    expect(read).not.toThrow(text.slice(10));
  });

  it("is read with its transformation", () => {
    expect(parseChapSecret(secretText(3, 5, 64))).toMatchObject({ transform: "sha512" });
    expect(parseChapSecret(secretText(0, 5, 48)).key.length).toBe(48);
    // The check value of this CRC.
    expect(crc32(new TextEncoder().encode("123456789"))).toBe(0xcbf43926);
  });
});
