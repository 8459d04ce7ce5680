import { connect } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { openRaw } from "../../../../src/formats/raw/device.js";
import type { NbdService } from "../../../../src/servers/nbd/service.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { openNbdStorage } from "../../../../src/storage/nbd/nbd-storage.js";
import type { Storage } from "../../../../src/storage/storage.js";
import { startNbdService, unixUri } from "../../../support/nbd-service.js";
import { SlowNbdClient } from "../../../support/nbd-slow-client.js";
import { temporaryFolder } from "../../../support/temporary-folder.js";

const KIB = 1024;
const MIB = KIB * KIB;
const SIZE = 64 * MIB;
const inFolder = temporaryFolder();
let sockets = 0;
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

/** Of no power of two, so that it lies differently in every block. */
const PERIOD = 251;
const pattern = (length: number, seed: number) =>
  new Uint8Array(
    Buffer.alloc(
      length,
      Uint8Array.from({ length: PERIOD }, (_, i) => (i * 13 + seed) & 0xff),
    ),
  );

async function served(): Promise<{ path: string; bytes: Uint8Array; service: NbdService }> {
  const path = inFolder(`${++sockets}.sock`);
  const bytes = pattern(SIZE, 1);
  const service = await startNbdService(path, openRaw(memoryStorage(bytes)));
  closers.push(() => service.close());
  return { path, bytes, service };
}

async function slow(path: string): Promise<SlowNbdClient> {
  const client = await SlowNbdClient.connect(path);
  closers.push(() => client.end());
  return client;
}

async function ordinary(path: string): Promise<Storage> {
  const storage = await openNbdStorage(unixUri(path), { writable: true });
  closers.push(() => storage.close());
  return storage;
}

/** Far more than could be done by chance while another client is on its turn. */
async function expectToBeServed(storage: Storage, seed: number): Promise<void> {
  for (let round = 0; round < 50; round++) {
    const at = 32 * MIB + round * 300 * KIB;
    const data = pattern(4000 + round, seed + round);
    await storage.write(at, data);
    const back = new Uint8Array(data.length);
    await storage.read(at, back);
    expect(Buffer.compare(back, data)).toBe(0);
  }
  const large = new Uint8Array(8 * MIB);
  await storage.read(0, large);
  expect(Buffer.compare(large, pattern(large.length, 1))).toBe(0);
  await storage.flush();
}

/** Resolves when the server has nothing more to do for anybody. */
const quiet = () => new Promise((resolve) => setTimeout(resolve, 100));

describe("an NBD server with slow clients", () => {
  it("serves others while clients do not read what they have asked for", async () => {
    const { path, bytes } = await served();
    const storage = await ordinary(path);
    const lazy = [await slow(path), await slow(path), await slow(path)];
    for (const client of lazy) for (let index = 0; index < 64; index++) client.read((index % 32) * MIB, MIB);
    for (const client of lazy) for (let index = 0; index < 2000; index++) client.read(index * 4 * KIB, 4 * KIB);
    await quiet();
    await expectToBeServed(storage, 3);
    // They get all of it as soon as they want to.
    const [first] = lazy as [SlowNbdClient];
    first.startReading();
    for (let index = 0; index < 32; index++) {
      const expected = bytes.subarray(index * MIB, (index + 1) * MIB);
      expect(Buffer.compare(await first.answer(MIB), expected)).toBe(0);
    }
    for (const client of lazy) client.end();
    await expectToBeServed(storage, 4);
  });

  it("serves others while clients do not send the data of their writes", async () => {
    const { path, bytes, service } = await served();
    const storage = await ordinary(path);
    const before = bytes.slice(0, 32 * MIB);
    const silent = await Promise.all([0, 1, 2, 3].map(() => slow(path)));
    for (const [index, client] of silent.entries()) {
      client.write(index * MIB, [4 * KIB, MIB, 8 * MIB, 28 * MIB][index] ?? 0, pattern(index * 700, 9));
    }
    await quiet();
    await expectToBeServed(storage, 5);
    for (const client of silent) client.end();
    await expectToBeServed(storage, 6);
    // Of a write that was never sent to its end, at most whole pieces are done; of these not even one had come.
    expect(Buffer.compare(bytes.subarray(0, 32 * MIB), before)).toBe(0);
    expect(service.server.connections).toBeLessThanOrEqual(4);
  });

  it("serves others while clients send nothing at all, or a byte at a time", async () => {
    const { path } = await served();
    const storage = await ordinary(path);
    const mute = Array.from({ length: 20 }, () => connect(path));
    for (const socket of mute) socket.on("error", () => undefined);
    closers.push(() => mute.forEach((socket) => socket.destroy()));
    const [creeping] = mute;
    creeping?.write(Uint8Array.of(0, 0));
    await quiet();
    await expectToBeServed(storage, 7);
    for (const socket of mute) socket.destroy();
    await expectToBeServed(storage, 8);
  });

  it("stops while clients are stuck", async () => {
    const { path, service } = await served();
    const lazy = await slow(path);
    for (let index = 0; index < 64; index++) lazy.read(index * MIB, MIB);
    const silent = await slow(path);
    silent.write(0, 8 * MIB, pattern(100, 1));
    await quiet();
    await service.close();
    expect(service.server.connections).toBe(0);
  });
});
