import { test } from "vitest";
import { expectSameImage } from "../support/create-comparison.js";
import { describeWithStock } from "../support/stock-tools.js";

describeWithStock("a fresh image is byte for byte that of stock qemu-img", () => {
  for (const cluster of ["512", "4k", "64k", "2M"]) {
    test(`version 2, clusters of ${cluster}`, async () => {
      for (const size of ["0", "1000", "64M", "3G"]) await expectSameImage(`compat=0.10,cluster_size=${cluster}`, size);
    });

    test.each([1, 2, 4, 8, 16, 32, 64])(`version 3, clusters of ${cluster}, %i-bit refcounts`, async (bits) => {
      for (const size of ["1000", "1G"]) await expectSameImage(`cluster_size=${cluster},refcount_bits=${bits}`, size);
    });
  }

  test.each([
    ["", "0"],
    ["", "1"],
    ["lazy_refcounts=on", "10M"],
    ["compat=v3,lazy_refcounts=off", "4T"],
    ["cluster_size=512,refcount_bits=1", "128G"],
    ["cluster_size=128k", "10T"],
    ["cluster_size=8k", "1T"],
    ["cluster_size=2M", "7P"],
  ])("options '%s', size %s", async (options, size) => {
    await expectSameImage(options, size);
  });

  test.each(["metadata", "falloc", "full"])("preallocation=%s", async (mode) => {
    for (const cluster of ["512", "4k", "64k", "2M"]) {
      for (const size of ["0", "1000", "5000000"]) {
        await expectSameImage(`preallocation=${mode},cluster_size=${cluster}`, size);
      }
    }
    await expectSameImage(`preallocation=${mode},cluster_size=1k,compat=0.10`, "9M");
  });

  test("preallocation so large that the refcount table has to grow", async () => {
    for (const mode of ["metadata", "falloc"]) {
      await expectSameImage(`preallocation=${mode},cluster_size=512`, "10M");
      await expectSameImage(`preallocation=${mode},cluster_size=512,refcount_bits=64`, "4M");
    }
  });

  test.each(["16k", "64k", "2M"])("extended L2 entries, clusters of %s", async (cluster) => {
    for (const size of ["0", "1000", "64M", "3G"]) {
      for (const more of ["", ",refcount_bits=1", ",refcount_bits=64,lazy_refcounts=on"]) {
        await expectSameImage(`extended_l2=on,cluster_size=${cluster}${more}`, size);
      }
    }
  });

  test.each(["metadata", "falloc", "full"])("extended L2 entries and preallocation=%s", async (mode) => {
    for (const cluster of ["16k", "64k"]) {
      for (const size of ["1000", "30M"]) {
        await expectSameImage(`extended_l2=on,preallocation=${mode},cluster_size=${cluster}`, size);
      }
    }
  });

  test.each(["zlib", "zstd"])("compression type %s", async (type) => {
    for (const cluster of ["512", "64k", "2M"]) {
      await expectSameImage(`compression_type=${type},cluster_size=${cluster},lazy_refcounts=on`, "64M");
    }
    await expectSameImage("compression_type=zlib,compat=0.10", "1M");
  });

  test("preallocation across refcount blocks", async () => {
    await expectSameImage("preallocation=metadata,cluster_size=8k,refcount_bits=64", "40M");
  });
});
