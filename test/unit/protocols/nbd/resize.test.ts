import { describe, expect, it } from "vitest";
import { openRaw } from "../../../../src/formats/raw/device.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { nbdBench } from "../../../support/nbd-pipe.js";

const RESIZE = 8;
const RESIZE_FLAG = 0x200;
const MIB = 1024 * 1024;
const [EPERM, EINVAL] = [1, 22];

function served(resizable: boolean) {
  const device = openRaw(memoryStorage(MIB));
  return { device, bench: nbdBench({ "": device }, { export: { resizable } }) };
}

describe.each(["simple", "structured", "extended"] as const)("resizing with %s replies", (form) => {
  it("makes the disk larger for every connection", async () => {
    const { device, bench } = served(true);
    const one = bench.open();
    const other = bench.open();
    const info = one.go("", form).find(({ type, data }) => type === 3 && data.readUInt16BE(0) === 0);
    expect((info?.data.readUInt16BE(10) ?? 0) & RESIZE_FLAG).toBe(RESIZE_FLAG);
    other.go("", "structured");
    expect((await one.ask(RESIZE, 2 * MIB, 0)).at(-1)?.error).toBe(0);
    expect(device.size).toBe(2 * MIB);
    expect((await other.ask(1, 2 * MIB - 4, 4, { data: Buffer.from("last") })).at(-1)?.error).toBe(0);
  });

  it("refuses what it does not take", async () => {
    const { device, bench } = served(true);
    const client = bench.open();
    client.go("", form);
    const errors: (number | undefined)[] = [];
    for (const [size, length, flags] of [
      [2 * MIB, 1, 0],
      [MIB / 2, 0, 0],
      [2 * MIB + 1, 0, 0],
      [2n ** 63n, 0, 0],
      [2 * MIB, 0, 2],
    ] as const) {
      errors.push((await client.ask(RESIZE, size, length, { flags })).at(-1)?.error);
    }
    expect(errors).toEqual([EINVAL, EINVAL, EINVAL, EINVAL, EINVAL]);
    expect(device.size).toBe(MIB);
  });

  it("refuses everything where it was not offered", async () => {
    const { device, bench } = served(false);
    const client = bench.open();
    const info = client.go("", form).find(({ type, data }) => type === 3 && data.readUInt16BE(0) === 0);
    expect((info?.data.readUInt16BE(10) ?? 0) & RESIZE_FLAG).toBe(0);
    expect((await client.ask(RESIZE, 2 * MIB, 0)).at(-1)?.error).toBe(EPERM);
    expect(device.size).toBe(MIB);
  });
});
