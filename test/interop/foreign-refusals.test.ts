import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { isZcowError, type ZcowError } from "../../src/base/errors.js";
import { openImage } from "../../src/formats/open-image.js";
import type { FormatName } from "../../src/formats/registry.js";
import { describeWithStock, qemuImg, temporaryDirectory } from "../support/stock-tools.js";

/** One field of a good image set to what it must not be: refused with the text of the stock tool, where it refuses too. */

interface Poke {
  readonly format: FormatName;
  readonly options?: string;
  readonly what: string;
  /** From the end when negative. */
  readonly at: number;
  readonly bytes: readonly number[];
  readonly code: string;
  /** Why the stock tool says something else, or nothing. */
  readonly stockDiffers?: string;
}

const u32 = (value: number): number[] => [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24];
const u64 = (value: number): number[] => [...u32(value % 2 ** 32), ...u32(Math.floor(value / 2 ** 32))];
const MiB = 1024 * 1024;
const uuid = Array.from({ length: 16 }, () => 0x78);
const fixed = "subformat=fixed";
const lenient = "takes it";

const POKES: readonly Poke[] = [
  { format: "vdi", what: "version 2.1", at: 0x44, bytes: u32(0x2_0001), code: "FORMAT_VARIANT" },
  { format: "vdi", what: "a signature", at: 0x40, bytes: u32(5), code: "FORMAT_FIELD" },
  {
    format: "vdi",
    what: "a differencing image type",
    at: 0x4c,
    bytes: u32(4),
    code: "FORMAT_VARIANT",
    stockDiffers: lenient,
  },
  { format: "vdi", what: "an odd map offset", at: 0x154, bytes: u32(513), code: "FORMAT_FIELD" },
  { format: "vdi", what: "an odd data offset", at: 0x158, bytes: u32(100), code: "FORMAT_FIELD" },
  { format: "vdi", what: "sectors of 4096", at: 0x168, bytes: u32(4096), code: "FORMAT_VARIANT" },
  { format: "vdi", what: "blocks of 3 MiB", at: 0x178, bytes: u32(3 * MiB), code: "FORMAT_FIELD" },
  { format: "vdi", what: "a disk larger than its map", at: 0x170, bytes: u64(21 * MiB), code: "FORMAT_FIELD" },
  { format: "vdi", what: "a disk of 4 PiB", at: 0x170, bytes: u64(2 ** 52), code: "FORMAT_FIELD" },
  { format: "vdi", what: "too many blocks", at: 0x180, bytes: u32(0xffff_ffff), code: "FORMAT_FIELD" },
  { format: "vdi", what: "too few blocks", at: 0x180, bytes: u32(3), code: "FORMAT_FIELD" },
  { format: "vdi", what: "a link UUID", at: 0x1a8, bytes: uuid, code: "FORMAT_VARIANT" },
  { format: "vdi", what: "a parent UUID", at: 0x1b8, bytes: uuid, code: "FORMAT_VARIANT" },
  { format: "vpc", what: "no cookie", at: 0, bytes: uuid, code: "FORMAT_FIELD" },
  { format: "vpc", what: "a wrong checksum", at: 64, bytes: u32(1), code: "FORMAT_CHECKSUM" },
  { format: "vpc", what: "no dynamic header", at: 512, bytes: uuid, code: "FORMAT_FIELD" },
  { format: "vpc", what: "blocks of 0 bytes", at: 512 + 32, bytes: u32(0), code: "FORMAT_FIELD" },
  { format: "vpc", options: fixed, what: "no cookie", at: -512, bytes: uuid, code: "FORMAT_FIELD" },
  { format: "vpc", options: fixed, what: "a wrong checksum", at: -448, bytes: u32(1), code: "FORMAT_CHECKSUM" },
  { format: "vhdx", what: "no mark", at: 0, bytes: uuid, code: "FORMAT_FIELD", stockDiffers: "gives the errno only" },
  {
    format: "vhdx",
    what: "no region table",
    at: 192 * 1024,
    bytes: Array.from({ length: 65_536 + 4 }, () => 0),
    code: "FORMAT_CHECKSUM",
    stockDiffers: "gives the errno only",
  },
  { format: "vmdk", what: "version 4", at: 4, bytes: u32(4), code: "FORMAT_VARIANT" },
  { format: "vmdk", what: "grains of 3 sectors", at: 20, bytes: u64(3), code: "FORMAT_FIELD", stockDiffers: lenient },
  { format: "vmdk", what: "no table entries", at: 44, bytes: u32(0), code: "FORMAT_FIELD" },
  { format: "vmdk", what: "tables of 1024 entries", at: 44, bytes: u32(1024), code: "FORMAT_FIELD" },
  {
    format: "vmdk",
    what: "a disk of 2^60 sectors",
    at: 12,
    bytes: u64(2 ** 60),
    code: "FORMAT_FIELD",
    stockDiffers: "names no field",
  },
  {
    format: "vmdk",
    what: "a descriptor of garbage",
    at: 512,
    bytes: [103, 97, 114, 0],
    code: "FORMAT_FIELD",
    stockDiffers: "gives the errno only",
  },
];

