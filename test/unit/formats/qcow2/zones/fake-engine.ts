import type { MaybePromise } from "../../../../../src/base/maybe-promise.js";
import { type HostOffset, hostOffset } from "../../../../../src/base/units.js";
import type { BlockExtent } from "../../../../../src/block/block-device.js";
import type { Qcow2Engine } from "../../../../../src/formats/qcow2/engine-contract.js";
import { qcow2Geometry } from "../../../../../src/formats/qcow2/geometry.js";
import type { Qcow2Header } from "../../../../../src/formats/qcow2/header.js";
import { readHeader } from "../../../../../src/formats/qcow2/header-read.js";
import type { Storage } from "../../../../../src/storage/storage.js";

/** A request that waits for the test to end it. */
export interface HeldCall {
  readonly what: "write" | "flush" | "discard";
  readonly offset: number;
  end(): void;
  fail(error: Error): void;
}

/** An engine that maps guest bytes to an array, and lets a test decide when and how its calls end. */
export class FakeEngine implements Qcow2Engine {
  readonly storage: Storage;
  readonly header: Qcow2Header;
  readonly geometry;
  readonly writable = true;
  readonly disk: Uint8Array;
  /** Kinds of call that are held. */
  readonly hold = new Set<HeldCall["what"]>();
  readonly held: HeldCall[] = [];
  /** What happened, in order. */
  readonly log: string[];

  private constructor(storage: Storage, header: Qcow2Header, log: string[]) {
    this.log = log;
    this.storage = storage;
    this.header = header;
    this.geometry = qcow2Geometry({ ...header, extendedL2: false });
    this.disk = new Uint8Array(header.size);
  }

  /** `log`: where to enter what happens; others may write there too. */
  static async on(storage: Storage, log: string[]): Promise<FakeEngine> {
    return new FakeEngine(storage, await readHeader(storage), log);
  }

  read(offset: number, into: Uint8Array): MaybePromise<void> {
    into.set(this.disk.subarray(offset, offset + into.length));
  }

  write(offset: number, from: Uint8Array): MaybePromise<void> {
    return this.#call("write", offset, () => this.disk.set(from, offset));
  }

  assertCompressible(): void {}

  async writeCompressed(offset: number, from: Uint8Array): Promise<void> {
    await this.write(offset, from);
  }

  writeZeroes(offset: number, length: number): MaybePromise<void> {
    return this.#call("write", offset, () => this.disk.fill(0, offset, offset + length));
  }

  discard(offset: number, length: number): MaybePromise<void> {
    return this.#call("discard", offset, () => this.disk.fill(0, offset, offset + length));
  }

  grow(): Promise<void> {
    return Promise.reject(new Error("zones do not grow"));
  }

  flush(): MaybePromise<void> {
    return this.#call("flush", 0, () => undefined);
  }

  barrier(): MaybePromise<void> {
    return this.storage.flush();
  }

  async *extents(offset: number, length: number): AsyncGenerator<BlockExtent> {
    yield { offset, length, kind: "data", hostOffset: undefined, compressed: false, depth: 0, zero: false };
  }

  allocateClusters(): Promise<HostOffset> {
    return Promise.resolve(hostOffset(0));
  }

  freeClusters(): Promise<void> {
    return Promise.resolve();
  }

  protectMetadata(): void {}

  unprotectMetadata(): void {}

  updateHeader(): Promise<void> {
    return Promise.resolve();
  }

  prepareForWriting(): void {}

  markCorrupt(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    return this.storage.close();
  }

  /** The oldest held call of a kind, and at an offset when given. */
  take(what: HeldCall["what"], offset?: number): HeldCall {
    const index = this.held.findIndex((call) => call.what === what && (offset === undefined || call.offset === offset));
    const [call] = index === -1 ? [] : this.held.splice(index, 1);
    if (call === undefined) throw new Error(`no ${what} is held`);
    return call;
  }

  #call(what: HeldCall["what"], offset: number, effect: () => void): MaybePromise<void> {
    this.log.push(what);
    if (!this.hold.has(what)) return effect();
    return new Promise((resolve, reject) => {
      const end = (): void => {
        effect();
        resolve();
      };
      this.held.push({ what, offset, end, fail: reject });
    });
  }
}
