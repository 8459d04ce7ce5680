import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { BlockDevice } from "../../../../src/block/block-device.js";
import { createQcow2 } from "../../../../src/formats/qcow2/create.js";
import { openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { resizeImage } from "../../../../src/jobs/resize.js";
import { type MemoryStorage, memoryStorage } from "../../../../src/storage/memory-storage.js";
import { openNbdStorage } from "../../../../src/storage/nbd/nbd-storage.js";
import { contentsOf, expectSameBytes, withZeros } from "../../../support/disk-bytes.js";
import { openGrowing } from "../../../support/growing.js";
import { JitteryStorage } from "../../../support/jittery-storage.js";
import { goData, NBD_CMD, NBD_OPT, optionBytes, requestBytes } from "../../../support/nbd-pipe.js";
import { Relay, startNbdService, unixUri } from "../../../support/nbd-service.js";
import { Random, taggedBytes } from "../../../support/random.js";
import { referenceCheck } from "../../../support/reference-check.js";
import { temporaryFolder } from "../../../support/temporary-folder.js";

const KIB = 1024;
const SIZE = 600 * KIB + 512;
const path = temporaryFolder();
let number = 0;
const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
});

interface Served {
  readonly folder: string;
  readonly socket: string;
  readonly device: BlockDevice;
  readonly image: MemoryStorage;
  /** Ends the server; the image must be sound then. */
  readonly close: () => Promise<void>;
}

/** A qcow2 disk with an L1 table that has to move at 2 MiB, on a storage that answers late and out of order. */
async function served(seed: number): Promise<Served> {
  number += 1;
  const folder = path(String(number));
  mkdirSync(folder);
  const image = memoryStorage();
  await createQcow2(image, { size: SIZE, clusterSize: 512 });
  const device: BlockDevice = await openQcow2(new JitteryStorage(image, new Random(seed)));
  const socket = join(folder, "s");
  const service = await startNbdService(socket, device, { export: { resizable: true } });
  const close = async (): Promise<void> => {
    await service.close();
    expect(referenceCheck(image.bytes())).toMatchObject({ corruptions: [], leaks: [] });
  };
  ends.push(() => service.close());
  return { folder, socket, device, image, close };
}