function texts(error: ZcowError): string {
  return error.stockText ?? error.message;
}

async function refusal(path: string, format: FormatName): Promise<ZcowError> {
  try {
    await (await openImage(path, { format, readOnly: true, implicitFiles: "allow" })).close();
  } catch (error) {
    if (isZcowError(error)) return error;
    throw error;
  }
  throw new Error(`${path} was opened`);
}

async function stockText(path: string, format: FormatName): Promise<string> {
  const { stderr } = await qemuImg(["info", "-f", format, path]);
  return stderr.replace(`qemu-img: Could not open '${path}': `, "").trimEnd();
}

describeWithStock("a damaged disk of another virtual machine is refused", () => {
  it.each(POKES)("$format with $what: $code", async ({ format, options, at, bytes, code, stockDiffers }) => {
    const path = join(temporaryDirectory(), `disk.${format}`);
    const creation = options === undefined ? [] : ["-o", options];
    expect((await qemuImg(["create", "-q", "-f", format, ...creation, path, "20M"])).code).toBe(0);
    const file = readFileSync(path);
    file.set(bytes, at < 0 ? file.length + at : at);
    writeFileSync(path, file);
    const error = await refusal(path, format);
    expect(error.code).toBe(code);
    if (stockDiffers === undefined) expect(texts(error)).toBe(await stockText(path, format));
  });

  it.each([
    { what: "an unknown kind", from: 'monolithicFlat"', to: 'other"', code: "FORMAT_VARIANT" },
    { what: "an extent of ESX", from: "FLAT ", to: "VMFSSPARSE ", code: "FORMAT_VARIANT" },
    { what: "no kind", from: "createType", to: "creatType", code: "FORMAT_FIELD" },
    { what: "a negative offset", from: / 0\n/, to: " -5\n", code: "FORMAT_FIELD" },
    {
      what: "an extent file that is not there",
      from: "-flat.vmdk",
      to: "-nope.vmdk",
      code: "NOT_FOUND",
      stockDiffers: true,
    },
    { what: "an extent of no length", from: /RW \d+/, to: "RW 0", code: "FORMAT_FIELD", stockDiffers: true },
    { what: "no extents", from: "RW ", to: "RX ", code: "FORMAT_FIELD", stockDiffers: true },
  ])("VMDK descriptor with $what: $code", async ({ from, to, code, stockDiffers }) => {
    const path = join(temporaryDirectory(), "disk.vmdk");
    const creation = ["create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", path, "4M"];
    expect((await qemuImg(creation)).code).toBe(0);
    writeFileSync(path, readFileSync(path, "latin1").replace(from, to), "latin1");
    const error = await refusal(path, "vmdk");
    expect(error.code).toBe(code);
    if (stockDiffers !== true) expect(texts(error)).toBe(await stockText(path, "vmdk"));
  });
});
