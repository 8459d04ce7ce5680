import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openRaw } from "../../../../src/formats/raw/device.js";
import type { NbdService } from "../../../../src/servers/nbd/service.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { startNbdService } from "../../../support/nbd-service.js";
import { SlowNbdClient } from "../../../support/nbd-slow-client.js";
import { temporaryFolder } from "../../../support/temporary-folder.js";

const KIB = 1024;
const SIZE = 8 * KIB * KIB;

/** Every byte tells where it lies. */
const pattern = (offset: number, length: number): Buffer =>
  Buffer.from(Array.from({ length }, (_, index) => (offset + index + ((offset + index) >>> 9)) & 255));

describe("requests past the event loop", () => {
  const at = temporaryFolder();
  let service: NbdService;
  let sockets = 0;
  let path = "";

  beforeEach(async () => {
    path = at(`${sockets++}.sock`);
    service = await startNbdService(path, openRaw(memoryStorage(new Uint8Array(pattern(0, SIZE)))));
  });

  afterEach(() => service.close());

  async function reading(): Promise<SlowNbdClient> {
    const client = await SlowNbdClient.connect(path);
    client.startReading();
    return client;
  }

  it("answers one request after the other, alone and in between those of others, with the data asked for", async () => {
    const [one, other] = [await reading(), await reading()];
    for (let turn = 0; turn < 300; turn++) {
      const offset = (turn * 7919 * 512) % (SIZE - 64 * KIB);
      const length = turn % 50 === 0 ? 64 * KIB : 512;
      one.read(offset, length);
      expect((await one.answer(length)).equals(pattern(offset, length))).toBe(true);
      if (turn < 100 || turn % 10 > 0) continue;
      other.read(offset, 512);
      expect((await other.answer(512)).equals(pattern(offset, 512))).toBe(true);
    }
    for (const client of [one, other]) client.end();
  });

  it("takes large writes where they are to lie, however the requests are cut, and small ones among them", async () => {
    const client = await reading();
    const lengths = [64, 100, 16, 17, 1024, 4, 300, 2048, 1, 64].map((kib) => kib * KIB);
    let offset = 0;
    for (const length of lengths) {
      client.write(offset, length, pattern(offset + 1, length));
      offset += length;
    }
    for (const _ of lengths) await client.answer(0);
    offset = 0;
    for (const length of lengths) {
      client.read(offset, length);
      expect((await client.answer(length)).equals(pattern(offset + 1, length))).toBe(true);
      offset += length;
    }
    client.end();
  });

  it("goes on with what the client takes late, in order", async () => {
    const client = await SlowNbdClient.connect(path);
    // Too much for the buffers of the kernel: the stream sends what is left.
    for (let index = 0; index < 40; index++) client.read(index * 100 * KIB, 200 * KIB);
    await client.sent();
    client.startReading();
    for (let index = 0; index < 40; index++) {
      const answer = await client.answer(200 * KIB);
      expect(answer.equals(pattern(index * 100 * KIB, 200 * KIB))).toBe(true);
    }
    client.end();
  });

  it("notices a client that leaves while it is waited for", async () => {
    const client = await reading();
    for (let turn = 0; turn < 40; turn++) {
      client.read(0, 512);
      await client.answer(512);
    }
    expect(service.server.connections).toBe(1);
    client.end();
    await service.server.allGone();
    expect(service.server.connections).toBe(0);
  });
});
