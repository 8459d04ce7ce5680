/** A run of the disk, in bytes. */
export interface DirtyRange {
  readonly offset: number;
  readonly length: number;
}

/** A piece of the bits as it is stored in one cluster; a piece without set bits is `undefined`, one with nothing else `"ones"`. */
export type BitChunk = Uint8Array | "ones" | undefined;

/**
 * Which parts of a disk were written: one bit for each `granularity` bytes. Held in the pieces in which it is stored, so that
 * a large disk of which little was written takes little memory.
 */
export class DirtyBits {
  /** Bytes that one bit stands for: a power of two. */
  readonly granularity: number;
  readonly #chunkBytes: number;
  /** Bytes of the disk. */
  #size: number;
  #bits: number;
  readonly #chunks: BitChunk[];
  /** Something changed since the bits were loaded or made. */
  changed = false;

  constructor(size: number, granularity: number, chunkBytes: number) {
    this.#size = size;
    this.granularity = granularity;
    this.#chunkBytes = chunkBytes;
    this.#bits = Math.ceil(size / granularity);
    this.#chunks = new Array<BitChunk>(Math.ceil(this.#bits / (chunkBytes * 8)));
  }

  /** Bytes of the disk. */
  get size(): number {
    return this.#size;
  }

  get chunkCount(): number {
    return this.#chunks.length;
  }

  /** The bits of chunk `index`, as they are stored. */
  chunk(index: number): BitChunk {
    return this.#chunks[index];
  }

  /** Sets the bits of chunk `index` to what was stored; no change in the sense of `changed`. */
  putChunk(index: number, chunk: BitChunk): void {
    this.#chunks[index] = chunk;
  }

  /** Records a write of `length` bytes at `offset`. */
  mark(offset: number, length: number): void {
    if (length <= 0) return;
    const first = Math.floor(offset / this.granularity);
    const end = Math.min(this.#bits, Math.ceil((offset + length) / this.granularity));
    const chunkBits = this.#chunkBytes * 8;
    for (let bit = first; bit < end; ) {
      const index = Math.floor(bit / chunkBits);
      const chunkEnd = Math.min(end, (index + 1) * chunkBits);
      this.#setInChunk(index, bit - index * chunkBits, chunkEnd - index * chunkBits);
      bit = chunkEnd;
    }
  }

  #setInChunk(index: number, from: number, to: number): void {
    const found = this.#chunks[index];
    if (found === "ones") return;
    const bytes = found ?? new Uint8Array(this.#chunkBytes);
    this.#chunks[index] = bytes;
    this.changed = true;
    const firstWhole = Math.ceil(from / 8) * 8;
    const endWhole = Math.floor(to / 8) * 8;
    for (let bit = from; bit < Math.min(to, firstWhole); bit++) setBit(bytes, bit);
    if (endWhole > firstWhole) bytes.fill(0xff, firstWhole / 8, endWhole / 8);
    for (let bit = Math.max(from, firstWhole, endWhole); bit < to; bit++) setBit(bytes, bit);
  }

  /** Forgets every write. */
  clear(): void {
    this.#chunks.fill(undefined);
    this.changed = true;
  }

  /** Marks what is marked in `other`, which may have another granularity. Both are of disks of one size. */
  merge(other: DirtyBits): void {
    for (const { offset, length } of other.ranges()) this.mark(offset, length);
    this.changed = true;
  }

  /** The same marks on a disk of `size` bytes; nothing is marked in a new part. */
  resized(size: number): DirtyBits {
    const bits = new DirtyBits(size, this.granularity, this.#chunkBytes);
    for (const { offset, length } of this.ranges()) bits.mark(offset, Math.min(length, size - offset));
    bits.changed = true;
    return bits;
  }

  /** The disk has become `size` bytes large; nothing is marked in its new part, but by a bit that is half in the old. */
  grow(size: number): void {
    const chunkBits = this.#chunkBytes * 8;
    const last = this.#chunks.length - 1;
    const used = this.#bits - last * chunkBits;
    const chunk = this.#chunks[last];
    if (chunk !== undefined && used < chunkBits) this.#chunks[last] = cutOff(chunk, used, this.#chunkBytes);
    this.#size = size;
    this.#bits = Math.ceil(size / this.granularity);
    this.#chunks.length = Math.ceil(this.#bits / chunkBits);
    this.changed = true;
  }

  /** What is marked, as runs in order that do not touch, cut at the end of the disk. */
  *ranges(): Generator<DirtyRange> {
    let start = -1;
    for (let bit = 0; bit < this.#bits; ) {
      const { isSet, end } = this.#runAt(bit);
      if (isSet && start === -1) start = bit;
      if (!isSet && start !== -1) {
        yield this.#range(start, bit);
        start = -1;
      }
      bit = end;
    }
    if (start !== -1) yield this.#range(start, this.#bits);
  }

  #range(first: number, end: number): DirtyRange {
    const offset = first * this.granularity;
    return { offset, length: Math.min(this.size, end * this.granularity) - offset };
  }

  /** A run of equal bits from `bit` on: not necessarily the whole of it. */
  #runAt(bit: number): { readonly isSet: boolean; readonly end: number } {
    const chunkBits = this.#chunkBytes * 8;
    const index = Math.floor(bit / chunkBits);
    const chunk = this.#chunks[index];
    const chunkEnd = Math.min(this.#bits, (index + 1) * chunkBits);
    if (chunk === undefined || chunk === "ones") return { isSet: chunk === "ones", end: chunkEnd };
    const inside = bit - index * chunkBits;
    const byte = chunk[inside >>> 3] as number;
    const uniform = byte === 0 || byte === 0xff;
    if (uniform && inside % 8 === 0) {
      let at = inside >>> 3;
      while (at < chunk.length && chunk[at] === byte) at += 1;
      return { isSet: byte === 0xff, end: Math.min(chunkEnd, index * chunkBits + at * 8) };
    }
    return { isSet: ((byte >>> (inside % 8)) & 1) === 1, end: bit + 1 };
  }
}

/** The first `count` bits of a chunk. What was stored behind the end of a disk says nothing. */
function cutOff(chunk: Exclude<BitChunk, undefined>, count: number, chunkBytes: number): Uint8Array {
  const bytes = new Uint8Array(chunkBytes);
  const whole = Math.floor(count / 8);
  if (chunk === "ones") bytes.fill(0xff, 0, whole);
  else bytes.set(chunk.subarray(0, whole));
  const rest = chunk === "ones" ? 0xff : (chunk[whole] as number);
  if (count % 8 > 0) bytes[whole] = rest & ((1 << (count % 8)) - 1);
  return bytes;
}

function setBit(bytes: Uint8Array, bit: number): void {
  bytes[bit >>> 3] = (bytes[bit >>> 3] as number) | (1 << (bit % 8));
}
