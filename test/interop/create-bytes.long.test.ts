import { test } from "vitest";
import { expectSameImage } from "../support/create-comparison.js";
import { describeWithStock } from "../support/stock-tools.js";

describeWithStock("a fresh image is byte for byte that of stock qemu-img, every combination", () => {
  for (const cluster of ["512", "1k", "2k", "4k", "8k", "64k", "128k", "2M"]) {
    test.each([1, 2, 4, 8, 16, 32, 64])(`clusters of ${cluster}, %i-bit refcounts`, async (bits) => {
      for (const size of ["0", "1", "1000", "1M", "64M", "1G", "100G"]) {
        await expectSameImage(`cluster_size=${cluster},refcount_bits=${bits}`, size);
      }
      for (const mode of ["metadata", "falloc", "full"]) {
        for (const size of ["0", "1000", "1M", "5000000", "33M"]) {
          await expectSameImage(`preallocation=${mode},cluster_size=${cluster},refcount_bits=${bits}`, size);
        }
      }
    });
  }

  test("the largest L1 table of the smallest cluster", async () => {
    for (const bits of [1, 16, 64]) await expectSameImage(`cluster_size=512,refcount_bits=${bits}`, "128G");
  });
});
