import { describe, expect, it } from "vitest";
import { ZcowError } from "../../../../src/base/errors.js";
import type { MaybePromise } from "../../../../src/base/maybe-promise.js";
import type { Qcow2Device } from "../../../../src/formats/qcow2/device.js";
import { openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { type FaultStorage, faultStorage } from "../../../../src/storage/fault-storage.js";
import { ForwardingStorage } from "../../../../src/storage/forwarding-storage.js";
import { type MemoryStorage, memoryStorage } from "../../../../src/storage/memory-storage.js";
import type { StorageTrace } from "../../../../src/storage/tracing-storage.js";
import { tracingStorage } from "../../../../src/storage/tracing-storage.js";
import { expectSound, imageInMemory } from "../../../support/engine-images.js";

const KiB = 1024;
const CLUSTER = 64 * KiB;
const data = (value: number, length = CLUSTER): Uint8Array => new Uint8Array(length).fill(value);

/**
 * A sparse file on a host that runs out of space: zeros past the end of the file take none, so bytes written there later
 * are refused once the host is full.
 */
class FullHost extends ForwardingStorage {
  isFull = false;
  readonly #allocated = new Set<number>();

  constructor(inner: MemoryStorage) {
    super(inner);
    this.#allocate(0, inner.size());
  }

  override write(at: number, from: Uint8Array): MaybePromise<void> {
    if (this.isFull && !this.#isAllocated(at, from.length)) throw new ZcowError("NO_SPACE", "the host is full");
    this.#allocate(at, from.length);
    return this.inner.write(at, from);
  }

  #allocate(at: number, length: number): void {
    for (let page = Math.floor(at / 512); page * 512 < at + length; page++) this.#allocated.add(page);
  }

  #isAllocated(at: number, length: number): boolean {
    for (let page = Math.floor(at / 512); page * 512 < at + length; page++)
      if (!this.#allocated.has(page)) return false;
    return true;
  }
}

interface Traced {
  readonly device: Qcow2Device;
  readonly storage: MemoryStorage;
  /** Changing calls since the last `clear`, as "write 65536+512" or "flush". */
  readonly calls: string[];
}

async function traced(options: { readonly lazyRefcounts?: boolean } = {}): Promise<Traced> {
  const storage = await imageInMemory({ size: 64 * 1024 * KiB, ...options });
  const calls: string[] = [];
  const sink = (trace: StorageTrace): void => {
    if (trace.kind === "read") return;
    calls.push(trace.kind === "flush" ? "flush" : `${trace.kind} ${trace.at}`);
  };
  const device = (await openQcow2(tracingStorage(storage, sink), {})) as Qcow2Device;
  return { device, storage, calls };
}

/** Cluster numbers of a fresh image: 0 header, 1 refcount table, 2 refcount block, 3 L1, then first fit. */
const at = (cluster: number): number => cluster * CLUSTER;

describe("flush", () => {
  it("of nothing but overwritten data is one storage flush", async () => {
    const { device, calls } = await traced();
    await device.write(0, data(1));
    await device.flush();
    calls.length = 0;
    await device.write(4096, data(2, 4096));
    await device.flush();
    expect(calls).toEqual([`write ${at(5) + 4096}`, "flush"]);
    await device.close();
  });

  it("writes refcounts, then L2 tables, then L1 entries, with a barrier after each", async () => {
    const { device, calls } = await traced();
    await device.write(0, data(1));
    expect(calls).toEqual([`write ${at(4)}`, `write ${at(5)}`]);
    calls.length = 0;
    await device.flush();
    expect(calls).toEqual([`write ${at(2)}`, "flush", `write ${at(4)}`, "flush", `write ${at(3)}`, "flush"]);
    await device.close();
  });

  it("of an allocation in an existing table takes two barriers", async () => {
    const { device, calls } = await traced();
    await device.write(0, data(1));
    await device.flush();
    await device.write(CLUSTER, data(1));
    calls.length = 0;
    await device.flush();
    expect(calls).toEqual([`write ${at(2)}`, "flush", `write ${at(4)}`, "flush"]);
    await device.close();
  });

  it("does not write lazy refcounts before the device is closed", async () => {
    const { device, calls, storage } = await traced({ lazyRefcounts: true });
    await device.write(0, data(1));
    calls.length = 0;
    await device.flush();
    expect(calls).toEqual(["flush", `write ${at(4)}`, "flush", `write ${at(3)}`, "flush"]);
    calls.length = 0;
    await device.close();
    expect(calls).toEqual(["flush", `write ${at(2)}`, "flush", "write 0", "flush"]);
    expectSound(storage.bytes());
  });

  it("sets the dirty bit durably before anything else when refcounts are lazy", async () => {
    const { device, calls } = await traced({ lazyRefcounts: true });
    await device.write(0, data(1));
    expect(calls.slice(0, 2)).toEqual(["write 0", "flush"]);
    await device.close();
  });

  it("gives freed clusters back after the mapping's removal is durable: punch, then reuse", async () => {
    const { device, calls, storage } = await traced();
    await device.write(0, data(1));
    await device.flush();
    await device.discard(0, CLUSTER);
    await device.write(CLUSTER, data(2));
    expect(calls.at(-1)).toBe(`write ${at(6)}`);
    calls.length = 0;
    await device.flush();
    expect(calls).toEqual([`write ${at(2)}`, "flush", `write ${at(4)}`, "flush", `writeZeroes ${at(5)}`]);
    await device.write(2 * CLUSTER, data(3));
    expect(calls.at(-1)).toBe(`write ${at(5)}`);
    await device.close();
    expectSound(storage.bytes());
  });

  it("writes no zeros around a small write to a cluster that was made a hole", async () => {
    const { device, calls, storage } = await traced();
    await device.write(0, data(1));
    await device.flush();
    await device.discard(0, CLUSTER);
    await device.flush();
    const written = storage.bytes().length;
    calls.length = 0;
    await device.write(CLUSTER + 512, data(2).subarray(0, 512));
    expect(calls).toEqual([`write ${at(5) + 512}`]);
    const bytes = new Uint8Array(CLUSTER);
    await device.read(CLUSTER, bytes);
    expect(bytes.findIndex((byte) => byte !== 0)).toBe(512);
    expect(bytes.findLastIndex((byte) => byte !== 0)).toBe(1023);
    expect(storage.bytes().length).toBe(written);
    await device.close();
    expectSound(storage.bytes());
  });

  it("calls that arrive while a flush runs share the next one", async () => {
    const { device, calls } = await traced();
    await device.write(0, data(1));
    calls.length = 0;
    const first = device.flush();
    const second = device.flush();
    const third = device.flush();
    await Promise.all([first, second, third]);
    expect(calls.filter((call) => call === "flush").length).toBe(4);
    await device.close();
  });
});

async function withFaults(
  size = 64 * 1024 * KiB,
): Promise<{ device: Qcow2Device; storage: MemoryStorage; faults: FaultStorage }> {
  const storage = await imageInMemory({ size });
  const faults = faultStorage(storage);
  return { device: (await openQcow2(faults, {})) as Qcow2Device, storage, faults };
}

describe("flush after failures", () => {
  it("a failed table write fails the flush and is repeated by the next", async () => {
    const { device, storage, faults } = await withFaults();
    await device.write(0, data(1));
    for (const where of [at(2), at(4), at(3)]) {
      faults.plan({
        rules: [{ fault: { type: "error" }, kinds: ["write"], where: (call) => call.at === where, nth: 1 }],
      });
      await expect(async () => device.flush()).rejects.toMatchObject({ code: "IO_ERROR" });
    }
    faults.heal();
    await device.flush();
    const copy = memoryStorage(storage.bytes());
    const reopened = await openQcow2(copy, {});
    const bytes = new Uint8Array(CLUSTER);
    await reopened.read(0, bytes);
    expect(bytes).toEqual(data(1));
    await reopened.close();
    expectSound(copy.bytes());
    await device.close();
  });

  it("a failed storage flush with data outstanding is never followed by a successful one", async () => {
    const { device, faults } = await withFaults();
    await device.write(0, data(1));
    faults.plan({ rules: [{ fault: { type: "error" }, kinds: ["flush"], nth: 1 }] });
    await expect(async () => device.flush()).rejects.toMatchObject({ code: "IO_ERROR" });
    await expect(async () => device.flush()).rejects.toMatchObject({ code: "IO_ERROR" });
    await expect(device.close()).rejects.toMatchObject({ code: "IO_ERROR" });
  });

  it("a storage flush that fails when only tables are outstanding can be repeated", async () => {
    const { device, storage, faults } = await withFaults();
    await device.write(0, data(1));
    await device.flush();
    await device.discard(0, CLUSTER);
    faults.plan({ rules: [{ fault: { type: "error" }, kinds: ["flush"], nth: 1 }] });
    await expect(async () => device.flush()).rejects.toMatchObject({ code: "IO_ERROR" });
    await device.flush();
    await device.close();
    expectSound(storage.bytes());
  });

  it("a storage flush that fails after a new L2 table was zeroed is never followed by a successful one", async () => {
    const { device, faults } = await withFaults();
    await device.writeZeroes(0, CLUSTER);
    faults.plan({ rules: [{ fault: { type: "error" }, kinds: ["flush"], nth: 1 }] });
    await expect(async () => device.flush()).rejects.toMatchObject({ code: "IO_ERROR" });
    await expect(async () => device.flush()).rejects.toMatchObject({ code: "IO_ERROR" });
  });

  it("a header that could not be written for sure is written again before anything relies on it", async () => {
    const storage = await imageInMemory({ size: 3072 * KiB, clusterSize: 512, refcountBits: 64 });
    const faults = faultStorage(storage);
    const device = await openQcow2(faults, {});
    faults.plan({ rules: [{ fault: { type: "lost" }, kinds: ["write"], where: (call) => call.at === 0, nth: 1 }] });
    const live = new Uint8Array(3072 * KiB);
    let failures = 0;
    for (let at = 0; at < live.length; at += 16 * KiB) {
      try {
        await device.write(at, data(5, 16 * KiB));
        live.fill(5, at, at + 16 * KiB);
      } catch {
        failures += 1;
        const bytes = new Uint8Array(16 * KiB);
        await device.read(at, bytes);
        live.set(bytes, at);
      }
    }
    expect(failures).toBe(1);
    await device.close();
    expectSound(storage.bytes());
    const again = await openQcow2(memoryStorage(storage.bytes()), { readOnly: true });
    const actual = new Uint8Array(live.length);
    await again.read(0, actual);
    expect(Buffer.compare(actual, live)).toBe(0);
    await again.close();
  });

  it("a failed data write leaves nothing allocated", async () => {
    const { device, storage, faults } = await withFaults();
    await device.write(0, data(1));
    const before = storage.size();
    faults.plan({ rules: [{ fault: { type: "error" }, kinds: ["write"], nth: 1 }] });
    await expect(device.write(CLUSTER, data(2))).rejects.toMatchObject({ code: "IO_ERROR" });
    await device.write(2 * CLUSTER, data(3));
    await device.close();
    expect(storage.size()).toBe(before + CLUSTER);
    expectSound(storage.bytes());
  });

  it.each([512, 4096, 65536])(
    "on a full storage what was acknowledged can still be flushed (clusters of %i)",
    async (clusterSize) => {
      const storage = await imageInMemory({ size: 1 << 24, clusterSize });
      const host = new FullHost(storage);
      const device = await openQcow2(host, {});
      await device.write(0, data(1, 4 * clusterSize));
      host.isFull = true;
      await expect(async () => device.write(1 << 23, data(2, 4 * clusterSize))).rejects.toMatchObject({
        code: "NO_SPACE",
      });
      await device.flush();
      await device.close();
      const again = await openQcow2(storage.clone(), {});
      const bytes = new Uint8Array(4 * clusterSize);
      await again.read(0, bytes);
      expect(bytes).toEqual(data(1, 4 * clusterSize));
    },
  );

  it("when the storage is full, space that waits for a flush is used", async () => {
    const { device, storage, faults } = await withFaults();
    await device.write(0, data(1, 4 * CLUSTER));
    await device.flush();
    await device.discard(0, 4 * CLUSTER);
    const end = storage.size();
    const full = { type: "error", code: "NO_SPACE" } as const;
    faults.plan({ rules: [{ fault: full, kinds: ["write"], where: (call) => call.at >= end }] });
    await device.write(8 * CLUSTER, data(2, 2 * CLUSTER));
    const bytes = new Uint8Array(2 * CLUSTER);
    await device.read(8 * CLUSTER, bytes);
    expect(bytes).toEqual(data(2, 2 * CLUSTER));
    await device.close();
    expectSound(storage.bytes());
  });
});
