import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { BlockDevice } from "../../src/block/block-device.js";
import { infoText, infoTree } from "../../src/cli/info-text.js";
import { openImage } from "../../src/formats/open-image.js";
import type { FormatName } from "../../src/formats/registry.js";
import { describeImage } from "../../src/jobs/info.js";
import { mapImage } from "../../src/jobs/map.js";
import { Random, seedFromEnvironment, taggedBytes } from "../support/random.js";
import { describeWithStock, qemuImg, qemuIo, temporaryDirectory } from "../support/stock-tools.js";

/** Disks of other virtual machines, made and filled by the stock tools. */

const MiB = 1024 * 1024;

interface Disk {
  readonly format: FormatName;
  readonly options: string;
  readonly size: number;
  /** Stock tools write this kind only by conversion. */
  readonly byConversion?: boolean;
  /** Stock tools tell nothing of what is stored in it. */
  readonly noStockMap?: boolean;
}

const DISKS: readonly Disk[] = [
  { format: "vdi", options: "", size: 20 * MiB },
  { format: "vdi", options: "static=on", size: 5 * MiB + 512 },
  { format: "vpc", options: "force_size=on", size: 20 * MiB },
  { format: "vpc", options: "", size: 20 * MiB },
  { format: "vpc", options: "subformat=fixed,force_size=on", size: 5 * MiB },
  { format: "vhdx", options: "", size: 40 * MiB, noStockMap: true },
  { format: "vhdx", options: "block_size=1M", size: 40 * MiB, noStockMap: true },
  { format: "vhdx", options: "subformat=fixed,block_size=2M", size: 10 * MiB, noStockMap: true },
  { format: "vmdk", options: "", size: 40 * MiB },
  { format: "vmdk", options: "zeroed_grain=on", size: 40 * MiB },
  { format: "vmdk", options: "subformat=monolithicFlat", size: 5 * MiB },
  { format: "vmdk", options: "subformat=twoGbMaxExtentSparse", size: 2100 * MiB },
  { format: "vmdk", options: "subformat=twoGbMaxExtentFlat", size: 2100 * MiB },
  { format: "vmdk", options: "subformat=streamOptimized", size: 40 * MiB, byConversion: true },
];

async function stock(args: readonly string[]): Promise<string> {
  const result = await qemuImg(args);
  expect(result.code, `qemu-img ${args.join(" ")}: ${result.stderr}`).toBe(0);
  return result.stdout;
}

/** Writes here and there, near the end and across pieces of the disk. */
function writes(size: number, random: Random): string[] {
  const commands: string[] = [];
  for (let i = 0; i < 12; i++) {
    const length = random.pick([512, 4096, 65_536, 300_032]);
    const last = Math.floor((size - length) / 512);
    const at = i === 0 ? last * 512 : random.below(last + 1) * 512;
    commands.push("-c", `${i % 5 === 4 ? "write -z" : `write -P ${1 + random.below(255)}`} ${at} ${length}`);
  }
  return commands;
}

async function makeDisk(disk: Disk, path: string, random: Random): Promise<void> {
  const { format, options, size, byConversion } = disk;
  const creation = options === "" ? [] : ["-o", options];
  if (byConversion !== true) {
    await stock(["create", "-q", "-f", format, ...creation, path, String(size)]);
    expect((await qemuIo(["-f", format, ...writes(size, random), path])).code).toBe(0);
    return;
  }
  const source = `${path}.raw`;
  await stock(["create", "-q", "-f", "raw", source, String(size)]);
  expect((await qemuIo(["-f", "raw", ...writes(size, random), source])).code).toBe(0);
  await stock(["convert", "-f", "raw", "-O", format, ...creation, source, path]);
}

/** Compares what either of the two claims to store; what both call zeros is compared by their maps. */
async function expectSameBytes(device: BlockDevice, rawPath: string): Promise<void> {
  const raw = await openImage(rawPath, { format: "raw", readOnly: true });
  try {
    for (const disk of [device, raw]) {
      for await (const extent of disk.extents(0, device.size)) {
        if (!extent.zero) await expectSameRange(device, raw, extent.offset, extent.length);
      }
    }
  } finally {
    await raw.close();
  }
}

async function expectSameRange(device: BlockDevice, raw: BlockDevice, from: number, length: number): Promise<void> {
  const end = from + length;
  const ours = new Uint8Array(1_000_003);
  const theirs = new Uint8Array(ours.length);
  for (let at = from; at < end; at += ours.length) {
    const piece = Math.min(ours.length, end - at);
    await device.read(at, ours.subarray(0, piece));
    await raw.read(at, theirs.subarray(0, piece));
    expect(Buffer.compare(ours.subarray(0, piece), theirs.subarray(0, piece)), `bytes from ${at}`).toBe(0);
  }
}

