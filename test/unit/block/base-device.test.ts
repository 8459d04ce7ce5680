import { describe, expect, it } from "vitest";
import { ZcowError } from "../../../src/base/errors.js";
import type { MaybePromise } from "../../../src/base/maybe-promise.js";
import { BaseBlockDevice } from "../../../src/block/base-device.js";
import type { BlockExtent } from "../../../src/block/block-device.js";
import { collect } from "../../support/collect.js";

interface Call {
  readonly name: string;
  readonly offset: number;
  readonly length: number;
}

interface ProbeOptions {
  readonly readOnly?: boolean;
  readonly alignment?: number;
  /** What the hooks return; nothing when left out. */
  readonly answer?: () => Promise<void>;
}

/** Records what reaches the hooks. */
class ProbeDevice extends BaseBlockDevice {
  readonly calls: Call[] = [];
  readonly #answer: (() => Promise<void>) | undefined;

  constructor(options: ProbeOptions = {}) {
    super({
      format: "probe",
      name: "probe",
      size: 8192,
      readOnly: options.readOnly ?? false,
      limits: { requestAlignment: options.alignment ?? 1, optimalAlignment: 4096, zoned: undefined },
    });
    this.#answer = options.answer;
  }

  get names(): string[] {
    return this.calls.map((call) => call.name);
  }

  #hook(name: string, offset: number, length: number): MaybePromise<void> {
    this.calls.push({ name, offset, length });
    return this.#answer?.();
  }

  protected doRead(offset: number, into: Uint8Array): MaybePromise<void> {
    return this.#hook("read", offset, into.length);
  }
  protected doWrite(offset: number, from: Uint8Array): MaybePromise<void> {
    return this.#hook("write", offset, from.length);
  }
  protected doWriteZeroes(offset: number, length: number, unmap: boolean): MaybePromise<void> {
    return this.#hook(unmap ? "zero and unmap" : "zero", offset, length);
  }
  protected doDiscard(offset: number, length: number): MaybePromise<void> {
    return this.#hook("discard", offset, length);
  }
  protected doFlush(): MaybePromise<void> {
    return this.#hook("flush", 0, 0);
  }
  protected async *doExtents(offset: number, length: number): AsyncIterable<BlockExtent> {
    void this.#hook("extents", offset, length);
    yield { offset, length, kind: "data", hostOffset: offset, compressed: false, depth: 0, zero: false };
  }
  protected async doClose(): Promise<void> {
    void this.#hook("close", 0, 0);
  }
}

function codeOf(action: () => unknown): string | undefined {
  try {
    action();
    return undefined;
  } catch (error) {
    return error instanceof ZcowError ? error.code : String(error);
  }
}

const bytes = (length: number): Uint8Array => new Uint8Array(length);

