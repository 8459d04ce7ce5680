import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { BlockDevice } from "../../src/block/block-device.js";
import { isZonedDevice, type ZonedDevice } from "../../src/block/zoned-device.js";
import { runProgram } from "../../src/cli/program.js";
import { openImage } from "../../src/formats/open-image.js";
import { temporaryDirectory } from "../support/stock-tools.js";

const MIB = 1024 * 1024;
const ZONES = "zone.mode=host-managed,zone.size=1M";

/** Converts between plain and zoned disks with the command, and reads both sides back. */
describe("converting from and to zones", () => {
  const folder = temporaryDirectory();
  mkdirSync(folder, { recursive: true });
  const at = (name: string): string => join(folder, name);

  async function zcow(...args: string[]): Promise<{ code: number; stderr: string }> {
    let stderr = "";
    const code = await runProgram("zcow", args, { out: () => {}, err: (text) => void (stderr += text) });
    return { code, stderr };
  }

  async function mustRun(...args: string[]): Promise<void> {
    expect(await zcow(...args)).toEqual({ code: 0, stderr: "" });
  }

  async function opened<T>(
    name: string,
    format: "raw" | "qcow2",
    work: (device: BlockDevice) => Promise<T>,
  ): Promise<T> {
    const device = await openImage(at(name), { format, readOnly: true, implicitFiles: "allow" });
    try {
      return await work(device);
    } finally {
      await device.close();
    }
  }

  const contents = (name: string, format: "raw" | "qcow2"): Promise<Buffer> =>
    opened(name, format, async (device) => {
      const bytes = Buffer.alloc(device.size);
      await device.read(0, bytes);
      return bytes;
    });

  const pointers = (name: string): Promise<{ state: string; written: number }[]> =>
    opened(name, "qcow2", async (device) => {
      if (!isZonedDevice(device)) throw new Error(`${name} has no zones`);
      return device.report().map(({ state, start, writePointer }) => ({ state, written: writePointer - start }));
    });

  async function zonedImage(name: string, options: string, fill: (disk: ZonedDevice) => Promise<void>): Promise<void> {
    await mustRun("create", "-q", "-f", "qcow2", "-o", `${ZONES},${options}`, at(name), "8M");
    const disk = await openImage(at(name), { format: "qcow2", readOnly: false });
    try {
      if (!isZonedDevice(disk)) throw new Error("zones were asked for");
      await fill(disk);
      await disk.flush();
    } finally {
      await disk.close();
    }
  }

  async function plainDisk(
    name: string,
    size: number,
    writes: readonly [offset: number, bytes: Uint8Array][],
  ): Promise<void> {
    await mustRun("create", "-q", "-f", "raw", at(name), String(size));
    const disk = await openImage(at(name), { format: "raw", readOnly: false });
    for (const [offset, bytes] of writes) await disk.write(offset, bytes);
    await disk.close();
  }

  /** One conventional zone; an empty, a partly written, a full, a finished one, and one that ends with zeros. */
  const fillVaried = async (disk: ZonedDevice): Promise<void> => {
    await disk.write(100 * 512, Buffer.alloc(512, 1));
    await disk.write(2 * MIB, Buffer.alloc(70_144, 2));
    await disk.write(3 * MIB, Buffer.alloc(MIB, 3));
    await disk.write(4 * MIB, Buffer.alloc(512, 4));
    await disk.finishZones(4 * MIB, MIB);
    await disk.write(5 * MIB, Buffer.alloc(4096, 5));
    await disk.writeZeroes(5 * MIB + 4096, 200_192);
  };

  it.each([
    ["to the zones of a new image", []],
    ["to compressed clusters", ["-c"]],
    ["with all zeros written", ["-S", "0"]],
  ])("keeps write pointers, full zones and limits %s", async (_how, switches) => {
    const name = `kept${switches.join("")}`;
    await zonedImage(
      `${name}.src`,
      "zone.conventional_zones=1,zone.max_active_zones=3,zone.max_open_zones=2",
      fillVaried,
    );
    await mustRun("convert", ...switches, "-f", "qcow2", "-O", "qcow2", at(`${name}.src`), at(name));
    const expected = await pointers(`${name}.src`);
    expect(expected.map(({ written }) => written)).toEqual([0, 0, 70_144, MIB, MIB, 204_288, 0, 0]);
    expect((await contents(name, "qcow2")).equals(await contents(`${name}.src`, "qcow2"))).toBe(true);
    expect(await pointers(name)).toEqual(expected);
    await opened(name, "qcow2", async (device) => {
      expect(device.limits.zoned).toMatchObject({ conventionalZones: 1, maxActiveZones: 3, maxOpenZones: 2 });
    });
    await mustRun("check", "-q", "-f", "qcow2", at(name));
  });

  it("makes plain disks of zoned ones, as raw files and, when told so, as qcow2", async () => {
    await zonedImage("plain.src", "zone.conventional_zones=1", fillVaried);
    await mustRun("convert", "-f", "qcow2", "-O", "raw", at("plain.src"), at("plain.raw"));
    await mustRun("convert", "-f", "qcow2", "-O", "qcow2", "-o", "zone.mode=none", at("plain.src"), at("plain.qcow2"));
    const expected = await contents("plain.src", "qcow2");
    expect((await contents("plain.raw", "raw")).equals(expected)).toBe(true);
    expect((await contents("plain.qcow2", "qcow2")).equals(expected)).toBe(true);
    await opened("plain.qcow2", "qcow2", async (device) => expect(device.limits.zoned).toBeUndefined());
  });

  it("fills the zones of a target from a plain disk, up to the last data of each", async () => {
    await plainDisk("fill.raw", 4 * MIB + 700, [
      [1000, Buffer.alloc(100, 1)],
      [MIB + 500_000, Buffer.alloc(1000, 2)],
      [3 * MIB, Buffer.alloc(MIB, 3)],
      [4 * MIB + 600, Buffer.alloc(100, 4)],
    ]);
    await mustRun("create", "-q", "-f", "qcow2", "-o", `${ZONES},zone.conventional_zones=1`, at("fill.qcow2"), "6M");
    await mustRun("convert", "-n", "-f", "raw", "-O", "qcow2", at("fill.raw"), at("fill.qcow2"));
    const [source, target] = [await contents("fill.raw", "raw"), await contents("fill.qcow2", "qcow2")];
    expect(target.subarray(0, source.length).equals(source)).toBe(true);
    expect(target.subarray(source.length).every((byte) => byte === 0)).toBe(true);
    const states = await pointers("fill.qcow2");
    expect(states.map(({ state }) => state)).toEqual(
      ["conventional", "closed", "empty", "full", "closed", "empty"].map((state) =>
        state === "conventional" ? states[0]?.state : state,
      ),
    );
    expect(states[1]?.written).toBeGreaterThanOrEqual(501_000);
    expect(states[4]?.written).toBeGreaterThanOrEqual(700);
    expect(states[4]?.written).toBeLessThanOrEqual(4096);
  });

  it("replaces what the zones of an existing target hold", async () => {
    await zonedImage("old.qcow2", "zone.conventional_zones=1", fillVaried);
    await plainDisk("new.raw", 8 * MIB, [[2 * MIB + 512, Buffer.alloc(512, 9)]]);
    await mustRun("convert", "-n", "-f", "raw", "-O", "qcow2", at("new.raw"), at("old.qcow2"));
    expect((await contents("old.qcow2", "qcow2")).equals(await contents("new.raw", "raw"))).toBe(true);
    expect((await pointers("old.qcow2")).map(({ written }) => written)).toEqual([0, 0, 4096, 0, 0, 0, 0, 0]);
  });

  it("finishes zones rather than leave more active than the target allows", async () => {
    const parts = [0, 1, 2, 3, 4].map((zone): [number, Uint8Array] => [zone * MIB, Buffer.alloc(5000, zone + 1)]);
    await plainDisk("many.raw", 6 * MIB, parts);
    const options = `${ZONES},zone.max_active_zones=2`;
    await mustRun("convert", "-f", "raw", "-O", "qcow2", "-o", options, at("many.raw"), at("many.qcow2"));
    expect((await contents("many.qcow2", "qcow2")).equals(await contents("many.raw", "raw"))).toBe(true);
    expect((await pointers("many.qcow2")).map(({ state }) => state)).toEqual([
      "closed",
      "full",
      "full",
      "full",
      "full",
      "empty",
    ]);
  });

  it("refuses data past the capacity of a zone, and says where it is", async () => {
    await plainDisk("wide.raw", 4 * MIB, [[MIB + 600 * 1024, Buffer.alloc(512, 1)]]);
    const options = `${ZONES},zone.capacity=512k`;
    const result = await zcow("convert", "-f", "raw", "-O", "qcow2", "-o", options, at("wide.raw"), at("wide.qcow2"));
    expect(result.code).toBe(1);
    expect(result.stderr).toContain("zone 1 can be written up to 1572864");
  });

  it("takes data between other zones when every byte still fits", async () => {
    await zonedImage("geometry.src", "zone.conventional_zones=1", fillVaried);
    const options = "zone.mode=host-managed,zone.size=2M";
    await mustRun("convert", "-f", "qcow2", "-O", "qcow2", "-o", options, at("geometry.src"), at("geometry.qcow2"));
    expect((await contents("geometry.qcow2", "qcow2")).equals(await contents("geometry.src", "qcow2"))).toBe(true);
  });
});
