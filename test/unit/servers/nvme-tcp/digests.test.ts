import { expect, test } from "vitest";
import { crc32c } from "../../../../src/codec/crc32c.js";
import { hostCrc32c } from "../../../../src/host/crc32c-library.js";
import { fastCrc32c } from "../../../../src/servers/nvme-tcp/digests.js";
import { referenceCrc32c } from "../../../support/nvme-initiator.js";
import { Random } from "../../../support/random.js";

test("digests are the same whoever computes them, at any offset and length", () => {
  const random = new Random(32);
  const bytes = Uint8Array.from({ length: 9000 }, () => random.below(256));
  const fast = fastCrc32c();
  const lengths = [0, 1, 7, 8, 24, 72, 255, 256, 257, 4096, 8191];
  for (const length of lengths) {
    for (const start of [0, 1, 3, 500]) {
      const expected = referenceCrc32c(bytes.subarray(start, start + length));
      expect(fast(bytes, start, length), `${length} bytes from ${start}`).toBe(expected);
      expect(crc32c(bytes, start, length)).toBe(expected);
    }
  }
});

test("without native code JavaScript does it", () => {
  const before = process.env["ZCOW_NO_NATIVE"];
  process.env["ZCOW_NO_NATIVE"] = "1";
  try {
    expect(hostCrc32c()).toBeUndefined();
    expect(fastCrc32c()).toBe(crc32c);
  } finally {
    if (before === undefined) delete process.env["ZCOW_NO_NATIVE"];
    else process.env["ZCOW_NO_NATIVE"] = before;
  }
});
