import { SideThread } from "./side-thread.js";

/** Threads without work are ended after this time. */
const IDLE_MILLISECONDS = 2000;

/** A thread to which one more request can go, with memory that this request may use. */
export class TeamSlot<Q, A> {
  readonly #thread: SideThread<Q, A>;
  #memory = new SharedArrayBuffer(0);

  constructor(thread: SideThread<Q, A>) {
    this.#thread = thread;
  }

  /** At least `bytes` of memory that the thread sees too; what it held is not kept when it grows. */
  memory(bytes: number): SharedArrayBuffer {
    if (this.#memory.byteLength < bytes) this.#memory = new SharedArrayBuffer(bytes);
    return this.#memory;
  }

  /** As `SideThread.ask`. */
  ask(request: Q): Promise<A> {
    return this.#thread.ask(request);
  }
}

/**
 * Threads that answer the same kind of request, each with a few slots: so many requests are with it at a time, that it need not sleep between
 * two. Threads start with the first request, end when there was none for two seconds, and do not keep a program alive.
 */
export class ThreadTeam<Q, A> {
  readonly #makeAnswerer: () => (request: Q) => A;
  readonly #threadCount: number;
  readonly #slotsEach: number;
  #threads: SideThread<Q, A>[] = [];
  #idle: TeamSlot<Q, A>[] = [];
  readonly #waiting: ((slot: TeamSlot<Q, A>) => void)[] = [];
  #timer: NodeJS.Timeout | undefined;

  /** `makeAnswerer`: see `SideThread`. */
  constructor(makeAnswerer: () => (request: Q) => A, threads: number, slotsEach: number) {
    this.#makeAnswerer = makeAnswerer;
    this.#threadCount = threads;
    this.#slotsEach = slotsEach;
  }

  /** A slot of the thread with the least to do, first come, first served. It must be given back. */
  take(): Promise<TeamSlot<Q, A>> | TeamSlot<Q, A> {
    if (this.#threads.length === 0) this.#start();
    const slot = this.#idle.shift();
    return slot ?? new Promise((resolve) => this.#waiting.push(resolve));
  }

  give(slot: TeamSlot<Q, A>): void {
    const next = this.#waiting.shift();
    if (next !== undefined) {
      next(slot);
      return;
    }
    this.#idle.push(slot);
    if (this.#idle.length === this.#threads.length * this.#slotsEach) this.#endWhenIdle();
  }

  #start(): void {
    this.#threads = Array.from({ length: this.#threadCount }, () => new SideThread(this.#makeAnswerer));
    // One slot of each thread, then another of each: work begins everywhere at once.
    this.#idle = Array.from({ length: this.#slotsEach }, () =>
      this.#threads.map((thread) => new TeamSlot(thread)),
    ).flat();
  }

  #endWhenIdle(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (this.#idle.length < this.#threads.length * this.#slotsEach) return;
      this.#idle = [];
      for (const thread of this.#threads.splice(0)) void thread.close();
    }, IDLE_MILLISECONDS);
    this.#timer.unref();
  }
}
