import { describe, expect, it } from "vitest";
import type { MaybePromise } from "../../src/base/maybe-promise.js";
import { checkQcow2 } from "../../src/formats/qcow2/check/check.js";
import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";
import { commitImage, isZcowError, isZonedDevice, memoryStorage, openImage, type Storage } from "../../src/index.js";
import { faultStorage } from "../../src/storage/fault-storage.js";
import { ForwardingStorage } from "../../src/storage/forwarding-storage.js";
import { recordingStorage } from "../../src/storage/recording-storage.js";
import { CRASH_KINDS, type CrashKind, crashedFile } from "../support/crash-images.js";
import { newImage } from "../support/new-image.js";
import { Random, seedFromEnvironment, taggedBytes } from "../support/random.js";

/** Power cuts and failing calls while an overlay is committed: the disk reads the same, before, between and after. */

const KIB = 1024;
const SIZE = 256 * KIB;

/** An overlay and its base. */
interface Pair {
  readonly top: Uint8Array;
  readonly base: Uint8Array;
}

interface Shape {
  readonly name: string;
  readonly options: CreateQcow2Options;
  readonly baseOptions?: Partial<CreateQcow2Options>;
  /** Format of the base. */
  readonly format: "raw" | "qcow2";
  readonly zoned?: boolean;
}

const SHAPES: readonly Shape[] = [
  { name: "a raw base", options: { clusterSize: 4 * KIB }, format: "raw" },
  { name: "a qcow2 base", options: { clusterSize: 4 * KIB }, format: "qcow2" },
  { name: "a smaller base", options: { clusterSize: 4 * KIB }, baseOptions: { size: 130 * KIB }, format: "qcow2" },
  { name: "version 2", options: { clusterSize: 4 * KIB, compat: "0.10" }, format: "qcow2" },
  { name: "subclusters", options: { clusterSize: 16 * KIB, extendedL2: true }, format: "qcow2" },
  {
    name: "zones",
    options: { clusterSize: 4 * KIB },
    baseOptions: { zone: { mode: "host-managed", size: 32 * KIB, conventionalZones: 1 } },
    format: "qcow2",
    zoned: true,
  },
];

const surroundingsOf = (base: Storage) => ({
  implicitFiles: "allow" as const,
  openFile: () => Promise.resolve(new Kept(base)),
});

/** Stays open for the next who opens it. */
class Kept extends ForwardingStorage {
  override async close(): Promise<void> {}
}

async function pairOf(shape: Shape): Promise<Pair> {
  const base = memoryStorage(
    shape.format === "raw"
      ? taggedBytes(1, 0, SIZE)
      : await newImage({ size: SIZE, clusterSize: 4 * KIB, ...shape.baseOptions }),
  );
  const backing = { backingFile: "base", backingFormat: shape.format };
  if (shape.format === "qcow2") {
    const device = await openImage(new Kept(base), { format: "qcow2" });
    await writeSome(device, 1);
    await device.close();
  }
  const { createQcow2 } = await import("../../src/formats/qcow2/create.js");
  const top = memoryStorage();
  await createQcow2(top, { size: SIZE, ...shape.options, ...backing }, await zonesOf(base, shape));
  const device = await openImage(new Kept(top), { format: "qcow2", ...surroundingsOf(base) });
  await writeSome(device, 2);
  await device.close();
  return { top: top.bytes(), base: base.bytes() };
}

async function zonesOf(base: Storage, { zoned }: Shape): Promise<object> {
  if (zoned !== true) return {};
  const device = await openImage(new Kept(base), { format: "qcow2", readOnly: true });
  const limits = device.limits.zoned;
  if (limits === undefined || !isZonedDevice(device)) throw new Error("the base has zones");
  const pointers = Float64Array.from(device.report(), ({ writePointer }) => writePointer);
  await device.close();
  return { inheritedZones: { limits, diskSize: device.size, pointers } };
}

/** Data, zeros, parts of clusters; on zones appends, and in the second generation a reset and a full zone, too. */
async function writeSome(device: Awaited<ReturnType<typeof openImage>>, tag: number): Promise<void> {
  if (!isZonedDevice(device)) {
    await device.write(10 * KIB * tag, taggedBytes(tag, 0, 20 * KIB));
    await device.write(90 * KIB, taggedBytes(tag, 0, 700));
    await device.writeZeroes(60 * KIB, 16 * KIB);
    if (device.size === SIZE) await device.write(200 * KIB, taggedBytes(tag, 0, 9 * KIB));
    return;
  }
  const zone = 32 * KIB;
  await device.write(5 * KIB * tag, taggedBytes(tag, 0, 6 * KIB));
  for (const index of [1, 2, 4]) await device.append(index * zone, taggedBytes(tag, index, 7 * KIB));
  if (tag === 1) return;
  await device.resetZones(2 * zone, zone);
  await device.append(2 * zone, taggedBytes(tag, 0, 3 * KIB));
  await device.resetZones(4 * zone, zone);
  await device.append(5 * zone, taggedBytes(tag, 0, 4 * KIB));
  await device.finishZones(5 * zone, zone);
}

interface Reading {
  readonly bytes: Uint8Array;
  readonly zones: readonly (readonly [pointer: number, full: boolean])[];
}

async function read({ top, base }: Pair): Promise<Reading> {
  const device = await openImage(memoryStorage(top), {
    format: "qcow2",
    readOnly: true,
    ...surroundingsOf(memoryStorage(base)),
  });
  const bytes = new Uint8Array(device.size);
  await device.read(0, bytes);
  const report = isZonedDevice(device) ? device.report() : [];
  const zones = report.map(({ writePointer, state }) => [writePointer, state === "full"] as const);
  await device.close();
  return { bytes, zones };
}

