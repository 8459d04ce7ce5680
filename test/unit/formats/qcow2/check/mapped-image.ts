import { createQcow2 } from "../../../../../src/formats/qcow2/create.js";
import type { CreateQcow2Options } from "../../../../../src/formats/qcow2/create-options.js";
import { type Qcow2Geometry, qcow2Geometry } from "../../../../../src/formats/qcow2/geometry.js";
import type { Qcow2Header } from "../../../../../src/formats/qcow2/header.js";
import { readHeader } from "../../../../../src/formats/qcow2/header-read.js";
import { getRefcount, setRefcount } from "../../../../../src/formats/qcow2/refcount-entries.js";
import { type MemoryStorage, memoryStorage } from "../../../../../src/storage/memory-storage.js";

export const COPIED = 1n << 63n;

/** An image put together entry by entry, so that every rule can be broken on its own. */
export class MappedImage {
  readonly storage: MemoryStorage;
  readonly header: Qcow2Header;
  readonly geometry: Qcow2Geometry;

  constructor(storage: MemoryStorage, header: Qcow2Header) {
    this.storage = storage;
    this.header = header;
    this.geometry = qcow2Geometry({ ...header, extendedL2: false });
  }

  /** A fresh image with one L2 table at the end of the file and `data` data clusters behind it. */
  static async make(options: CreateQcow2Options, data = 3): Promise<MappedImage> {
    const storage = memoryStorage();
    await createQcow2(storage, options);
    const image = new MappedImage(storage, await readHeader(storage, { mode: "check" }));
    const { clusterSize } = image.geometry;
    const table = Math.ceil(storage.size() / clusterSize);
    image.truncate((table + 1 + data) * clusterSize);
    image.setL1(0, BigInt(table * clusterSize) | COPIED);
    image.setRefcount(table, 1);
    for (let index = 0; index < data; index++) {
      const cluster = table + 1 + index;
      image.setL2(index, BigInt(cluster * clusterSize) | COPIED);
      image.setRefcount(cluster, 1);
      image.write(cluster * clusterSize, new Uint8Array(clusterSize).fill(index + 1));
    }
    return image;
  }

  /** Memory answers at once; anything else here is a mistake of the test. */
  write(at: number, bytes: Uint8Array): void {
    expectDone(this.storage.write(at, bytes));
  }

  read(at: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    expectDone(this.storage.read(at, bytes));
    return bytes;
  }

  truncate(size: number): void {
    expectDone(this.storage.truncate(size));
  }

  get tableOffset(): number {
    return Number(this.word(this.header.l1TableOffset) & ((1n << 56n) - 512n));
  }

  /** Cluster of the first data cluster. */
  get firstData(): number {
    return this.tableOffset / this.geometry.clusterSize + 1;
  }

  setL1(index: number, entry: bigint): void {
    this.setWord(this.header.l1TableOffset + index * 8, entry);
  }

  setL2(index: number, entry: bigint): void {
    this.setWord(this.tableOffset + index * 8, entry);
  }

  l2(index: number): bigint {
    return this.word(this.tableOffset + index * 8);
  }

  setReftable(index: number, entry: bigint): void {
    this.setWord(this.header.refcountTableOffset + index * 8, entry);
  }

  refcount(cluster: number): number {
    return getRefcount(this.#block(cluster), cluster % this.geometry.refcountsPerBlock, this.geometry.refcountOrder);
  }

  setRefcount(cluster: number, count: number): void {
    const block = this.#block(cluster);
    setRefcount(block, cluster % this.geometry.refcountsPerBlock, this.geometry.refcountOrder, count);
    this.write(this.#blockOffset(cluster), block);
  }

  word(at: number): bigint {
    return new DataView(this.read(at, 8).buffer).getBigUint64(0);
  }

  setWord(at: number, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value);
    this.write(at, bytes);
  }

  #blockOffset(cluster: number): number {
    const index = Math.floor(cluster / this.geometry.refcountsPerBlock);
    return Number(this.word(Number(this.word(48)) + index * 8));
  }

  #block(cluster: number): Uint8Array {
    return this.read(this.#blockOffset(cluster), this.geometry.clusterSize);
  }
}

function expectDone(wait: void | Promise<void>): void {
  if (wait !== undefined) throw new Error("memory storage did not answer at once");
}