describeWithStock("disks of other virtual machines", () => {
  it.each(DISKS.map((disk, index) => ({ ...disk, index })))(
    "are read, mapped and described as stock tools do: $format $options",
    async ({ index, ...disk }) => {
      const path = join(temporaryDirectory(), `disk.${disk.format}`);
      await makeDisk(disk, path, new Random(seedFromEnvironment(300 + index)));
      const raw = `${path}.copy`;
      await stock(["convert", "-f", disk.format, "-O", "raw", path, raw]);
      const device = await openImage(path, { format: disk.format, readOnly: true, implicitFiles: "allow" });
      await using _ = device;
      const info = await describeImage(path, { format: disk.format, implicitFiles: "allow" });
      expect(infoText(info)).toBe(await stock(["info", "-f", disk.format, path]));
      expect(infoTree(info)).toEqual(JSON.parse(await stock(["info", "-f", disk.format, "--output=json", path])));
      await expectSameBytes(device, raw);
      if (disk.noStockMap === true) return;
      const entries = [];
      for await (const { offset, file: _file, ...entry } of mapImage(device)) {
        entries.push(offset === undefined ? entry : { ...entry, offset });
      }
      expect(entries).toEqual(JSON.parse(await stock(["map", "--output=json", "-f", disk.format, path])));
    },
  );

  it("are recognised by content, but for fixed disks of Virtual PC, which have no mark at the start", async () => {
    const folder = temporaryDirectory();
    for (const format of ["vdi", "vpc", "vhdx", "vmdk"] as const) {
      const path = join(folder, `probed.${format}`);
      await stock(["create", "-q", "-f", format, path, "4M"]);
      const device = await openImage(path, { format: "probe", readOnly: true });
      expect(device.format).toBe(format);
      await device.close();
    }
  });

  it("tell where the blocks of a VHDX are, which stock tools do not", async () => {
    const path = join(temporaryDirectory(), "disk.vhdx");
    await stock(["create", "-q", "-f", "vhdx", "-o", "block_size=1M", path, "8M"]);
    expect((await qemuIo(["-f", "vhdx", "-c", "write -P 7 2M 64k", path])).code).toBe(0);
    const device = await openImage(path, { format: "vhdx", readOnly: true });
    await using _ = device;
    const kinds: string[] = [];
    const file = readFileSync(path);
    for await (const entry of mapImage(device)) {
      kinds.push(`${entry.start / MiB}+${entry.length / MiB} ${entry.data ? "data" : "zero"}`);
      if (entry.offset !== undefined) expect(file[entry.offset]).toBe(7);
    }
    expect(kinds).toEqual(["0+2 zero", "2+1 data", "3+5 zero"]);
  });

  it("open for reading only, and say so", async () => {
    const path = join(temporaryDirectory(), "disk.vdi");
    await stock(["create", "-q", "-f", "vdi", path, "4M"]);
    await expect(openImage(path, { format: "vdi" })).rejects.toMatchObject({ code: "FORMAT_READ_ONLY" });
  });

  it("tell in which file of a VMDK the data is", async () => {
    const path = join(temporaryDirectory(), "disk.vmdk");
    await stock(["create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", path, "4M"]);
    expect((await qemuIo(["-f", "vmdk", "-c", "write 1M 64k", path])).code).toBe(0);
    const device = await openImage(path, { format: "vmdk", readOnly: true, implicitFiles: "allow" });
    await using _ = device;
    for await (const entry of mapImage(device)) expect(entry.file).toBe(path.replace(".vmdk", "-flat.vmdk"));
  });

  it("do not open the extents of a VMDK without leave", async () => {
    const path = join(temporaryDirectory(), "disk.vmdk");
    await stock(["create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", path, "4M"]);
    await expect(openImage(path, { format: "vmdk", readOnly: true })).rejects.toMatchObject({
      code: "IMPLICIT_FILE_DENIED",
    });
  });

  it("open no parent of a VMDK without leave", async () => {
    const folder = temporaryDirectory();
    await stock(["create", "-q", "-f", "vmdk", join(folder, "base.vmdk"), "4M"]);
    const path = join(folder, "child.vmdk");
    await stock(["create", "-q", "-f", "vmdk", "-b", join(folder, "base.vmdk"), "-F", "vmdk", path]);
    await expect(openImage(path, { format: "vmdk", readOnly: true })).rejects.toMatchObject({
      code: "IMPLICIT_FILE_DENIED",
    });
  });

  it("read the data of stream-optimised extents whose grains do not shrink", async () => {
    const folder = temporaryDirectory();
    const source = join(folder, "noise.raw");
    writeFileSync(source, taggedBytes(9, 0, 2 * MiB));
    const path = join(folder, "noise.vmdk");
    await stock(["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", source, path]);
    const device = await openImage(path, { format: "vmdk", readOnly: true });
    await using _ = device;
    await expectSameBytes(device, source);
  });
});
