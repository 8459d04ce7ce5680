import { join } from "node:path";
import { expect, test } from "vitest";
import { isZcowError } from "../../src/base/errors.js";
import { parseSize } from "../../src/base/size-text.js";
import { createQcow2 } from "../../src/formats/qcow2/create.js";
import { parseCreateOptions } from "../../src/formats/qcow2/create-options-parse.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { describeWithStock, qemuImg, temporaryDirectory } from "../support/stock-tools.js";

const LISTS = [
  "cluster_size=300",
  "cluster_size=1000",
  "cluster_size=4M",
  "cluster_size=0",
  "cluster_size=abc",
  "cluster_size=-512",
  "cluster_size=1e3",
  "cluster_size=4k,,",
  "cluster_size=99999999999E",
  "nocluster_size",
  "refcount_bits=0",
  "refcount_bits=3",
  "refcount_bits=128",
  "refcount_bits=-1",
  "refcount_bits=1.5",
  "refcount_bits=abc",
  "refcount_bits=99999999999999999999",
  "compat=1.2",
  "compat=",
  "compat=0.10,lazy_refcounts=on",
  "compat=0.10,refcount_bits=8",
  "preallocation=foo",
  "preallocation",
  "lazy_refcounts=maybe",
  "lazy_refcounts=1",
  "extended_l2=1",
  "extended_l2=on,cluster_size=8k",
  "extended_l2=on,compat=0.10",
  "extended_l2=on,compat=0.10,cluster_size=512,lazy_refcounts=on,refcount_bits=1",
  "compression_type=",
  "compression_type=foo",
  "compression_type",
  "compression_type=zstd,compat=0.10",
  "compression_type=zstd,compat=0.10,lazy_refcounts=on",
  "compression_type=zstd,compat=0.10,refcount_bits=8",
  "compression_type=zstd,compat=0.10,extended_l2=on",
  "foo=1",
  "=4",
  ",",
  ",,",
  "compat=v3,",
  ",compat=v3",
];

const SIZES: readonly (readonly [options: string, size: string])[] = [
  ["cluster_size=512", "129G"],
  ["compat=v3", "4E"],
  ["cluster_size=2M", "3E"],
  ["cluster_size=16k,extended_l2=on", "65T"],
];

async function stockRefusal(options: string, size: string): Promise<string> {
  const path = join(temporaryDirectory(), "image.qcow2");
  const { stderr } = await qemuImg(["create", "-q", "-f", "qcow2", "-o", options, path, size]);
  return stderr.replace("qemu-img: ", "").replace(`${path}: `, "").trimEnd();
}

async function ourRefusal(options: string, size: string): Promise<string | undefined> {
  try {
    await createQcow2(memoryStorage(), { ...parseCreateOptions(options), size: parseSize(size) });
  } catch (error) {
    if (isZcowError(error)) return error.stockText;
    throw error;
  }
  throw new Error("was not refused");
}

describeWithStock("creation is refused with the words of the stock tool", () => {
  test.each(LISTS)("-o '%s'", async (options) => {
    expect(await ourRefusal(options, "10M")).toBe(await stockRefusal(options, "10M"));
  });

  // 3E and 4E are above 2^53 - 1, which is as far as sizes go here; the refusal is the same.
  test.each(SIZES)("-o '%s', size %s", async (options, size) => {
    expect(await ourRefusal(options, size)).toBe(await stockRefusal(options, size));
  });
});
