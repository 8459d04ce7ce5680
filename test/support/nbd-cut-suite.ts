/** Mixed loads on an NBD export, with the connection cut at one place after the other, in the folder of the surrounding `describe`. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { openNbdStorage } from "../../src/storage/nbd/nbd-storage.js";
import type { Storage } from "../../src/storage/storage.js";
import { type Cut, type Direction, DyingNbdServer } from "./nbd-dying-server.js";
import { unixUri } from "./nbd-service.js";
import { temporaryFolder } from "./temporary-folder.js";

const SIZE = 1024;

/** What the disk must hold, and what of it a flush has covered. */
interface Model {
  readonly bytes: Uint8Array;
  flushed: Uint8Array;
}

const data = (length: number, seed: number) => Uint8Array.from({ length }, (_, i) => (i * 29 + seed * 7 + 1) & 0xff);

async function expectRead(storage: Storage, model: Model, at: number, length: number): Promise<void> {
  const back = new Uint8Array(length);
  await storage.read(at, back);
  expect(back).toEqual(model.bytes.slice(at, at + length));
}

/** A little of everything, in short requests; writes that follow each other to one place, and requests side by side. */
async function mixedLoad(storage: Storage, model: Model): Promise<void> {
  const write = (at: number, length: number, seed: number) => {
    model.bytes.set(data(length, seed), at);
    return Promise.resolve(storage.write(at, data(length, seed)));
  };
  const zero = (at: number, length: number) => {
    model.bytes.fill(0, at, at + length);
    return Promise.resolve(storage.writeZeroes(at, length));
  };
  const flush = async () => {
    const covered = model.bytes.slice();
    await storage.flush();
    model.flushed = covered;
  };
  await write(0, 40, 1);
  await Promise.all([write(100, 50, 2), write(200, 30, 3), expectRead(storage, model, 0, 40)]);
  await flush();
  await write(10, 20, 4);
  await Promise.all([zero(110, 20), write(300, 25, 5), storage.discard(512, 256)]);
  await write(115, 10, 6);
  await expectRead(storage, model, 90, 60);
  await flush();
  await Promise.all([write(0, 15, 7), zero(200, 12), expectRead(storage, model, 300, 30)]);
  await write(5, 5, 8);
}

/** What a run came to: cuts that were made, and bytes that its last connection carried, until the load began and to the end. */
interface Run {
  readonly cuts: number;
  readonly opened: Record<Direction, number>;
  readonly carried: Record<Direction, number>;
}

async function runWith(folder: string, cuts: readonly Cut[]): Promise<Run> {
  mkdirSync(folder);
  const server = await DyingNbdServer.listen((name) => join(folder, name), SIZE, cuts);
  const storage = await openNbdStorage(unixUri(join(folder, "front")), { writable: true, connections: 1 });
  try {
    const opened = { ...server.carried };
    const model: Model = { bytes: new Uint8Array(SIZE), flushed: new Uint8Array(SIZE) };
    await mixedLoad(storage, model);
    await expectRead(storage, model, 0, 512);
    expectSame(server.durable, model.flushed);
    await storage.flush();
    expectSame(server.durable, model.bytes);
    return { cuts: server.made, opened, carried: { ...server.carried } };
  } finally {
    await storage.close();
    await server.close();
  }
}

/** What is discarded may hold anything. */
function expectSame(found: Uint8Array, expected: Uint8Array): void {
  expect(found.subarray(0, 512)).toEqual(expected.subarray(0, 512));
}

/** `step`: bytes between two cuts; 1 for each byte. No divisor of the length of any message, so that each is cut in many places. */
export function nbdCutSuite(step: number): void {
  const directions: readonly Direction[] = ["to server", "to client"];
  const inFolder = temporaryFolder();
  let runs = 0;
  const run = (cuts: readonly Cut[]) => runWith(inFolder(`${++runs}`), cuts);
  let whole: Run;

  beforeAll(async () => {
    whole = await run([]);
  });

  it.each(directions)("loses nothing, whichever byte %s was the last of a mixed load", async (direction) => {
    const end = whole.carried[direction];
    // While it opens, a client tells of a failure and does not try again.
    for (let bytes = whole.opened[direction] + 1; bytes <= end; bytes += step) {
      expect((await run([{ direction, bytes }])).cuts).toBe(1);
    }
  });

  it.each(directions)("loses nothing when the next connection breaks, too, after any byte %s", async (direction) => {
    const first: Cut = {
      direction: "to client",
      bytes: Math.floor((whole.opened["to client"] + whole.carried["to client"]) / 2),
    };
    const { carried } = await run([first]);
    for (let bytes = 1; bytes <= carried[direction]; bytes += step) {
      expect((await run([first, { direction, bytes }])).cuts).toBe(2);
    }
  });
}
