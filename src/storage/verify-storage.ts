import { ZcowError } from "../base/errors.js";
import { ForwardingStorage } from "./forwarding-storage.js";
import type { Storage } from "./storage.js";
import { closedError, rangeError } from "./storage-error.js";

/** Bytes that are compared at a time when they must be found: where they differ is told to the byte. */
const CHUNK = 65_536;

/** Does everything twice, and compares what is read. */
class VerifyStorage extends ForwardingStorage {
  readonly #reference: Storage;
  #closed = false;

  constructor(tested: Storage, reference: Storage) {
    const writable = tested.capabilities.writable && reference.capabilities.writable;
    super(
      tested,
      Object.freeze({ ...tested.capabilities, writable, resizable: false, discard: false, synchronous: false }),
    );
    this.#reference = reference;
  }

  override async read(at: number, into: Uint8Array): Promise<void> {
    this.#refuse(at, into.length);
    const expected = new Uint8Array(into.length);
    await this.#reference.read(at, expected);
    await this.inner.read(at, into);
    const differs = firstDifference(into, expected);
    if (differs === undefined) return;
    const text = `read offset=${at} bytes=${into.length} contents mismatch at offset ${at + differs}`;
    throw new ZcowError("CONTENTS_DIFFER", `${this.name} and ${this.#reference.name}: ${text}`, {
      data: { path: this.name, offset: at + differs, length: into.length, value: into[differs] ?? 0 },
      stockText: `blkverify: ${text}`,
    });
  }

  override async write(at: number, from: Uint8Array): Promise<void> {
    this.#refuse(at, from.length);
    if (from.length === 0) return;
    if (at + from.length > this.size()) throw this.#fixedSize(at + from.length);
    await this.#reference.write(at, from);
    await this.inner.write(at, from);
  }

  /** As bytes: both must come out the same, however each of them does it. */
  override async writeZeroes(at: number, length: number): Promise<void> {
    this.#refuse(at, length);
    await this.write(at, new Uint8Array(length));
  }

  /** What a discard leaves is not the same everywhere. */
  override async discard(at: number, length: number): Promise<void> {
    this.#refuse(at, length);
  }

  override async truncate(size: number): Promise<void> {
    this.#refuse(size, 0);
    if (size !== this.size()) throw this.#fixedSize(size);
  }

  override async close(): Promise<void> {
    this.#closed = true;
    await this.#reference.close();
    await super.close();
  }

  #refuse(at: number, length: number): void {
    if (this.#closed) throw closedError(this.name);
    const error = rangeError(this.name, at, length);
    if (error !== undefined) throw error;
  }

  #fixedSize(size: number): ZcowError {
    const text = `${this.name} is being compared: its ${this.size()} bytes cannot become ${size}`;
    return new ZcowError("STORAGE_UNSUPPORTED", text, {
      data: { path: this.name, value: size, limit: this.size() },
      stockText: "Image format driver does not support resize",
    });
  }
}

function firstDifference(found: Uint8Array, expected: Uint8Array): number | undefined {
  for (let at = 0; at < found.length; at += CHUNK) {
    const part = found.subarray(at, at + CHUNK);
    if (Buffer.compare(part, expected.subarray(at, at + CHUNK)) === 0) continue;
    return at + part.findIndex((byte, index) => byte !== expected[at + index]);
  }
  return undefined;
}

/**
 * `tested`, of which everything that is read must be what `reference` has (`CONTENTS_DIFFER`), and everything that is written goes to
 * both. Closing it closes both.
 */
export function verifyStorage(tested: Storage, reference: Storage): Storage {
  return new VerifyStorage(tested, reference);
}
