import type { FormatName } from "../../src/formats/registry.js";
import { type MemoryStorage, memoryStorage } from "../../src/storage/memory-storage.js";

/** A sound disk that fuzzing starts from: one file, or several that belong together. */
export interface FuzzImage {
  readonly name: string;
  readonly format: FormatName;
  /** The file that is opened. */
  readonly main: string;
  readonly files: FuzzFiles;
  readonly passphrase?: string | undefined;
}

export type FuzzFiles = ReadonlyMap<string, MemoryStorage>;

/** Bytes to write into one file, or its new length. */
export type FuzzWrite =
  | { readonly file: string; readonly at: number; readonly bytes: Uint8Array }
  | { readonly file: string; readonly length: number };

/** One thing that is wrong with a damaged image. */
export interface Damage {
  /** What was hit, for the report. */
  readonly what: string;
  readonly writes: readonly FuzzWrite[];
  /** Checksums are made right again after all damage, so that what lies behind them is reached. */
  readonly mends?: boolean;
}

/** Memory answers at once. */
export function readNow(storage: MemoryStorage, at: number, length: number): Uint8Array {
  const bytes = new Uint8Array(Math.max(0, Math.min(length, storage.size() - at)));
  if (bytes.length > 0 && storage.read(at, bytes) !== undefined) throw new Error("memory does not answer at once");
  return bytes;
}

/** The files with all damages in them; those that were not hit are shared. */
export function damagedFiles(files: FuzzFiles, damages: readonly Damage[]): Map<string, MemoryStorage> {
  const damaged = new Map(files);
  const own = new Set<string>();
  for (const write of damages.flatMap((damage) => damage.writes)) {
    const found = damaged.get(write.file);
    if (found === undefined) throw new Error(`there is no file ${write.file}`);
    const storage = own.has(write.file) ? found : found.clone();
    own.add(write.file);
    damaged.set(write.file, storage);
    if ("length" in write) void storage.truncate(write.length);
    else if (write.at < storage.size())
      void storage.write(write.at, write.bytes.subarray(0, storage.size() - write.at));
  }
  return damaged;
}

/** Only what is not zero takes memory. */
export function sparseStorage(bytes: Uint8Array): MemoryStorage {
  const storage = memoryStorage(bytes.length);
  const piece = 65_536;
  for (let at = 0; at < bytes.length; at += piece) {
    const part = bytes.subarray(at, at + piece);
    if (part.some((byte) => byte !== 0)) void storage.write(at, part);
  }
  return storage;
}
