import { describe, expect, it } from "vitest";
import { BufferAddresses } from "../../../src/host/buffer-addresses.js";
import { alignedBuffer } from "../../../src/host/direct-io.js";
import type { NativeCalls } from "../../../src/host/native.js";
import { nativeCalls } from "../../../src/host/native.js";

const calls = nativeCalls();

describe.skipIf(calls === undefined)("BufferAddresses", () => {
  it("agree with the native helper, for any view of a buffer, also asked again", () => {
    if (calls === undefined) return;
    const addresses = new BufferAddresses(calls);
    const small = new Uint8Array(16);
    const large = new Uint8Array(100_000);
    for (const view of [small, large, large.subarray(77), small.subarray(3), large]) {
      expect(addresses.of(view)).toBe(calls.address(view));
    }
  });

  it("ask once for each buffer", () => {
    let asked = 0;
    const counting: Pick<NativeCalls, "address"> = { address: (view) => 4096 + view.byteOffset + 0 * asked++ };
    const addresses = new BufferAddresses(counting as NativeCalls);
    const buffer = new Uint8Array(100);
    expect(addresses.of(buffer.subarray(10))).toBe(4106);
    expect(addresses.of(buffer)).toBe(4096);
    expect(asked).toBe(1);
  });

  it("tell alignment", () => {
    if (calls === undefined) return;
    const addresses = new BufferAddresses(calls);
    const page = alignedBuffer(8192);
    expect(addresses.alignmentOf(page)).toBeGreaterThanOrEqual(4096);
    expect(addresses.alignmentOf(page.subarray(1))).toBe(1);
    expect(addresses.alignmentOf(page.subarray(4096 + 512))).toBe(512);
  });
});
