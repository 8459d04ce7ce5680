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
    readonly Memory: new (size: {
      initial: number;
      maximum: number;
      shared: boolean;
    }) => {
      buffer: ArrayBuffer | SharedArrayBuffer;
    };
  };
}

/**
 * A zeroed buffer of `length` bytes whose address suits direct transfers. The memory of WebAssembly starts at a
 * page boundary, which nothing else in JavaScript promises. With `shared` it lies in a SharedArrayBuffer, for other threads to see.
 */
export function alignedBuffer(length: number, shared = false): Uint8Array {
  const pages = Math.max(1, alignUp(length, WASM_PAGE) / WASM_PAGE);
  // The types of Node.js 20 know the name but not the value.
  const { Memory } = (globalThis as unknown as WasmMemories).WebAssembly;
  return new Uint8Array(new Memory({ initial: pages, maximum: pages, shared }).buffer, 0, length);
}

/** Bytes that small buffers are cut out of: each memory of WebAssembly takes several system calls to make. */
const SLAB = 256 * KiB;

/** Lends aligned buffers and keeps those that come back, up to a limit. */
export class AlignedBufferPool {
  readonly #free = new Map<number, Uint8Array[]>();
  readonly #keep: number;
  #kept = 0;

  /** At most `keep` bytes of idle buffers are kept, and what else lies in the memory that they were cut out of. */
  constructor(keep: number) {
    this.#keep = keep;
  }

  /** A buffer of at least `length` bytes, with any contents. */
  take(length: number): Uint8Array {
    const size = Math.max(DIRECT_ALIGNMENT, 2 ** Math.ceil(Math.log2(length)));
    const kept = this.#free.get(size)?.pop();
    if (kept === undefined) return this.#cut(size);
    this.#kept -= size;
    return kept;
  }

  giveBack(buffer: Uint8Array): void {
    if (this.#kept + buffer.length > this.#keep) return;
    this.#kept += buffer.length;
    const same = this.#free.get(buffer.length);
    if (same === undefined) this.#free.set(buffer.length, [buffer]);
    else same.push(buffer);
  }

  #cut(size: number): Uint8Array {
    const slab = alignedBuffer(Math.max(size, SLAB));
    for (let at = size; at < slab.length; at += size) this.giveBack(slab.subarray(at, at + size));
    return slab.subarray(0, size);
  }
}
