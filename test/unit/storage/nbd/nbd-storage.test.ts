import { createServer } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import type { BlockDevice } from "../../../../src/block/block-device.js";
import { openImage } from "../../../../src/formats/open-image.js";
import { createQcow2 } from "../../../../src/formats/qcow2/create.js";
import { openRaw } from "../../../../src/formats/raw/device.js";
import type { NbdService } from "../../../../src/servers/nbd/service.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { openNbdStorage } from "../../../../src/storage/nbd/nbd-storage.js";
import { parseNbdAddress } from "../../../../src/storage/nbd/nbd-uri.js";
import type { Storage } from "../../../../src/storage/storage.js";
import { Relay, startNbdService, unixUri } from "../../../support/nbd-service.js";
import { memoryImage } from "../../../support/nvme-pipe.js";
import { temporaryFolder } from "../../../support/temporary-folder.js";

const MIB = 1024 * 1024;
const inFolder = temporaryFolder();
let sockets = 0;
const newSocket = (): string => inFolder(`${++sockets}.sock`);
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

async function served(device: BlockDevice, options = {}): Promise<{ path: string; service: NbdService }> {
  const path = newSocket();
  const service = await startNbdService(path, device, options);
  closers.push(() => service.close());
  return { path, service };
}

async function opened(path: string, options = {}): Promise<Storage> {
  const storage = await openNbdStorage(unixUri(path), { writable: true, ...options });
  closers.push(() => storage.close());
  return storage;
}

const pattern = (length: number, seed: number) => Uint8Array.from({ length }, (_, i) => (i * 13 + seed) & 0xff);

describe("addresses of NBD exports", () => {
  it.each([
    ["nbd://example.org", { kind: "tcp", host: "example.org", port: 10809 }, ""],
    ["nbd://[::1]:99/a%20b/c", { kind: "tcp", host: "::1", port: 99 }, "a b/c"],
    ["nbd+unix:///?socket=/run/s", { kind: "unix", path: "/run/s" }, ""],
    ["nbd+unix:////x?socket=/run/s", { kind: "unix", path: "/run/s" }, "/x"],
    ["nbd:unix:/run/s:exportname=n:m", { kind: "unix", path: "/run/s" }, "n:m"],
    ["nbd:localhost:7", { kind: "tcp", host: "localhost", port: 7 }, ""],
  ])("%s", (uri, where, exportName) => {
    expect(parseNbdAddress(uri)).toMatchObject({ where, exportName, tls: undefined });
  });

  it.each(["nbd+unix:///x", "nbd://h/%zz", "nbd://h/?socket=/x", "nbd:h:99999", "nbd://h:99999"])(
    "refuses %s",
    (uri) => {
      expect(() => parseNbdAddress(uri)).toThrow(expect.objectContaining({ code: "REMOTE_ADDRESS" }));
    },
  );
});

