import { expect, it, vi } from "vitest";

const calls = vi.hoisted(() => [] as { readonly name: string; readonly options: unknown }[]);

vi.mock("node:zlib", async (original) => {
  type Done = (error: Error | null, result: Uint8Array) => void;
  const answer = (name: string) => (bytes: Uint8Array, options: unknown, done: Done) => {
    calls.push({ name, options });
    done(bytes.length === 0 ? new Error("nothing there") : null, bytes.toReversed());
  };
  return {
    ...(await original<object>()),
    zstdCompress: answer("zstdCompress"),
    zstdDecompress: answer("zstdDecompress"),
    constants: { ZSTD_c_compressionLevel: 100 },
  };
});

it("the zstd of Node.js is used where there is one and the native helper is not wanted, the package left alone", async () => {
  vi.stubEnv("ZCOW_NO_NATIVE", "1");
  const { hostZstd } = await import("../../../src/host/zstd-library.js");
  const zstd = hostZstd();
  const bytes = new Uint8Array([1, 2, 3]);
  expect(await zstd?.compress(bytes, 3)).toEqual(new Uint8Array([3, 2, 1]));
  expect(await zstd?.compress(bytes, 2)).toBeUndefined();
  const into = new Uint8Array(4096);
  expect(await zstd?.decompress(bytes, into)).toBe(3);
  expect(into.subarray(0, 4)).toEqual(new Uint8Array([3, 2, 1, 0]));
  expect(calls).toEqual([
    { name: "zstdCompress", options: { params: { 100: 3 }, chunkSize: 3 } },
    { name: "zstdCompress", options: { params: { 100: 3 }, chunkSize: 3 } },
    { name: "zstdDecompress", options: { maxOutputLength: 4096, chunkSize: 4097 } },
  ]);
  await expect(zstd?.decompress(new Uint8Array(0), new Uint8Array(1))).rejects.toThrow("nothing there");
});
