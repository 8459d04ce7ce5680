import { debugStorage } from "../../src/storage/debug/debug-storage.js";
import { faultStorage } from "../../src/storage/fault-storage.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { offsetStorage } from "../../src/storage/offset-storage.js";
import { recordingStorage } from "../../src/storage/recording-storage.js";
import { tracingStorage } from "../../src/storage/tracing-storage.js";
import { verifyStorage } from "../../src/storage/verify-storage.js";
import { describeStorageContract } from "./storage-suite.js";

function behind(gap: number, bytes: Uint8Array, tail = 0): Uint8Array {
  const all = new Uint8Array(gap + bytes.length + tail).fill(0x55);
  all.set(bytes, gap);
  return all;
}

describeStorageContract("a memory storage", async (initial) => ({ storage: memoryStorage(initial) }));

describeStorageContract("a clone of a memory storage", async (initial) => {
  const original = memoryStorage(initial);
  const storage = original.clone();
  await original.write(0, new Uint8Array(initial.length));
  return { storage };
});

describeStorageContract("a fault storage without faults", async (initial) => ({
  storage: faultStorage(memoryStorage(initial)),
}));

describeStorageContract("a recording storage", async (initial) => ({
  storage: recordingStorage(memoryStorage(initial)),
}));

describeStorageContract("a tracing storage", async (initial) => ({
  storage: tracingStorage(memoryStorage(initial), () => undefined),
}));

describeStorageContract("an open window", async (initial) => ({
  storage: offsetStorage(memoryStorage(behind(65_536, initial)), 65_536),
}));

describeStorageContract("a window of fixed size", async (initial) => ({
  storage: offsetStorage(memoryStorage(behind(65_536, initial, 5000)), 65_536, initial.length),
}));

describeStorageContract("a storage whose every call takes a while", async (initial) => ({
  storage: slow(initial),
}));

function slow(initial: Uint8Array): ReturnType<typeof faultStorage> {
  const inner = memoryStorage(initial);
  const { capabilities } = inner;
  Object.defineProperty(inner, "capabilities", { value: Object.freeze({ ...capabilities, synchronous: false }) });
  return faultStorage(inner, {
    rules: [{ fault: { type: "delay", milliseconds: 1 }, kinds: ["read", "write", "flush"] }],
  });
}

describeStorageContract("a debugged storage without rules", async (initial) => ({
  storage: debugStorage(memoryStorage(initial)),
}));

describeStorageContract("a debugged storage that takes short transfers only", async (initial) => ({
  storage: debugStorage(memoryStorage(initial), {
    limits: { maxTransfer: 4096, maxWriteZero: 65_536, maxDiscard: 65_536 },
  }),
}));

describeStorageContract("two storages that are compared", async (initial) => ({
  storage: verifyStorage(memoryStorage(initial), memoryStorage(initial)),
}));