describe("a served qcow2 disk", () => {
  it("grows while requests of two clients are in flight, and the other sees it when it connects again", async () => {
    for (let seed = 1; seed <= 6; seed++) {
      const { socket, image, close } = await served(seed);
      const one = await openNbdStorage(unixUri(socket), { writable: true });
      const other = await openNbdStorage(unixUri(socket), { writable: true });
      const expected = new Uint8Array(6000 * KIB);
      const write = async (storage: typeof one, at: number, length: number): Promise<void> => {
        expected.set(taggedBytes(seed, at, length), at);
        await storage.write(at, taggedBytes(seed, at, length));
      };
      const jobs = Array.from({ length: 40 }, (_, index) =>
        write(index % 2 === 0 ? one : other, index * 15 * KIB, 9000),
      );
      const grown = one.truncate(3000 * KIB);
      for (let index = 0; index < 10; index++) jobs.push(write(other, (index * 15 + 10) * KIB, 3 * KIB));
      await grown;
      jobs.push(write(one, 2999 * KIB, KIB), write(one, SIZE, 20 * KIB));
      await Promise.all([...jobs, one.truncate(6000 * KIB)]);
      expect(other.size()).toBe(SIZE);
      await other.close();
      const again = await openNbdStorage(unixUri(socket), { writable: true });
      expect(again.size()).toBe(6000 * KIB);
      await write(again, 5999 * KIB, KIB);
      const found = new Uint8Array(6000 * KIB);
      await one.read(0, found);
      expectSameBytes(found, expected, `seed ${seed}`);
      await Promise.all([one.close(), again.close()]);
      await close();
      expectSameBytes(
        await contentsOf(await openGrowing(memoryStorage(image.bytes()))),
        expected,
        `seed ${seed}, opened again`,
      );
    }
  });

  it("is as large as the largest of two clients asked for, and gets smaller for neither", async () => {
    const { socket, device, close } = await served(1);
    const one = await openNbdStorage(unixUri(socket), { writable: true });
    const other = await openNbdStorage(unixUri(socket), { writable: true });
    await Promise.allSettled([one.truncate(2000 * KIB), other.truncate(3000 * KIB), one.truncate(2500 * KIB)]);
    await other.truncate(3000 * KIB);
    expect(device.size).toBe(3000 * KIB);
    // It does not know yet how large the disk is.
    await expect(one.truncate(2900 * KIB)).rejects.toThrow("are less than the 3072000 that the disk has");
    await expect(other.truncate(KIB)).rejects.toMatchObject({ code: "STORAGE_UNSUPPORTED" });
    await expect(resizeImage(other, { format: "raw", size: KIB, shrink: true })).rejects.toMatchObject({
      code: "STORAGE_UNSUPPORTED",
    });
    expect(device.size).toBe(3000 * KIB);
    await Promise.all([one.close(), other.close()]);
    await close();
  });

  it("grows over connections that break, and keeps the writes behind its old end", async () => {
    const { folder, socket, image, close } = await served(2);
    const relay = await Relay.listen(join(folder, "r"), socket);
    ends.push(() => relay.close());
    const storage = await openNbdStorage(unixUri(join(folder, "r")), { writable: true });
    const expected = new Uint8Array(5120 * KIB);
    for (let round = 1; round <= 16; round++) {
      const at = (600 + round * 250) * KIB;
      expected.set(taggedBytes(round, at, KIB), at);
      const written = Promise.all([storage.truncate(at + 20 * KIB), storage.write(at, taggedBytes(round, at, KIB))]);
      for (let turn = 0; turn < round; turn++) await new Promise((resolve) => setImmediate(resolve));
      relay.cutAll();
      await written;
    }
    await storage.flush();
    await storage.close();
    await close();
    const found = await contentsOf(await openGrowing(memoryStorage(image.bytes())));
    expectSameBytes(withZeros(found, expected.length), expected, "opened again");
  });

  it("grows or stays as it is when a client asks and is gone", async () => {
    const { socket, device, image, close } = await served(3);
    const asked = new Set([SIZE]);
    for (let round = 1; round <= 60; round++) {
      const client = connect(socket);
      await once(client, "connect");
      const flags = Buffer.from([0, 0, 0, 3]);
      client.write(Buffer.concat([flags, optionBytes(NBD_OPT.go, goData(""))]));
      await once(client, "readable");
      const before = device.size;
      const next = before + round * 512;
      asked.add(next).add(next + 512);
      const requests = [
        requestBytes(false, NBD_CMD.resize, BigInt(next), 0n, 0, 1n),
        requestBytes(false, NBD_CMD.trim, 0n, BigInt(before), 0, 2n),
        requestBytes(false, NBD_CMD.resize, BigInt(next + 512), 0n, 0, 3n),
      ];
      client.write(Buffer.concat(requests.slice(0, 1 + (round % 3))));
      for (let turn = 0; turn < round % 7; turn++) await new Promise((resolve) => setImmediate(resolve));

      client.destroy();
      await once(client, "close");
      expect(device.size >= before && asked.has(device.size)).toBe(true);
    }
    const storage = await openNbdStorage(unixUri(socket), { writable: true });
    expect(storage.size()).toBeGreaterThanOrEqual(SIZE);
    await storage.truncate(4000 * KIB);
    await storage.write(3999 * KIB, taggedBytes(1, 0, KIB));
    await storage.close();
    await close();
    const found = await contentsOf(await openGrowing(memoryStorage(image.bytes())));
    expectSameBytes(found.subarray(3999 * KIB), taggedBytes(1, 0, KIB), "opened again");
  });

  it("stays as it is when the server ends before it has grown", async () => {
    for (let turns = 0; turns < 12; turns++) {
      const { socket, image, close } = await served(turns + 1);
      const storage = await openNbdStorage(unixUri(socket), { writable: true, reconnectMilliseconds: 1 });
      await storage.write(0, taggedBytes(1, 0, KIB));
      const grown = Promise.resolve(storage.truncate(3000 * KIB)).then(
        () => true,
        () => false,
      );
      for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
      await close();
      const isGrown = await grown;
      const found = await contentsOf(await openGrowing(memoryStorage(image.bytes())));
      if (isGrown) expect(found).toHaveLength(3000 * KIB);
      expectSameBytes(found, withZeros(taggedBytes(1, 0, KIB), found.length), `after ${turns} turns`);
      await storage.close().catch(() => undefined);
    }
  });
});