describe("a storage behind an NBD server", () => {
  it("reads, writes, zeroes, discards and maps", async () => {
    const { path } = await served(await memoryImage({ size: 64 * MIB }));
    const storage = await opened(path);
    const data = pattern(5 * MIB, 3);
    await storage.write(MIB + 77, data);
    await storage.writeZeroes(2 * MIB, MIB);
    data.fill(0, MIB - 77, 2 * MIB - 77);
    const back = new Uint8Array(data.length);
    await storage.read(MIB + 77, back);
    expect(Buffer.compare(back, data)).toBe(0);
    await storage.flush();
    const runs = [];
    for await (const run of storage.extents(0, 64 * MIB)) runs.push([run.length, run.hole]);
    expect(runs[0]).toEqual([MIB, true]);
    expect(runs.reduce((sum, [length]) => sum + Number(length), 0)).toBe(64 * MIB);
    expect(runs.filter(([, hole]) => hole).length).toBeGreaterThanOrEqual(3);
  });

  it("is an image like any other: qcow2 inside an export", async () => {
    const inner = memoryStorage(new Uint8Array(8 * MIB));
    await createQcow2(inner, { size: MIB });
    await inner.truncate(8 * MIB);
    const { path } = await served(openRaw(inner));
    const device = await openImage(unixUri(path), { format: "qcow2" });
    closers.push(() => device.close());
    await device.write(5100, pattern(100, 1));
    await device.flush();
    const back = new Uint8Array(200);
    await device.read(5050, back);
    expect(back.subarray(50, 150)).toEqual(pattern(100, 1));
  });

  it("is refused for writing where the server allows none", async () => {
    const { path } = await served(openRaw(memoryStorage(new Uint8Array(4096))), { export: { readOnly: true } });
    await expect(openNbdStorage(unixUri(path), { writable: true })).rejects.toMatchObject({ code: "READ_ONLY" });
    await expect(openNbdStorage(unixUri(path, "none"))).rejects.toMatchObject({ code: "REMOTE_REFUSED" });
    await expect(openNbdStorage("nbd+unix:///?socket=/nowhere/s")).rejects.toMatchObject({
      code: "REMOTE_UNREACHABLE",
    });
  });

  it("goes on when connections are cut at any point of a mixed load", async () => {
    const bytes = new Uint8Array(2 * MIB);
    const { path } = await served(openRaw(memoryStorage(bytes)));
    const relayPath = newSocket();
    const relay = await Relay.listen(relayPath, path);
    closers.push(() => relay.close());
    const storage = await opened(relayPath);
    const model = new Uint8Array(2 * MIB);
    const rounds = 40;
    for (let round = 0; round < rounds; round++) {
      // The next two connections get a little further than the handshake, and each time further than before.
      relay.cutAfter = 700 + round * 97;
      relay.cutsLeft = 2;
      const work: Promise<void>[] = [];
      for (let index = 0; index < 16; index++) {
        const at = index * 128 * 1024 + round * 512;
        const data = pattern(300 + round * 7, round + index);
        model.set(data, at);
        work.push(Promise.resolve(storage.write(at, data)));
        work.push(Promise.resolve(storage.read(at + 64 * 1024, new Uint8Array(200))));
      }
      relay.cutAll();
      await Promise.all(work);
      if (round % 3 === 0) await storage.flush();
    }
    const back = new Uint8Array(2 * MIB);
    await storage.read(0, back);
    expect(Buffer.compare(back, model)).toBe(0);
    expect(relay.cuts).toBe(2 * rounds);
  }, 30_000);

  it("makes again what a server that was gone had acknowledged and lost", async () => {
    const path = newSocket();
    const first = await startNbdService(path, openRaw(memoryStorage(new Uint8Array(MIB))));
    const storage = await opened(path);
    await storage.write(0, pattern(4096, 1));
    await storage.write(2048, pattern(4096, 2));
    await storage.writeZeroes(1000, 50);
    await first.close();
    // A server that has forgotten everything.
    const second = await startNbdService(path, openRaw(memoryStorage(new Uint8Array(MIB))));
    closers.push(() => second.close());
    await storage.flush();
    const back = new Uint8Array(6144);
    await storage.read(0, back);
    const expected = new Uint8Array(6144);
    expected.set(pattern(4096, 1));
    expected.set(pattern(4096, 2), 2048);
    expected.fill(0, 1000, 1050);
    expect(back).toEqual(expected);
  });

  it("says so when there was too much to make again", async () => {
    const path = newSocket();
    const first = await startNbdService(path, openRaw(memoryStorage(new Uint8Array(48 * MIB))));
    const storage = await opened(path);
    for (let at = 0; at < 40; at++) await storage.write(at * MIB, pattern(MIB, at));
    await first.close();
    const second = await startNbdService(path, openRaw(memoryStorage(new Uint8Array(48 * MIB))));
    closers.push(() => second.close());
    await expect(storage.flush()).rejects.toMatchObject({ code: "REMOTE_WRITES_LOST" });
    await storage.flush();
  });

  it("gives up when the server stays away", async () => {
    const { path, service } = await served(openRaw(memoryStorage(new Uint8Array(4096))));
    const storage = await opened(path, { reconnectMilliseconds: 100 });
    await service.close();
    await expect(storage.read(0, new Uint8Array(10))).rejects.toMatchObject({ code: "REMOTE_UNREACHABLE" });
  });

  it("trusts no server: every broken answer is an error, none hangs", async () => {
    const path = newSocket();
    const answers = [
      Buffer.alloc(64),
      Buffer.from("NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53"),
      Buffer.from("NBDMAGICIHAVEOPT\0\x00"),
    ];
    let turn = 0;
    const evil = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.end(answers[turn++ % answers.length] ?? Buffer.alloc(0));
    });
    await new Promise<void>((resolve) => evil.listen(path, resolve));
    closers.push(() => evil.close());
    for (const _ of answers) {
      await expect(openNbdStorage(unixUri(path))).rejects.toMatchObject({ code: "REMOTE_PROTOCOL" });
    }
  });
});
