import { describe, expect, it } from "vitest";
import { openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { ForwardingStorage } from "../../../../src/storage/forwarding-storage.js";
import type { Storage } from "../../../../src/storage/storage.js";
import { expectSound, imageInMemory } from "../../../support/engine-images.js";

const CLUSTER = 65_536;
const data = (value: number, length = CLUSTER): Uint8Array => new Uint8Array(length).fill(value);

/** Holds back writes of guest data (at or after `from`) until they are let go. */
class HeldWrites extends ForwardingStorage {
  readonly held: { readonly at: number; readonly go: () => void }[] = [];
  readonly #from: number;
  holding = true;

  constructor(inner: Storage, from: number) {
    super(inner);
    this.#from = from;
  }

  override write(at: number, from: Uint8Array): Promise<void> | void {
    if (!this.holding || at < this.#from) return super.write(at, from);
    return new Promise<void>((resolve) => {
      this.held.push({ at, go: resolve });
    }).then(() => super.write(at, from));
  }

  letGo(): void {
    this.holding = false;
    for (const one of this.held.splice(0)) one.go();
  }
}

async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

async function heldDevice(): Promise<{
  device: Awaited<ReturnType<typeof openQcow2>>;
  held: HeldWrites;
  memory: Awaited<ReturnType<typeof imageInMemory>>;
}> {
  const memory = await imageInMemory({ size: 64 * 1024 * 1024 });
  const held = new HeldWrites(memory, 5 * CLUSTER);
  return { device: await openQcow2(held, {}), held, memory };
}

describe("requests in flight", () => {
  it("allocating writes to different clusters are in flight at the same time", async () => {
    const { device, held, memory } = await heldDevice();
    const writes = [0, 1, 2, 3].map((index) => device.write(index * 2 * CLUSTER, data(index + 1, 512)));
    await settle();
    expect(held.held.length).toBe(4);
    held.letGo();
    await Promise.all(writes);
    await device.close();
    expectSound(memory.bytes());
  });

  it("a second write to a cluster that is being allocated waits and lands in the same cluster", async () => {
    const { device, held, memory } = await heldDevice();
    const first = device.write(0, data(1, 512));
    const second = device.write(1024, data(2, 512));
    await settle();
    expect(held.held.length).toBe(1);
    held.letGo();
    await Promise.all([first, second]);
    const bytes = new Uint8Array(2048);
    await device.read(0, bytes);
    expect([bytes[0], bytes[600], bytes[1024], bytes[1536]]).toEqual([1, 0, 2, 0]);
    expect(memory.size()).toBeLessThanOrEqual(6 * CLUSTER);
    await device.close();
    expectSound(memory.bytes());
  });

  it("a discard waits for the allocating write that it overlaps", async () => {
    const { device, held, memory } = await heldDevice();
    const write = device.write(0, data(1));
    await settle();
    const discard = device.discard(0, CLUSTER);
    await settle();
    held.letGo();
    await Promise.all([write, discard]);
    const bytes = new Uint8Array(CLUSTER);
    await device.read(0, bytes);
    expect(bytes).toEqual(data(0));
    await device.close();
    expectSound(memory.bytes());
  });

  it("zeroing one half of a cluster does not lose data that arrives in the other half", async () => {
    const { device, held } = await heldDevice();
    const write = device.write(0, data(1, 512));
    await settle();
    const zeroes = device.writeZeroes(CLUSTER / 2, CLUSTER / 2);
    await settle();
    held.letGo();
    await Promise.all([write, zeroes]);
    const bytes = new Uint8Array(512);
    await device.read(0, bytes);
    expect(bytes).toEqual(data(1, 512));
    await device.close();
  });

  it("a cluster is not reused while a write to it is still under way", async () => {
    const { device, held, memory } = await heldDevice();
    held.holding = false;
    await device.write(0, data(1));
    await device.flush();
    held.holding = true;
    const late = device.write(0, data(2));
    await settle();
    await device.discard(0, CLUSTER);
    await device.flush();
    for (let i = 0; i < 4; i++) await settle();
    held.holding = false;
    await device.write(10 * CLUSTER, data(3));
    held.letGo();
    await late;
    const bytes = new Uint8Array(CLUSTER);
    await device.read(10 * CLUSTER, bytes);
    expect(bytes).toEqual(data(3));
    await device.close();
    expectSound(memory.bytes());
  });

  it("a flush does not wait for writes that have not completed", async () => {
    const { device, held } = await heldDevice();
    const write = device.write(0, data(1));
    await settle();
    await device.flush();
    held.letGo();
    await write;
    await device.close();
  });

  it("close waits for what is in flight", async () => {
    const { device, held, memory } = await heldDevice();
    const write = device.write(0, data(1));
    await settle();
    const closed = device.close();
    await settle();
    held.letGo();
    await Promise.all([write, closed]);
    expectSound(memory.bytes());
    expect(memory.bytes()[5 * CLUSTER]).toBe(1);
  });
});

describe("contents of reused clusters", () => {
  it("never show around a small write", async () => {
    const memory = await imageInMemory({ size: 64 * 1024 * 1024 });
    // No holes: what was in freed clusters stays there.
    const device = await openQcow2(new ForwardingStorage(memory, { ...memory.capabilities, discard: false }), {});
    await device.write(0, data(0xee, 4 * CLUSTER));
    await device.flush();
    await device.discard(0, 4 * CLUSTER);
    await device.flush();
    void memory.write(5 * CLUSTER, data(0xee, 4 * CLUSTER));
    await device.write(20 * CLUSTER + 100, data(1, 10));
    await device.write(22 * CLUSTER + 5, data(2, CLUSTER));
    const bytes = new Uint8Array(4 * CLUSTER);
    await device.read(20 * CLUSTER, bytes);
    expect(bytes.includes(0xee)).toBe(false);
    expect(memory.size()).toBeLessThanOrEqual(9 * CLUSTER);
    await device.close();
  });

  it("never show when a preallocated zero cluster is written in part", async () => {
    const memory = await imageInMemory({ size: 64 * 1024 * 1024 });
    const device = await openQcow2(memory, {});
    await device.write(0, data(0xee, CLUSTER));
    await device.writeZeroes(0, CLUSTER, { unmap: false });
    await device.write(1000, data(1, 10));
    const bytes = new Uint8Array(CLUSTER);
    await device.read(0, bytes);
    expect(bytes).toEqual(data(0).fill(1, 1000, 1010));
    expect(memory.size()).toBeLessThanOrEqual(6 * CLUSTER);
    await device.close();
    expectSound(memory.bytes());
  });
});