describe("BaseBlockDevice", () => {
  it("hands a valid request to the hook and returns nothing when the hook is synchronous", () => {
    const device = new ProbeDevice();
    expect(device.read(0, bytes(8192))).toBeUndefined();
    expect(device.write(8191, bytes(1))).toBeUndefined();
    expect(device.writeZeroes(0, 512)).toBeUndefined();
    expect(device.discard(512, 512)).toBeUndefined();
    expect(device.flush()).toBeUndefined();
    expect(device.names).toEqual(["read", "write", "zero and unmap", "discard", "flush"]);
  });

  it("keeps space when zeros are written without unmap", () => {
    const device = new ProbeDevice();
    void device.writeZeroes(0, 512, { unmap: false });
    expect(device.names).toEqual(["zero"]);
  });

  it.each([
    ["starts past the end", 8193, 0],
    ["ends past the end", 8192, 1],
    ["has a negative offset", -1, 1],
    ["overflows", Number.MAX_SAFE_INTEGER, 1],
  ])("refuses a request that %s with OUT_OF_RANGE", (_name, offset, length) => {
    const device = new ProbeDevice();
    expect(codeOf(() => device.read(offset, bytes(length)))).toBe("OUT_OF_RANGE");
    expect(codeOf(() => device.write(offset, bytes(length)))).toBe("OUT_OF_RANGE");
    expect(codeOf(() => device.writeZeroes(offset, length))).toBe("OUT_OF_RANGE");
    expect(codeOf(() => device.discard(offset, length))).toBe("OUT_OF_RANGE");
    expect(device.calls).toEqual([]);
  });

  it.each([Number.NaN, 0.5, Number.POSITIVE_INFINITY])("refuses %d as an offset", (offset) => {
    const device = new ProbeDevice();
    expect(codeOf(() => device.read(offset, bytes(1)))).toBe("INVALID_ARGUMENT");
    expect(codeOf(() => device.discard(0, offset))).toBe("INVALID_ARGUMENT");
    expect(device.calls).toEqual([]);
  });

  it.each(["0", "4096", null, 0n, [0]])(
    "refuses %o as an offset or a length: it would be joined, not added",
    (value) => {
      const device = new ProbeDevice();
      const wrong = value as unknown as number;
      for (const action of [
        () => device.read(wrong, bytes(1)),
        () => device.write(wrong, bytes(1)),
        () => device.writeZeroes(wrong, 1),
        () => device.writeZeroes(0, wrong),
        () => device.discard(0, wrong),
      ]) {
        expect(codeOf(action)).toBe("INVALID_ARGUMENT");
      }
      expect(device.calls).toEqual([]);
    },
  );

  it.each([
    ["a string", "hello"],
    ["an array", [1, 2, 3]],
    ["an array of wider numbers", new Uint16Array(4)],
    ["an array of floating-point numbers", new Float64Array(4)],
    ["a view without elements", new DataView(new ArrayBuffer(4))],
    ["a bare buffer", new ArrayBuffer(4)],
    ["something with a length", { length: 4 }],
    ["null", null],
    ["nothing", undefined],
  ])("refuses %s where bytes belong", (_name, value) => {
    const device = new ProbeDevice();
    expect(codeOf(() => device.read(0, value as unknown as Uint8Array))).toBe("INVALID_ARGUMENT");
    expect(codeOf(() => device.write(0, value as unknown as Uint8Array))).toBe("INVALID_ARGUMENT");
    expect(device.calls).toEqual([]);
  });

  it("refuses bytes that were transferred away, which look like no bytes at all", () => {
    const device = new ProbeDevice();
    const memory = new ArrayBuffer(512);
    const gone = new Uint8Array(memory);
    structuredClone(memory, { transfer: [memory] });
    expect(codeOf(() => device.read(0, gone))).toBe("INVALID_ARGUMENT");
    expect(codeOf(() => device.write(0, gone))).toBe("INVALID_ARGUMENT");
    expect(device.write(0, bytes(0))).toBeUndefined();
  });

  it("takes any array of bytes: a Buffer, a part of a larger buffer, shared memory", () => {
    const device = new ProbeDevice();
    expect(device.write(0, Buffer.alloc(4))).toBeUndefined();
    expect(device.write(0, bytes(16).subarray(4, 8))).toBeUndefined();
    expect(device.read(0, new Uint8Array(new SharedArrayBuffer(4)))).toBeUndefined();
    expect(device.calls.map(({ length }) => length)).toEqual([4, 4, 4]);
  });

  it("refuses offsets and lengths that are not multiples of the request alignment", () => {
    const device = new ProbeDevice({ alignment: 512 });
    expect(codeOf(() => device.read(1, bytes(512)))).toBe("MISALIGNED");
    expect(codeOf(() => device.write(0, bytes(513)))).toBe("MISALIGNED");
    expect(codeOf(() => device.writeZeroes(256, 256))).toBe("MISALIGNED");
    expect(device.write(512, bytes(1024))).toBeUndefined();
    expect(device.names).toEqual(["write"]);
  });

  it("answers requests of length zero without bothering the driver", async () => {
    const device = new ProbeDevice();
    expect(device.read(8192, bytes(0))).toBeUndefined();
    expect(device.write(0, bytes(0), { fua: true })).toBeUndefined();
    expect(device.writeZeroes(0, 0)).toBeUndefined();
    expect(device.discard(8192, 0)).toBeUndefined();
    expect(await collect(device.extents(0, 0))).toEqual([]);
    expect(device.calls).toEqual([]);
  });

  it("refuses every change of a read-only device, and flushes it without doing anything", async () => {
    const device = new ProbeDevice({ readOnly: true });
    expect(codeOf(() => device.write(0, bytes(1)))).toBe("READ_ONLY");
    expect(codeOf(() => device.writeZeroes(0, 1))).toBe("READ_ONLY");
    expect(codeOf(() => device.discard(0, 1))).toBe("READ_ONLY");
    expect(device.flush()).toBeUndefined();
    await device.close();
    expect(device.names).toEqual(["close"]);
  });

  it("flushes after a write with force unit access, once the write is done", async () => {
    const order: string[] = [];
    const device = new ProbeDevice({
      answer: async () => {
        order.push("started");
        await Promise.resolve();
        order.push("done");
      },
    });
    await device.write(0, bytes(512), { fua: true });
    await device.writeZeroes(0, 512, { fua: true });
    expect(device.names).toEqual(["write", "flush", "zero and unmap", "flush"]);
    expect(order).toEqual(Array.from({ length: 4 }, () => ["started", "done"]).flat());
  });

  it("flushes synchronously after a synchronous write with force unit access", () => {
    const device = new ProbeDevice();
    expect(device.write(0, bytes(512), { fua: true })).toBeUndefined();
    expect(device.names).toEqual(["write", "flush"]);
  });

  it("waits for requests in flight before it flushes and closes", async () => {
    const finish: (() => void)[] = [];
    const device = new ProbeDevice({ answer: () => new Promise((resolve) => finish.push(resolve)) });
    const reading = device.read(0, bytes(512));
    const failing = device.write(0, bytes(512));
    const closing = device.close();
    await Promise.resolve();
    expect(device.names).toEqual(["read", "write"]);
    finish[0]?.();
    await reading;
    expect(device.names).toEqual(["read", "write"]);
    finish[1]?.();
    await failing;
    await new Promise(setImmediate);
    expect(device.names).toEqual(["read", "write", "flush"]);
    finish[2]?.();
    await closing;
    expect(device.names).toEqual(["read", "write", "flush", "close"]);
  });

  it("waits for a request in flight that fails, and closes all the same", async () => {
    let fail: ((error: Error) => void) | undefined;
    const device = new ProbeDevice({
      readOnly: true,
      answer: () => new Promise((_resolve, reject) => (fail = reject)),
    });
    const reading = device.read(0, bytes(512));
    const closing = device.close();
    fail?.(new Error("broken"));
    await expect(reading).rejects.toThrow("broken");
    await closing;
    expect(device.names).toEqual(["read", "close"]);
  });

  it("releases what it holds even when the last flush fails, and reports the failure", async () => {
    let calls = 0;
    const device = new ProbeDevice({
      answer: () => {
        calls += 1;
        return calls === 1 ? Promise.reject(new Error("no flush")) : Promise.resolve();
      },
    });
    await expect(device.close()).rejects.toThrow("no flush");
    expect(device.names).toEqual(["flush", "close"]);
  });

  it("closes once, however often it is asked, by name or by scope", async () => {
    const device = new ProbeDevice();
    await Promise.all([device.close(), device.close()]);
    await device[Symbol.asyncDispose]();
    expect(device.names).toEqual(["flush", "close"]);
  });

  it("refuses every request after close with CLOSED", async () => {
    const device = new ProbeDevice();
    await device.close();
    expect(codeOf(() => device.read(0, bytes(1)))).toBe("CLOSED");
    expect(codeOf(() => device.read(9999, bytes(1)))).toBe("CLOSED");
    expect(codeOf(() => device.write(0, bytes(1)))).toBe("CLOSED");
    expect(codeOf(() => device.writeZeroes(0, 1))).toBe("CLOSED");
    expect(codeOf(() => device.discard(0, 1))).toBe("CLOSED");
    expect(codeOf(() => device.flush())).toBe("CLOSED");
    await expect(collect(device.extents(0, 1))).rejects.toMatchObject({ code: "CLOSED" });
  });
});
