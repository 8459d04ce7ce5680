import { BufferAddresses } from "./buffer-addresses.js";
import { type NativeCalls, nativeCalls } from "./native.js";

/*
 * Reads that bypass the page cache, handed to the kernel many at a time (Linux native AIO), so that the number of reads at
 * the disk is not bounded by the size of the thread pool and each costs less than half the CPU time. One thread of the pool
 * waits for completions while there are any to come.
 *
 * Only reads: handing over a write may have to allocate blocks, which would stop this thread.
 */

/** Reads under way at once; more go elsewhere. */
const SLOTS = 256;
/** Bytes of a `struct iocb`, of an address and of a `struct io_event`. */
const IOCB = 64;
const ADDRESS = 8;
const EVENT = 32;
/** Complete with EAGAIN in place of waiting while the read is handed over. */
const RWF_NOWAIT = 8;
const TWO_32 = 0x1_0000_0000;

/** The read was not made; the caller makes it in another way, which also tells the reason of a failure. */
export const NOT_READ = -1;

interface WaitingRead {
  readonly resolve: (count: number) => void;
  /** Keeps the memory alive into which the kernel reads. */
  readonly into: Uint8Array;
}

function setU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % TWO_32, true);
  view.setUint32(at + 4, value / TWO_32, true);
}

/** Hands reads to the kernel together that are asked for in one turn. */
export class DirectReadQueue {
  readonly #calls: NativeCalls;
  readonly #context: number;
  readonly #iocbs = new DataView(new ArrayBuffer(SLOTS * IOCB));
  readonly #list = new DataView(new ArrayBuffer(SLOTS * ADDRESS));
  readonly #events = new DataView(new ArrayBuffer(SLOTS * EVENT));
  readonly #listBytes = new Uint8Array(this.#list.buffer);
  readonly #eventBytes = new Uint8Array(this.#events.buffer);
  readonly #addresses: BufferAddresses;
  readonly #iocbAddress: number;
  readonly #reads: (WaitingRead | undefined)[] = Array.from({ length: SLOTS }, () => undefined);
  readonly #free = Array.from({ length: SLOTS }, (_, slot) => slot);
  /** Slots of reads that were asked for and not handed over yet. */
  #asked: number[] = [];
  #atKernel = 0;
  #collecting = false;

  constructor(calls: NativeCalls, context: number) {
    this.#calls = calls;
    this.#context = context;
    this.#addresses = new BufferAddresses(calls);
    this.#iocbAddress = this.#addresses.of(new Uint8Array(this.#iocbs.buffer));
  }

  /** The largest power of two that the address of `view` is a multiple of, up to 2^32. */
  alignmentOf(view: Uint8Array): number {
    return this.#addresses.alignmentOf(view);
  }

  /**
   * Reads from a descriptor opened for direct I/O: the number of bytes (short at the end of the file), or
   * {@link NOT_READ}. Never rejects. `into` must stay attached until then.
   */
  read(fd: number, at: number, into: Uint8Array): Promise<number> {
    const slot = this.#free.pop();
    if (slot === undefined) return Promise.resolve(NOT_READ);
    this.#describe(slot, fd, at, into);
    if (this.#asked.length === 0) queueMicrotask(() => this.#submit());
    this.#asked.push(slot);
    return new Promise((resolve) => {
      this.#reads[slot] = { resolve, into };
    });
  }

  #describe(slot: number, fd: number, at: number, into: Uint8Array): void {
    const base = slot * IOCB;
    const iocbs = this.#iocbs;
    setU64(iocbs, base, slot);
    iocbs.setUint32(base + 12, RWF_NOWAIT, true);
    iocbs.setUint32(base + 20, fd, true);
    setU64(iocbs, base + 24, this.#addresses.of(into));
    setU64(iocbs, base + 32, into.length);
    setU64(iocbs, base + 40, at);
  }

  #submit(): void {
    const slots = this.#asked;
    this.#asked = [];
    for (const [index, slot] of slots.entries()) setU64(this.#list, index * ADDRESS, this.#iocbAddress + slot * IOCB);
    const taken = Math.max(0, this.#calls.ioSubmit(this.#context, slots.length, this.#listBytes));
    this.#atKernel += taken;
    for (const slot of slots.slice(taken)) this.#finish(slot, NOT_READ);
    this.#collect();
  }

  /** Waiting for several at a time when many are under way saves most of the hand-overs between threads. */
  #collect(): void {
    if (this.#collecting || this.#atKernel === 0) return;
    this.#collecting = true;
    const least = Math.max(1, Math.floor(this.#atKernel / 8));
    this.#calls.ioGetEventsInPool(this.#context, least, SLOTS, this.#eventBytes, (_error, count) => {
      this.#collecting = false;
      this.#deliver(count);
      // After the readers had their turn, so that what they ask for next goes to the kernel first.
      setImmediate(() => this.#collect());
    });
  }

  /** `count` is below 0 when the wait was interrupted: it is made again. */
  #deliver(count: number): void {
    for (let index = 0; index < count; index++) {
      this.#atKernel--;
      const result = this.#events.getInt32(index * EVENT + 16, true);
      this.#finish(this.#events.getUint32(index * EVENT, true), result < 0 ? NOT_READ : result);
    }
  }

  #finish(slot: number, count: number): void {
    const read = this.#reads[slot];
    this.#reads[slot] = undefined;
    this.#free.push(slot);
    read?.resolve(count);
  }
}

let queue: DirectReadQueue | undefined;
let asked = false;

/**
 * The queue of this program; undefined where the system has none. Worker threads have none either: one may be ended, and its memory
 * given to others, while the kernel still reads into it.
 */
export function directReadQueue(): DirectReadQueue | undefined {
  if (asked) return queue;
  asked = true;
  if (!process.getBuiltinModule("node:worker_threads").isMainThread) return undefined;
  const calls = nativeCalls();
  const context = new DataView(new ArrayBuffer(8));
  if (calls === undefined || calls.ioSetup(SLOTS, new Uint8Array(context.buffer)) !== 0) return undefined;
  queue = new DirectReadQueue(calls, context.getUint32(0, true) + context.getUint32(4, true) * TWO_32);
  return queue;
}
