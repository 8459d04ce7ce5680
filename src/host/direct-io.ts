import * as fs from "node:fs";
import { alignUp } from "../base/integers.js";
import { KiB } from "../base/units.js";

/**
 * The unit of direct transfers: offset, length and address are multiples of it. Large enough for every disk
 * sector and for the page of the page cache, so a buffered write of a neighbour never shares a page with a
 * direct one. Architectures that may use 64 KiB pages take that.
 */
export const DIRECT_ALIGNMENT = process.arch === "x64" || process.arch === "ia32" ? 4 * KiB : 64 * KiB;

const WASM_PAGE = 64 * KiB;

/** The open flag for transfers that bypass the page cache; undefined where the system has none. */
export function directOpenFlag(): number | undefined {
  const flag: number | undefined = fs.constants.O_DIRECT;
  return flag;
}

interface WasmMemories {
  readonly WebAssembly: {
    readonly Memory: new (size: { initial: number; maximum: number }) => { buffer: ArrayBuffer };
  };
}

/**
 * A zeroed buffer of `length` bytes whose address suits direct transfers. The memory of WebAssembly starts at a
 * page boundary, which nothing else in JavaScript promises.
 */
export function alignedBuffer(length: number): Uint8Array {
  const pages = Math.max(1, alignUp(length, WASM_PAGE) / WASM_PAGE);
  // The types of Node.js 20 know the name but not the value.
  const { Memory } = (globalThis as unknown as WasmMemories).WebAssembly;
  return new Uint8Array(new Memory({ initial: pages, maximum: pages }).buffer, 0, length);
}

/** Lends aligned buffers of one size and keeps those that come back, up to a limit. */
export class AlignedBufferPool {
  readonly #free: Uint8Array[] = [];
  readonly #size: number;
  readonly #keep: number;

  /** `size` in bytes; at most `keep` idle buffers are kept. */
  constructor(size: number, keep: number) {
    this.#size = size;
    this.#keep = keep;
  }

  take(): Uint8Array {
    return this.#free.pop() ?? alignedBuffer(this.#size);
  }

  giveBack(buffer: Uint8Array): void {
    if (this.#free.length < this.#keep) this.#free.push(buffer);
  }
}
