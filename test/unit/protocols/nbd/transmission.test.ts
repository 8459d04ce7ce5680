import { describe, expect, it, vi } from "vitest";
import { ZcowError } from "../../../../src/base/errors.js";
import { BaseBlockDevice } from "../../../../src/block/base-device.js";
import type { BlockExtent } from "../../../../src/block/block-device.js";
import { openRaw } from "../../../../src/formats/raw/device.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { assembled, NBD_CMD, nbdBench } from "../../../support/nbd-pipe.js";
import { memoryImage } from "../../../support/nvme-pipe.js";

const MIB = 1024 * 1024;
const FORMS = ["structured", "extended"] as const;

/** Reads and writes take until they are let go. */
class SlowDisk extends BaseBlockDevice {
  readonly waiting: (() => void)[] = [];
  readonly bytes: Uint8Array;
  flushes = 0;
  failWith: Error | undefined;

  constructor(size: number) {
    super({
      format: "slow",
      name: "slow",
      size,
      readOnly: false,
      limits: { requestAlignment: 1, optimalAlignment: 4096, zoned: undefined },
    });
    this.bytes = new Uint8Array(size);
  }

  letGo(): void {
    for (const go of this.waiting.splice(0)) go();
  }

  #later(act: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      this.waiting.push(() => {
        if (this.failWith !== undefined) return reject(this.failWith);
        act();
        resolve();
      });
    });
  }

  protected doRead(offset: number, into: Uint8Array): Promise<void> {
    return this.#later(() => into.set(this.bytes.subarray(offset, offset + into.length)));
  }
  protected doWrite(offset: number, from: Uint8Array): Promise<void> {
    return this.#later(() => this.bytes.set(from, offset));
  }
  protected doWriteZeroes(offset: number, length: number): Promise<void> {
    return this.#later(() => void this.bytes.fill(0, offset, offset + length));
  }
  protected doDiscard(): Promise<void> {
    return this.#later(() => undefined);
  }
  protected doFlush(): Promise<void> {
    this.flushes += 1;
    return Promise.resolve();
  }
  protected async *doExtents(offset: number, length: number): AsyncIterable<BlockExtent> {
    yield { offset, length, kind: "data", hostOffset: undefined, compressed: false, depth: 0, zero: false };
  }
  protected doClose(): Promise<void> {
    return Promise.resolve();
  }
}

const settle = () => new Promise((resolve) => setTimeout(resolve, 5));
const pattern = (length: number, seed = 1) =>
  Buffer.from(Array.from({ length }, (_, i) => (i * 7 + seed + (i >> 8)) & 0xff));

