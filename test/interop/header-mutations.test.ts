import { writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { isZcowError, type ZcowError } from "../../src/base/errors.js";
import { readHeader } from "../../src/formats/qcow2/header-read.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { type Change, plainImage, put8, put32, put64 } from "../corpus/images.js";
import { describeWithStock, qemuIo, temporaryDirectory } from "../support/stock-tools.js";

/** Values at and around the edges of each field. Snapshots are left out: the stock tool reads their table at once. */
const FIELDS: readonly (readonly [name: string, put: (value: bigint) => Change, values: readonly bigint[]])[] = [
  ["version", in32(4), [1n, 2n, 3n, 4n]],
  ["backing_file_offset", in64(8), [0n, 100n, 112n, 128n, 0x1000n, 0xfff0n, 0x10000n, 0x10001n, 1n << 63n]],
  ["cluster_bits", in32(20), [8n, 9n, 12n, 13n, 14n, 16n, 21n, 22n]],
  ["size", in64(24), [0n, 1n, 511n, 1000n, 1n << 29n, (1n << 29n) + 1n, 1n << 50n, 1n << 61n, 1n << 63n]],
  ["crypt_method", in32(32), [0n, 2n, 3n]],
  ["l1_size", in32(36), [0n, 1n, 2n, 4194304n, 4194305n, 0xffff_ffffn]],
  ["l1_table_offset", in64(40), [0n, 0x200n, 0x10000n, 0x30200n, 1n << 56n, 1n << 63n]],
  ["refcount_table_offset", in64(48), [0n, 0x10000n, 0x10001n, 0x20000n, 1n << 63n]],
  ["refcount_table_clusters", in32(56), [0n, 1n, 128n, 129n, 0xffff_ffffn]],
  ["incompatible_features", in64(72), [0n, 1n, 2n, 3n, 4n, 6n, 8n, 16n, 24n, 64n, 1n << 63n]],
  ["compatible_features", in64(80), [0n, 1n, 1n << 40n]],
  ["autoclear_features", in64(88), [0n, 1n, 2n, 3n, 1n << 40n]],
  ["refcount_order", in32(96), [0n, 4n, 6n, 7n, 0xffff_ffffn]],
  ["header_length", in32(100), [72n, 96n, 104n, 112n, 120n, 512n, 0x10000n, 0x10008n]],
  ["compression_type", (value) => put8(104, Number(value)), [0n, 1n, 2n, 255n]],
  ["extension type", in32(112), [0n, 0xe2792acan, 0x23852875n, 0x0537be77n, 0x44415441n, 0x12345678n]],
  ["extension length", in32(116), [0n, 3n, 15n, 16n, 24n, 0xff88n, 0xff89n, 0xffff_ffffn]],
];

function in32(at: number): (value: bigint) => Change {
  return (value) => put32(at, Number(value));
}

function in64(at: number): (value: bigint) => Change {
  return (value) => put64(at, value);
}

const mutation = fc.oneof(
  ...FIELDS.map(([name, put, values]) => fc.constantFrom(...values).map((value) => ({ name, value, put }))),
);

async function refusal(bytes: Uint8Array, writable: boolean): Promise<ZcowError | undefined> {
  try {
    await readHeader(memoryStorage(bytes), { writable });
    return undefined;
  } catch (error) {
    if (isZcowError(error)) return error;
    throw error;
  }
}

async function stockRefusal(path: string, writable: boolean): Promise<string | undefined> {
  const prefix = `qemu-io: can't open device ${path}: `;
  const { stderr } = await qemuIo([...(writable ? [] : ["-r"]), "-f", "qcow2", "-c", "length", path]);
  return stderr.startsWith(prefix) ? stderr.slice(prefix.length).trimEnd() : undefined;
}

describeWithStock("a header with several fields spoiled", () => {
  test.each([
    ["a bitmaps extension of a wrong length", 0x23852875, 16],
    ["an extension that is too long", 0x12345678, 0xff89],
  ])("has %s named before a missing encryption header", async (_what, type, length) => {
    const path = join(temporaryDirectory(), "image.qcow2");
    const bytes = (await plainImage()).slice();
    put32(32, 2)(bytes);
    put32(112, type)(bytes);
    put32(116, length)(bytes);
    writeFileSync(path, bytes);
    const stock = await stockRefusal(path, false);
    expect(stock).toMatch(/extension/i);
    expect((await refusal(bytes, false))?.stockText).toBe(stock);
  });

  test("has extensions named in the order of the file", async () => {
    const path = join(temporaryDirectory(), "image.qcow2");
    const bytes = (await plainImage()).slice();
    put32(112, 0x23852875)(bytes);
    put32(116, 16)(bytes);
    put32(136, 0x12345678)(bytes);
    put32(140, 0xff89)(bytes);
    writeFileSync(path, bytes);
    const stock = await stockRefusal(path, false);
    expect(stock).toBe("bitmaps_ext: Invalid extension length");
    expect((await refusal(bytes, false))?.stockText).toBe(stock);
  });

  test("is refused with the words of the stock tool, or with reasons of our own where that opens it", async () => {
    const path = join(temporaryDirectory(), "image.qcow2");
    const bases = await Promise.all([
      plainImage(),
      plainImage({ compat: "0.10" }),
      plainImage({ clusterSize: 512 }),
      plainImage({ clusterSize: 8192 }),
    ]);
    const base = fc.constantFrom(...bases.keys());
    await fc.assert(
      fc.asyncProperty(
        base,
        fc.array(mutation, { minLength: 1, maxLength: 3 }),
        fc.boolean(),
        async (index, mutations, writable) => {
          const bytes = (bases[index] as Uint8Array).slice();
          for (const { put, value } of mutations) put(value)(bytes);
          writeFileSync(path, bytes);
          const ours = await refusal(bytes, writable);
          expect(ours?.stockText, ours?.message).toBe(await stockRefusal(path, writable));
        },
      ),
      { numRuns: Number(process.env["ZCOW_FUZZ_ROUNDS"] ?? 150) },
    );
  }, 600_000);
});
