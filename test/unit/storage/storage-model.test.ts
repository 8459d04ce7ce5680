import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { openFileStorage } from "../../../src/storage/file-storage.js";
import { memoryStorage } from "../../../src/storage/memory-storage.js";
import type { Storage } from "../../../src/storage/storage.js";

/** The simplest storage there is: an array. */
class Model {
  bytes = new Uint8Array();

  resize(size: number): void {
    const next = new Uint8Array(size);
    next.set(this.bytes.subarray(0, size));
    this.bytes = next;
  }

  write(at: number, from: Uint8Array): void {
    if (from.length === 0) return;
    if (at + from.length > this.bytes.length) this.resize(at + from.length);
    this.bytes.set(from, at);
  }
}

const LIMIT = 300_000;
const place = fc.oneof(
  fc.nat(LIMIT),
  fc.nat(70).map((block) => block * 4096),
  fc.nat(4).map((chunk) => chunk * 65_536 + 65_535),
);
const length = fc.oneof(fc.nat(40), fc.nat(100_000), fc.constantFrom(4096, 65_536, 131_072));

type Step =
  | {
      readonly kind: "read" | "write" | "zeroes" | "unmap" | "discard" | "extents";
      readonly at: number;
      readonly length: number;
    }
  | { readonly kind: "truncate"; readonly at: number; readonly length: 0 }
  | { readonly kind: "flush"; readonly at: 0; readonly length: 0 };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constantFrom("read", "write", "write", "zeroes", "unmap", "discard", "extents"),
    at: place,
    length,
  }),
  fc.record({ kind: fc.constant("truncate" as const), at: place, length: fc.constant(0 as const) }),
  fc.constant({ kind: "flush", at: 0, length: 0 } as const),
);

async function run(storage: Storage, model: Model, { kind, at, length: count }: Step, seed: number): Promise<void> {
  switch (kind) {
    case "read": {
      const found = new Uint8Array(count).fill(0xaa);
      await storage.read(at, found);
      const expected = new Uint8Array(count);
      expected.set(model.bytes.subarray(Math.min(at, model.bytes.length), at + count));
      expect(Buffer.compare(found, expected)).toBe(0);
      return;
    }
    case "write": {
      const bytes = new Uint8Array(count).map((_, index) => (seed * 17 + index) % 256);
      model.write(at, bytes);
      await storage.write(at, bytes);
      return;
    }
    case "zeroes":
    case "unmap":
      model.write(at, new Uint8Array(count));
      await storage.writeZeroes(at, count, { unmap: kind === "unmap" });
      return;
    case "discard": {
      await storage.discard(at, count);
      const found = new Uint8Array(Math.max(0, Math.min(model.bytes.length - at, count)));
      await storage.read(at, found);
      // Zero or as before: take what it is.
      expect(found.findIndex((byte, index) => byte !== 0 && byte !== model.bytes[at + index])).toBe(-1);
      model.bytes.set(found, found.length === 0 ? 0 : at);
      return;
    }
    case "truncate":
      model.resize(at);
      await storage.truncate(at);
      return;
    case "flush":
      await storage.flush();
      return;
    case "extents": {
      let position = at;
      for await (const { offset, length: runLength, hole } of storage.extents(at, count)) {
        expect(offset).toBe(position);
        position += runLength;
        if (hole)
          expect(model.bytes.subarray(Math.min(offset, model.bytes.length), position).some((byte) => byte !== 0)).toBe(
            false,
          );
      }
      expect(position).toBe(at + count);
    }
  }
}

function behavesLikeAnArray(make: () => Promise<{ storage: Storage; done: () => void }>): Promise<void> {
  return fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const { storage, done } = await make();
      const model = new Model();
      try {
        for (const [index, one] of steps.entries()) {
          await run(storage, model, one, index);
          expect(storage.size()).toBe(model.bytes.length);
        }
        const all = new Uint8Array(model.bytes.length);
        await storage.read(0, all);
        expect(Buffer.compare(all, model.bytes)).toBe(0);
      } finally {
        await storage.close();
        done();
      }
    }),
    { numRuns: 60 },
  );
}

describe("any sequence of calls leaves the bytes of a plain array", () => {
  it("in memory", () => behavesLikeAnArray(async () => ({ storage: memoryStorage(), done: () => undefined })));

  const folders = [tmpdir(), "/dev/shm"].filter((folder) => existsSync(folder));
  it.each(folders.flatMap((folder) => (["auto", "sync", "pool", "direct"] as const).map((io) => ({ folder, io }))))(
    "in a file in $folder, $io",
    async ({ folder, io }) => {
      const own = mkdtempSync(join(folder, "zcow-test-"));
      const path = join(own, "disk");
      try {
        await behavesLikeAnArray(async () => {
          writeFileSync(path, "");
          const how = io === "direct" ? ({ direct: true } as const) : ({ io } as const);
          return { storage: await openFileStorage(path, { writable: true, ...how }), done: () => undefined };
        });
      } finally {
        rmSync(own, { recursive: true });
      }
    },
  );
});
