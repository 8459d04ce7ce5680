/** Hosts that break every rule: random and mutated PDUs against a target that has an honest host beside them. */
import { expect } from "vitest";
import {
  connectCommand,
  HostQueue,
  type HostStream,
  icReq,
  ioCommand,
  NvmeHost,
  referenceCrc32c,
} from "./nvme-initiator.js";
import { type Bench, memoryImage, SUBSYSTEM_NQN, startTarget } from "./nvme-pipe.js";
import { Random, taggedBytes } from "./random.js";
import { equalBytes } from "./sector-history.js";

const KIB = 1024;
const MIB = 1024 * KIB;
const BLOCK = 4096;

export interface FuzzResult {
  readonly pdus: number;
  readonly connections: number;
  readonly terminated: number;
  /** I/O commands that got as far as the device. */
  readonly executed: number;
}

/**
 * Sends `count` PDUs over as many connections as it takes. Throws when the target reports a mistake of its own, leaves a
 * connection behind, gives an honest host wrong data, or makes a promise that fails unheard.
 */
export async function fuzzTarget(seed: number, count: number): Promise<FuzzResult> {
  const random = new Random(seed);
  const zoned = await memoryImage({ size: 4 * MIB, zone: { mode: "host-managed", size: 256 * KIB, maxOpenZones: 3 } });
  const bench = startTarget({
    devices: [await memoryImage({ size: 4 * MIB }), zoned],
    limits: { controllers: 8, transferBytes: 256 * KIB, appendBytes: 64 * KIB, writeBytesInFlight: 512 * KIB },
    subsystem: { shared: true },
  });
  const honest = await NvmeHost.connect(() => bench.open(), { subsystemNqn: SUBSYSTEM_NQN, hostId: 0x77 });
  let pdus = 0;
  let connections = 0;
  while (pdus < count) {
    connections += 1;
    pdus += await attack(bench, random, Math.min(count - pdus, random.between(1, 40)));
    if (connections % 16 === 0) await checkHonest(honest, random);
  }
  await checkHonest(honest, random);
  honest.close();
  await bench.target.close();
  expect(bench.target.connections.size).toBe(0);
  expect(bench.clock.pending).toBeLessThanOrEqual(connections);
  const mistakes = bench.events.filter((event) => event.kind === "internal-error" || event.kind === "settle-failed");
  expect(mistakes).toEqual([]);
  const failures = bench.events.filter((event) => event.kind === "command-failed");
  expect(failures).toEqual([]);
  let executed = 0;
  for (const { counters } of bench.subsystem.namespaces.values()) {
    executed += counters.reads + counters.writes + counters.appends + counters.zoneOperations;
  }
  return {
    pdus,
    connections,
    executed,
    terminated: bench.events.filter((event) => event.kind === "protocol-error").length,
  };
}

/** One connection of a bad host: sometimes garbage from the start, mostly from some point on. Returns PDUs sent. */
async function attack(bench: Bench, random: Random, count: number): Promise<number> {
  const digests = { headerDigest: random.chance(0.3), dataDigest: random.chance(0.3) };
  const pipe = bench.open();
  pipe.pieces = random.pick([1 << 30, 1 << 30, 1000, 33]);
  const queue = new HostQueue(pipe, digests);
  pipe.onData((bytes) => answerSomeRequests(queue, bytes, random));
  const digestBits = (digests.headerDigest ? 1 : 0) | (digests.dataDigest ? 2 : 0);
  if (random.chance(0.98)) pipe.write(icReq({ digests: digestBits }));
  if (random.chance(0.95)) pipe.write(connectPdu(queue, bench, random));
  if (random.chance(0.7)) pipe.write(queue.encodeCapsule(0, { opcode: 0x7f, dword11: 0x14, dword12: 0x0046_0061 }));
  let sent = 0;
  while (sent < count && !pipe.ended) {
    pipe.write(randomPdu(queue, random));
    sent += 1;
    if (random.chance(0.1)) await Promise.resolve();
  }
  if (random.chance(0.5)) bench.clock.advance(random.below(200));
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
  pipe.close();
  return Math.max(sent, 1);
}

const NOWHERE: HostStream = { write: () => {}, onData: () => {}, onClose: () => {}, close: () => {} };

/** Joins the honest host's controller on an I/O queue, or makes a controller of its own. */
function connectPdu(queue: HostQueue, bench: Bench, random: Random): Uint8Array {
  const controllers = [...bench.subsystem.controllers];
  const io = random.chance(0.85);
  const fields = {
    subsystemNqn: SUBSYSTEM_NQN,
    hostId: 0x77,
    queueId: io ? random.between(2, 17) : 0,
    controllerId: io ? (controllers[0]?.id ?? 1) : 0xffff,
    queueSize: random.pick([3, 31, 127]),
  };
  return capsuleWithData(queue, random.below(4), connectCommand(fields));
}

function capsuleWithData(queue: HostQueue, id: number, fields: Parameters<HostQueue["encodeCapsule"]>[1]): Uint8Array {
  const whole = new HostQueue(NOWHERE, { ...queue.options, inCapsule: 8192 });
  return whole.encodeCapsule(id, fields);
}

