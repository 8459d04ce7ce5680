import { describe, expect, it } from "vitest";
import { isPromise } from "../../../../src/base/maybe-promise.js";
import { TableCache, type TableSlice } from "../../../../src/formats/qcow2/table-cache.js";
import { ForwardingStorage } from "../../../../src/storage/forwarding-storage.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";

const SLICE = 512;

function storageOfNumberedSlices(count = 64): ReturnType<typeof memoryStorage> {
  const bytes = new Uint8Array(count * SLICE);
  for (let i = 0; i < count; i++) bytes.fill(i + 1, i * SLICE, (i + 1) * SLICE);
  return memoryStorage(bytes);
}

function load(cache: TableCache, index: number): TableSlice {
  const slice = cache.acquire(index * SLICE);
  if (isPromise(slice)) throw new Error("memory answers at once");
  cache.release(slice);
  return slice;
}

class GatedStorage extends ForwardingStorage {
  readonly waiting: (() => void)[] = [];

  override async read(at: number, into: Uint8Array): Promise<void> {
    await new Promise<void>((resolve) => this.waiting.push(resolve));
    await super.read(at, into);
  }
}

describe("table cache", () => {
  it("keeps at most its capacity of idle slices and evicts the least recently used", () => {
    const cache = new TableCache(storageOfNumberedSlices(), SLICE, 4);
    for (const index of [0, 1, 2, 3]) load(cache, index);
    cache.peek(0);
    load(cache, 4);
    expect(cache.size).toBe(4);
    expect(cache.peek(0)?.bytes[0]).toBe(1);
    expect(cache.peek(1 * SLICE)).toBeUndefined();
    expect(cache.peek(4 * SLICE)?.bytes[0]).toBe(5);
  });

  it("keeps slices that somebody holds, and drops them when released", async () => {
    const cache = new TableCache(storageOfNumberedSlices(), SLICE, 2);
    const held = await Promise.all([0, 1, 2, 3].map(async (index) => cache.acquire(index * SLICE)));
    expect(cache.size).toBe(4);
    for (const slice of held) cache.release(slice);
    expect(cache.size).toBe(2);
  });

  it("does not evict dirty slices", () => {
    const cache = new TableCache(storageOfNumberedSlices(), SLICE, 4);
    const dirty = load(cache, 0);
    cache.edit(dirty);
    for (const index of [1, 2, 3, 4, 5, 6]) load(cache, index);
    expect(cache.peek(0)).toBe(dirty);
    expect(cache.size).toBe(4);
  });

  it("lets at most half of its slices be dirty", () => {
    const cache = new TableCache(storageOfNumberedSlices(), SLICE, 4);
    for (const index of [0, 1]) cache.edit(load(cache, index));
    const third = load(cache, 2);
    expect(cache.mayEdit(third)).toBe(false);
    expect(cache.mayEdit(load(cache, 0))).toBe(true);
    const batch = cache.freeze();
    expect(cache.mayEdit(third)).toBe(false);
    cache.settle(batch, true);
    expect(cache.mayEdit(third)).toBe(true);
  });

  it("a change during a write-back does not reach the bytes being written, and stays dirty", () => {
    const cache = new TableCache(storageOfNumberedSlices(), SLICE, 4);
    const slice = load(cache, 0);
    cache.edit(slice);
    slice.view.setUint8(0, 100);
    const batch = cache.freeze();
    const frozen = batch[0]?.frozen as Uint8Array;
    cache.edit(slice);
    slice.view.setUint8(0, 200);
    expect(frozen[0]).toBe(100);
    expect(cache.peek(0)?.bytes[0]).toBe(200);
    cache.settle(batch, true);
    expect(cache.freeze()).toEqual([slice]);
  });

  it("a failed write-back leaves everything dirty, later changes included", () => {
    const cache = new TableCache(storageOfNumberedSlices(), SLICE, 4);
    const slice = load(cache, 0);
    cache.edit(slice);
    slice.view.setUint8(0, 100);
    const batch = cache.freeze();
    cache.edit(slice);
    slice.view.setUint8(1, 101);
    cache.settle(batch, false);
    expect(cache.isDirty).toBe(true);
    const [again] = cache.freeze();
    expect([...(again?.frozen?.subarray(0, 2) ?? [])]).toEqual([100, 101]);
  });

  it("loads a slice once for all who ask while it is loading", async () => {
    const gated = new GatedStorage(storageOfNumberedSlices());
    const cache = new TableCache(gated, SLICE, 2);
    const both = [cache.acquire(0), cache.acquire(0)];
    expect(cache.peek(0)).toBeUndefined();
    expect(gated.waiting.length).toBe(1);
    gated.waiting[0]?.();
    const [first, second] = await Promise.all(both);
    expect(first).toBe(second);
    expect(first?.pins).toBe(2);
  });

  it("a failed load fails every waiter and is tried again by the next", async () => {
    class FailsOnce extends ForwardingStorage {
      failed = false;
      override read(at: number, into: Uint8Array): Promise<void> | void {
        if (this.failed) return super.read(at, into);
        this.failed = true;
        return Promise.reject(new Error("no"));
      }
    }
    const cache = new TableCache(new FailsOnce(storageOfNumberedSlices()), SLICE, 2);
    const both = [cache.acquire(0), cache.acquire(0)];
    const results = await Promise.allSettled(both);
    expect(results.map((result) => result.status)).toEqual(["rejected", "rejected"]);
    expect((await cache.acquire(0)).bytes[0]).toBe(1);
  });

  it("forgets slices of clusters that got another meaning", () => {
    const storage = storageOfNumberedSlices();
    const cache = new TableCache(storage, SLICE, 8);
    for (const index of [0, 1, 2]) load(cache, index);
    void storage.write(SLICE, new Uint8Array(SLICE).fill(77));
    cache.forget(SLICE, SLICE);
    expect(cache.peek(SLICE)).toBeUndefined();
    expect(load(cache, 1).bytes[0]).toBe(77);
    expect(cache.peek(0)?.bytes[0]).toBe(1);
  });
});