async function expectSound({ top, base }: Pair, { format }: Shape, where: string): Promise<void> {
  for (const file of format === "raw" ? [top] : [top, base]) {
    const { corruptions, checkErrors, failure } = await checkQcow2(memoryStorage(file));
    const found = { corruptions, checkErrors, failure };
    expect(found, where).toEqual({ corruptions: 0, checkErrors: 0, failure: undefined });
  }
}

function expectSame(now: Reading, before: Reading, where: string): void {
  expect(Buffer.compare(now.bytes, before.bytes), where).toBe(0);
  expect(now.zones, where).toEqual(before.zones);
}

/** Notes the moments of two recorders around every change, so that both can be cut at one time. */
class Noting extends ForwardingStorage {
  readonly #note: () => void;

  constructor(inner: Storage, note: () => void) {
    super(inner);
    this.#note = note;
  }

  override write(at: number, from: Uint8Array): MaybePromise<void> {
    return this.#noted(() => this.inner.write(at, from));
  }

  override writeZeroes(at: number, length: number, options?: { readonly unmap?: boolean }): MaybePromise<void> {
    return this.#noted(() => this.inner.writeZeroes(at, length, options));
  }

  override discard(at: number, length: number): MaybePromise<void> {
    return this.#noted(() => this.inner.discard(at, length));
  }

  override truncate(size: number): MaybePromise<void> {
    return this.#noted(() => this.inner.truncate(size));
  }

  override flush(): MaybePromise<void> {
    return this.#noted(() => this.inner.flush());
  }

  #noted(call: () => MaybePromise<void>): MaybePromise<void> {
    this.#note();
    const wait = call();
    this.#note();
    return wait;
  }
}

async function recorded(pair: Pair): Promise<{ readonly after: Pair; readonly moments: number; readonly cut: Cut }> {
  const [top, base] = [memoryStorage(pair.top), memoryStorage(pair.base)];
  const [topCalls, baseCalls] = [recordingStorage(top, top), recordingStorage(base, base)];
  const moments: (readonly [top: number, base: number])[] = [];
  const note = (): void => void moments.push([topCalls.moment(), baseCalls.moment()]);
  await commitImage(new Noting(topCalls, note), {
    format: "qcow2",
    ...surroundingsOf(new Noting(baseCalls, note)),
  });
  const cut: Cut = (at, kind, random) => {
    const [topMoment, baseMoment] = moments[at] as readonly [number, number];
    const { changes, flushes } = topCalls;
    return {
      top: crashedFile({ initial: pair.top, changes, flushes }, topMoment, kind, random),
      base: crashedFile(
        { initial: pair.base, changes: baseCalls.changes, flushes: baseCalls.flushes },
        baseMoment,
        kind,
        random,
      ),
    };
  };
  return { after: { top: top.bytes(), base: base.bytes() }, moments: moments.length, cut };
}

type Cut = (at: number, kind: CrashKind, random: Random) => Pair;

describe("a commit", () => {
  it.each(SHAPES)("reads the same when power fails at any time, and can be begun again: $name", async (shape) => {
    const random = new Random(seedFromEnvironment(1));
    const pair = await pairOf(shape);
    const before = await read(pair);
    const { after, moments, cut } = await recorded(pair);
    expectSame(await read(after), before, "after the commit");
    await expectSound(after, shape, "after the commit");
    for (let round = 0; round < 12; round++) {
      const kind = random.pick(CRASH_KINDS);
      const at = random.below(moments);
      const where = `power cut at ${at} of ${moments}, ${kind}`;
      const crashed = cut(at, kind, random);
      await expectSound(crashed, shape, where);
      expectSame(await read(crashed), before, where);
      const { after: again } = await recorded(crashed);
      expectSame(await read(again), before, `${where}, begun again`);
    }
  });

  it.each(SHAPES)("leaves the base with all that the disk had, and the overlay empty: $name", async (shape) => {
    const pair = await pairOf(shape);
    const before = await read(pair);
    const { after } = await recorded(pair);
    const base = await openImage(memoryStorage(after.base), { format: shape.format, readOnly: true });
    const bytes = new Uint8Array(base.size);
    await base.read(0, bytes);
    expect(Buffer.compare(bytes, before.bytes)).toBe(0);
    if (isZonedDevice(base)) {
      expect(base.report().map(({ writePointer, state }) => [writePointer, state === "full"])).toEqual(before.zones);
    }
    expect(after.top.length).toBeLessThan(pair.top.length);
  });

  it.each(["top", "base"] as const)("reads the same whichever storage call of the %s fails", async (which) => {
    const shape = SHAPES[1] as Shape;
    const pair = await pairOf(shape);
    const before = await read(pair);
    const NEVER = 1_000_000;
    let calls = 0;
    // The first time nothing fails, to count the calls.
    for (let nth = NEVER; nth > 0; nth = nth === NEVER ? calls : nth - 3) {
      const [top, base] = [memoryStorage(pair.top), memoryStorage(pair.base)];
      const rules = [{ fault: { type: "error" }, nth }] as const;
      const faulty = faultStorage(which === "top" ? top : base, { rules });
      const used = which === "top" ? [faulty, base] : [top, faulty];
      try {
        await commitImage(used[0] as Storage, { format: "qcow2", ...surroundingsOf(used[1] as Storage) });
      } catch (error) {
        if (!isZcowError(error)) throw error;
      }
      calls = Math.max(calls, faulty.calls());
      const left = { top: top.bytes(), base: base.bytes() };
      await expectSound(left, shape, `call ${nth}`);
      expectSame(await read(left), before, `call ${nth}`);
    }
    expect(calls).toBeGreaterThan(10);
  });
});