describe.each(FORMS)("NBD requests with %s replies", (form) => {
  it("gives back what was written, in pieces of any size", async () => {
    const client = nbdBench({ "": openRaw(memoryStorage(new Uint8Array(MIB))) }).open();
    client.go("", form);
    const data = pattern(10_000);
    const flags = form === "extended" ? 32 : 0;
    for (const pieces of [1, 13, 4096, 100_000]) {
      const [written] = await client.ask(NBD_CMD.write, 5000, data.length, { data, pieces, flags });
      expect(written).toMatchObject({ error: 0, cookie: 1n });
      const chunks = await client.ask(NBD_CMD.read, 4000, 12_000, { cookie: 99n });
      expect(chunks.every(({ cookie }) => cookie === 99n)).toBe(true);
      expect(assembled(chunks, 4000, 12_000).subarray(1000, 11_000)).toEqual(data);
    }
  });

  it("reads up to 32 MiB in chunks, and leaves zeros out", async () => {
    const device = openRaw(memoryStorage(new Uint8Array(40 * MIB)));
    const data = pattern(3 * MIB);
    await device.write(5 * MIB + 4096, data);
    const client = nbdBench({ "": device }).open();
    client.go("", form);
    const chunks = await client.ask(NBD_CMD.read, 1000, 32 * MIB);
    const expected = Buffer.alloc(32 * MIB);
    data.copy(expected, 5 * MIB + 4096 - 1000);
    expect(assembled(chunks, 1000, 32 * MIB).equals(expected)).toBe(true);
    expect(chunks.filter(({ type }) => type === 2).length).toBeGreaterThan(10);
  });

  it("keeps a read in one run when asked to", async () => {
    const device = openRaw(memoryStorage(new Uint8Array(8 * MIB)));
    const client = nbdBench({ "": device }).open();
    client.go("", form);
    client.request(NBD_CMD.read, 0, 5 * MIB, { flags: 4 });
    client.request(NBD_CMD.read, 0, 10, { cookie: 2n });
    await new Promise((resolve) => setTimeout(resolve, 50));
    const chunks = client.chunks();
    expect(chunks.map(({ type, payload }) => [type, payload.length])).toEqual([
      [1, 5 * MIB + 8],
      [1, 18],
    ]);
  });

  it("tells status of several contexts, merged, and one extent when asked", async () => {
    const device = await memoryImage({ size: 64 * MIB });
    await device.write(MIB, pattern(MIB));
    const client = nbdBench({ "": device }).open();
    client.go("", form, ["base:allocation", "qemu:allocation-depth"]);
    const extents = (payload: Buffer): [number, number][] => {
      const list: [number, number][] = [];
      const wide = form === "extended";
      for (let at = wide ? 8 : 4; at < payload.length; at += wide ? 16 : 8) {
        list.push(
          wide
            ? [Number(payload.readBigUInt64BE(at)), Number(payload.readBigUInt64BE(at + 8))]
            : [payload.readUInt32BE(at), payload.readUInt32BE(at + 4)],
        );
      }
      return list;
    };
    const chunks = await client.ask(NBD_CMD.status, 0, 64 * MIB);
    expect(chunks.map(({ type }) => type)).toEqual(form === "extended" ? [6, 6] : [5, 5]);
    expect(extents(chunks[0]?.payload as Buffer)).toEqual([
      [MIB, 3],
      [MIB, 0],
      [62 * MIB, 3],
    ]);
    expect(extents(chunks[1]?.payload as Buffer).map(([, depth]) => depth)).toEqual([0, 1, 0]);
    const [one] = await client.ask(NBD_CMD.status, 0, 64 * MIB, { flags: 8 });
    expect(extents(one?.payload as Buffer)).toEqual([[MIB, 3]]);
  });

  it("refuses ranges past the end, unknown commands and flags, and goes on", async () => {
    const client = nbdBench({ "": openRaw(memoryStorage(new Uint8Array(MIB))) }).open();
    client.go("", form);
    const error = async (...request: Parameters<typeof client.ask>) => (await client.ask(...request)).at(-1)?.error;
    const write = form === "extended" ? 32 : 0;
    expect(await error(NBD_CMD.read, MIB, 1)).toBe(22);
    expect(await error(NBD_CMD.read, 2n ** 64n - 1n, 1)).toBe(22);
    expect(await error(NBD_CMD.read, 0, 33 * MIB)).toBe(22);
    expect(await error(NBD_CMD.write, MIB - 1, 2, { data: Buffer.alloc(2), flags: write })).toBe(28);
    expect(await error(NBD_CMD.zeroes, MIB, 1)).toBe(28);
    expect(await error(NBD_CMD.trim, MIB, 1)).toBe(22);
    expect(await error(55, 0, 1)).toBe(22);
    // RESIZE, which was not offered.
    expect(await error(8, 2 * MIB, 0)).toBe(1);
    expect(await error(NBD_CMD.read, 0, 1, { flags: 16 })).toBe(22);
    expect(await error(NBD_CMD.status, 0, 100)).toBe(22);
    expect(await error(NBD_CMD.zeroes, 0, 10, { flags: 16 })).toBe(95);
    expect(await error(NBD_CMD.flush, 0, 0)).toBe(0);
  });
});