function randomPdu(queue: HostQueue, random: Random): Uint8Array {
  const kind = random.below(100);
  if (kind < 2) return Uint8Array.from({ length: random.between(1, 200) }, () => random.below(256));
  if (kind < 4) return dataPdu(queue, random);
  const bytes = commandPdu(queue, random);
  if (kind < 7) mutate(bytes, random, 0, 8);
  else if (kind < 50) mutate(bytes, random, 8, 72);
  if (kind < 49 && queue.options.headerDigest === true) {
    new DataView(bytes.buffer).setUint32(72, referenceCrc32c(bytes.subarray(0, 72)), true);
  }
  return kind < 51 || random.chance(0.99) ? bytes : bytes.subarray(0, random.below(bytes.length));
}

/** Sends what R2Ts ask for, now and then. Replies come in whole PDUs. */
function answerSomeRequests(queue: HostQueue, bytes: Uint8Array, random: Random): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at + 8 <= bytes.length; at += Math.max(8, view.getUint32(at + 4, true))) {
    if (bytes[at] !== 9 || random.chance(0.3)) continue;
    const request = { commandId: view.getUint16(at + 8, true), tag: view.getUint16(at + 10, true) };
    const length = view.getUint32(at + 16, true);
    const half = random.chance(0.2) ? length / 2 : length;
    const pdus = [queue.encodeData(request, 0, new Uint8Array(half), half === length)];
    if (half < length && random.chance(0.7)) pdus.push(queue.encodeData(request, half, new Uint8Array(half), true));
    queueMicrotask(() => {
      for (const pdu of pdus) if (length <= 128 * KIB) queue.stream.write(pdu);
    });
  }
}

function dataPdu(queue: HostQueue, random: Random): Uint8Array {
  const request = { commandId: random.below(32), tag: random.below(4) };
  const data = new Uint8Array(random.pick([4, 512, BLOCK]));
  return queue.encodeData(request, random.pick([0, 0, 512, BLOCK]), data, random.chance(0.5));
}

function commandPdu(queue: HostQueue, random: Random): Uint8Array {
  const nsid = random.pick([1, 1, 1, 1, 2, 2, 2, 2, 2, random.pick([0, 3, 0xffffffff])]);
  const lba = random.pick([0, 0, 1, 63, 64, 64, 128, 192, 256, 1023, random.pick([1024, 0xffffffff])]);
  const blocks = random.pick([1, 1, 1, 2, 2, 8, 16, 64, random.pick([65, 65536])]);
  const data = new Uint8Array(Math.min(blocks, 64) * BLOCK);
  const fields = random.pick([
    () => ioCommand.read(nsid, lba, blocks, BLOCK),
    () => ioCommand.write(nsid, lba, blocks, data),
    () => ioCommand.append(nsid, lba, blocks, data),
    () => ioCommand.writeZeroes(nsid, lba, blocks),
    () => ioCommand.zoneSend(nsid, lba, random.below(20), random.chance(0.2)),
    () => ioCommand.zoneReport(nsid, lba, random.pick([4, 64, 4096, 1 << 20]), random.below(10), random.chance(0.5)),
    () => ioCommand.copy(nsid, lba, [{ lba: random.pick([0, 5, 1023]), blocks: random.between(1, 100) }]),
    () => ioCommand.deallocate(nsid, [{ lba, blocks: random.pick([0, 1, 0xffffffff]) }]),
    () => ioCommand.compare(nsid, lba, 1, data.subarray(0, BLOCK)),
    () => ioCommand.verify(nsid, lba, blocks),
    () => ioCommand.flush(nsid),
    () => ({ opcode: 0x06, nsid, dword10: random.below(40), dword11: random.below(4) * 0x100_0000, room: 4096 }),
    () => ({ opcode: 0x02, nsid, dword10: random.below(256) | (random.below(2048) << 16), room: 8192 }),
    () => ({ opcode: random.pick([0x09, 0x0a]), nsid: 0, dword10: random.below(256), dword11: random.below(0xffff) }),
    () => ({ opcode: 0x0c }),
    () => ({ opcode: 0x7f, nsid: random.below(10), dword10: random.below(2), dword11: random.below(0x80) }),
    () => ({ opcode: random.below(256), nsid, dword10: random.u32(), dword12: random.u32(), dword13: random.u32() }),
  ])();
  const id = random.below(40);
  return random.chance(0.4) ? capsuleWithData(queue, id, fields) : queue.encodeCapsule(id, fields);
}

/** Changes a few bytes of [from, to). */
function mutate(bytes: Uint8Array, random: Random, from: number, to: number): void {
  const changes = random.between(1, 3);
  for (let index = 0; index < changes; index++) {
    const at = random.between(from, Math.min(bytes.length, to) - 1);
    bytes[at] = random.pick([0, 0xff, 0x80, random.below(256), (bytes[at] as number) ^ (1 << random.below(8))]);
  }
}

/** A host that keeps to the rules finds its own data, whatever others do elsewhere. */
async function checkHonest(host: NvmeHost, random: Random): Promise<void> {
  if (host.io.closed || host.admin.closed) throw new Error("the honest host lost its connection");
  const data = taggedBytes(random.below(1000), 0, BLOCK);
  const write = await host.io.command(ioCommand.write(1, 1000, 1, data));
  const read = await host.io.command(ioCommand.read(1, 1000, 1, BLOCK));
  expect([write.status, read.status, equalBytes(read.data, data)]).toEqual([0, 0, true]);
  expect((await host.admin.command({ opcode: 0x18 })).status).toBe(0);
}
