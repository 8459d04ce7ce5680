import type { JournalPlace } from "../../src/storage/journal-file.js";

/** A journal's file in memory. Its writes can be made to fail. */
export class MemoryJournal implements JournalPlace {
  readonly name = "journal in memory";
  bytes: Uint8Array | undefined;
  failing = false;

  constructor(bytes?: Uint8Array) {
    this.bytes = bytes;
  }

  load(): Uint8Array | undefined {
    return this.bytes?.slice();
  }

  replace(bytes: Uint8Array): void {
    this.#mayFail();
    this.bytes = bytes.slice();
  }

  append(bytes: Uint8Array): void {
    this.#mayFail();
    const before = this.bytes ?? new Uint8Array();
    const after = new Uint8Array(before.length + bytes.length);
    after.set(before);
    after.set(bytes, before.length);
    this.bytes = after;
  }

  truncate(length: number): void {
    this.#mayFail();
    this.bytes = this.bytes?.slice(0, length);
  }

  remove(): void {
    this.bytes = undefined;
  }

  #mayFail(): void {
    if (this.failing) throw new Error("no room for the journal");
  }
}