describe("NBD requests", () => {
  it("answers simple replies with the data behind them, large reads in one run", async () => {
    const device = openRaw(memoryStorage(new Uint8Array(8 * MIB)));
    const data = pattern(4 * MIB);
    await device.write(0, data);
    const client = nbdBench({ "": device }).open();
    client.go("", "simple");
    client.request(NBD_CMD.read, 0, 4 * MIB, { cookie: 5n });
    client.request(NBD_CMD.read, 10, 20, { cookie: 6n });
    const sent = () => client.pipe.sent.reduce((sum, { length }) => sum + length, 0);
    await vi.waitFor(() => expect(sent()).toBe(16 + data.length + 16 + 20), 4_000);
    const bytes = client.pipe.read();
    expect(bytes.readUInt32BE(0)).toBe(0x67446698);
    expect(bytes.readBigUInt64BE(8)).toBe(5n);
    expect(bytes.subarray(16, 16 + data.length).equals(data)).toBe(true);
    const second = bytes.subarray(16 + data.length);
    expect(second.readBigUInt64BE(8)).toBe(6n);
    expect(second.subarray(16)).toEqual(data.subarray(10, 30));
  });

  it("answers late requests in the order in which the disk does them", async () => {
    const disk = new SlowDisk(MIB);
    const client = nbdBench({ "": disk }).open();
    client.go();
    client.request(NBD_CMD.read, 0, 512, { cookie: 1n });
    client.request(NBD_CMD.write, 512, 3, { cookie: 2n, data: Buffer.from("abc") });
    client.request(NBD_CMD.flush, 0, 0, { cookie: 3n });
    await settle();
    expect(client.chunks().map(({ cookie }) => cookie)).toEqual([3n]);
    disk.letGo();
    await settle();
    expect(new Set(client.chunks().map(({ cookie }) => cookie))).toEqual(new Set([1n, 2n]));
    expect(Buffer.from(disk.bytes.subarray(512, 515)).toString()).toBe("abc");
  });

  it("keeps the data of writes while the disk works on it", async () => {
    const disk = new SlowDisk(MIB);
    const client = nbdBench({ "": disk }).open();
    client.go();
    for (let at = 0; at < 20; at++) client.request(NBD_CMD.write, at * 100, 100, { data: Buffer.alloc(100, at + 1) });
    disk.letGo();
    await settle();
    for (let at = 0; at < 20; at++) expect(disk.bytes[at * 100 + 50]).toBe(at + 1);
  });

  it("makes FUA writes durable before they are acknowledged", async () => {
    const disk = new SlowDisk(MIB);
    const client = nbdBench({ "": disk }).open();
    client.go();
    client.request(NBD_CMD.write, 0, 2, { flags: 1, data: Buffer.from("xy") });
    disk.letGo();
    await settle();
    expect(disk.flushes).toBe(1);
    expect(client.chunks()).toMatchObject([{ error: 0 }]);
  });

  it("tells the disk's error by its nearest number", async () => {
    const disk = new SlowDisk(MIB);
    const client = nbdBench({ "": disk }).open();
    client.go();
    for (const [code, number] of [
      ["NO_SPACE", 28],
      ["IO_ERROR", 5],
      ["READ_ONLY", 1],
      ["ZONE_INVALID_WRITE", 22],
      ["NOT_SUPPORTED", 95],
    ] as const) {
      disk.failWith = new ZcowError(code, "as told");
      client.request(NBD_CMD.read, 0, 10);
      disk.letGo();
      await settle();
      expect(client.chunks()).toMatchObject([{ type: 0x8001, error: number }]);
    }
  });

  it("refuses changes of a read-only export and passes over their data", async () => {
    const bench = nbdBench({ "": openRaw(memoryStorage(new Uint8Array(MIB))) }, { export: { readOnly: true } });
    const client = bench.open();
    const replies = client.go();
    expect((replies[1]?.data.readUInt16BE(10) ?? 0) & 0x2).toBe(0x2);
    expect(await client.ask(NBD_CMD.write, 0, 5000, { data: pattern(5000) })).toMatchObject([{ error: 1 }]);
    expect(await client.ask(NBD_CMD.zeroes, 0, 5000)).toMatchObject([{ error: 1 }]);
    expect(await client.ask(NBD_CMD.flush, 0, 0)).toMatchObject([{ error: 0 }]);
  });

  it("refuses a write when its data has come, not before the client has finished asking", async () => {
    const client = nbdBench({ "": openRaw(memoryStorage(new Uint8Array(MIB))) }, { export: { readOnly: true } }).open();
    client.go("", "structured");
    client.request(NBD_CMD.write, 0, 5000, { data: pattern(4999) });
    expect(client.chunks()).toEqual([]);
    client.pipe.write(Uint8Array.of(1));
    expect(client.chunks()).toMatchObject([{ error: 1, cookie: 1n }]);
    expect(await client.ask(NBD_CMD.write, 0, 0)).toMatchObject([{ error: 1 }]);
  });

  it("pauses a client with too many requests in flight, and goes on when there are fewer", async () => {
    const disk = new SlowDisk(MIB);
    const client = nbdBench({ "": disk }, { limits: { requestsInFlight: 4 } }).open();
    client.go();
    for (let at = 0; at < 10; at++) client.request(NBD_CMD.read, at, 1, { cookie: BigInt(at) });
    expect(disk.waiting.length).toBe(4);
    expect(client.pipe.paused).toBe(true);
    for (let round = 0; round < 5; round++) {
      disk.letGo();
      await settle();
    }
    expect(client.chunks().length).toBe(10);
    expect(client.pipe.paused).toBe(false);
  });

  it("does not work ahead for a client that does not read its replies", async () => {
    const client = nbdBench(
      { "": openRaw(memoryStorage(new Uint8Array(8 * MIB))) },
      { limits: { bytesInFlight: MIB } },
    ).open();
    client.go();
    client.pipe.held = true;
    for (let at = 0; at < 200; at++) client.request(NBD_CMD.read, 0, 30_000, { cookie: BigInt(at) });
    expect(client.pipe.paused).toBe(true);
    expect(client.pipe.backlog).toBeLessThan(MIB + 64 * 1024);
    let answers = 0;
    for (let round = 0; round < 50 && answers < 200; round++) {
      answers += client.chunks().length;
      client.pipe.connection?.drained();
      await settle();
    }
    expect(answers).toBe(200);
  });

  it("answers what is in flight before it lets a client go", async () => {
    const disk = new SlowDisk(MIB);
    const bench = nbdBench({ "": disk });
    const client = bench.open();
    client.go();
    client.request(NBD_CMD.write, 0, 2, { data: Buffer.from("zz") });
    client.request(NBD_CMD.disc, 0, 0);
    expect(client.pipe.ended).toBe(false);
    disk.letGo();
    await settle();
    expect(client.chunks()).toMatchObject([{ error: 0 }]);
    expect(client.pipe.ended).toBe(true);
    expect(bench.ends).toBe(1);
  });

  it("ends a connection whose stream cannot be understood", () => {
    const bench = nbdBench({ "": openRaw(memoryStorage(new Uint8Array(MIB))) });
    const garbled = bench.open();
    garbled.go();
    garbled.pipe.write(Buffer.alloc(28, 1));
    expect(garbled.pipe.ended).toBe(true);
    const huge = bench.open();
    huge.go();
    huge.request(NBD_CMD.write, 0, 100 * MIB);
    expect(huge.pipe.ended).toBe(true);
  });

  it("turns writes of zeros into holes where that was asked for", async () => {
    const device = await memoryImage({ size: MIB });
    await device.write(0, pattern(MIB));
    const client = nbdBench({ "": device }, { export: { zeroDetection: "unmap" } }).open();
    client.go("", "structured", ["base:allocation"]);
    await client.ask(NBD_CMD.write, 0, 65_536, { data: Buffer.alloc(65_536) });
    const [status] = await client.ask(NBD_CMD.status, 0, 65_536);
    expect((status?.payload.readUInt32BE(8) ?? 0) & 2).toBe(2);
  });

  it("shows the zones of a zoned disk, and holds writes to their rules", async () => {
    const device = await memoryImage({
      size: 8 * MIB,
      zone: { mode: "host-managed", size: 2 * MIB, capacity: MIB, conventionalZones: 1 },
    });
    const client = nbdBench({ "": device }).open();
    client.go("", "structured", ["zcow:zones"]);
    expect(await client.ask(NBD_CMD.write, 2 * MIB, 4096, { data: pattern(4096) })).toMatchObject([{ error: 0 }]);
    expect(await client.ask(NBD_CMD.write, 2 * MIB, 4096, { data: pattern(4096) })).toMatchObject([{ error: 22 }]);
    const [status] = await client.ask(NBD_CMD.status, 0, 6 * MIB);
    const words = Array.from({ length: ((status?.payload.length ?? 4) - 4) / 4 }, (_, i) =>
      status?.payload.readUInt32BE(4 + 4 * i),
    );
    const open = 0x22;
    expect(words).toEqual([
      MIB,
      0x01,
      MIB,
      0x201,
      4096,
      open | 0x100,
      MIB - 4096,
      open,
      MIB,
      open | 0x200,
      MIB,
      0x12,
      MIB,
      0x212,
    ]);
  });
});
