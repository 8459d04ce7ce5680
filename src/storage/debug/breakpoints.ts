import type { DebugEvent } from "./events.js";

interface Breakpoint {
  readonly event: DebugEvent;
  readonly tag: string;
}

interface Suspended {
  readonly tag: string;
  readonly resume: () => void;
}

/** Told of calls that begin to wait, and go on. */
export type BreakpointWatcher = (what: "suspended" | "resumed", tag: string) => void;

/** Calls that wait until somebody lets them go on. */
export class Breakpoints {
  readonly #watch: BreakpointWatcher;
  #set: readonly Breakpoint[] = [];
  /** Tags under which the next call waits. */
  #next: string[] = [];
  #suspended: readonly Suspended[] = [];
  #waiting: { readonly tag: string; readonly found: () => void }[] = [];

  constructor(watch: BreakpointWatcher) {
    this.#watch = watch;
  }

  breakAt(event: DebugEvent, tag: string): void {
    this.#set = [...this.#set, { event, tag }];
  }

  /** Each breakpoint holds one call only. */
  event(event: DebugEvent): void {
    if (this.#set.length === 0) return;
    const reached = this.#set.filter((breakpoint) => breakpoint.event === event);
    this.#set = this.#set.filter((breakpoint) => breakpoint.event !== event);
    this.#next.push(...reached.map(({ tag }) => tag));
  }

  /** What the call that is made now has to wait for. */
  gate(): Promise<void> | undefined {
    if (this.#next.length === 0) return undefined;
    return this.#suspend(this.#next.splice(0));
  }

  async #suspend(tags: readonly string[]): Promise<void> {
    for (const tag of tags) {
      this.#watch("suspended", tag);
      await new Promise<void>((resume) => {
        this.#suspended = [...this.#suspended, { tag, resume }];
        for (const { found } of this.#waiting.filter((waiting) => waiting.tag === tag)) found();
        this.#waiting = this.#waiting.filter((waiting) => waiting.tag !== tag);
      });
      this.#watch("resumed", tag);
    }
  }

  resume(tag: string): boolean {
    return this.#release((suspended) => suspended.tag === tag);
  }

  /** Lets everything go on, and holds nothing any more. */
  clear(): void {
    this.#set = [];
    this.#next = [];
    this.#release(() => true);
  }

  #release(isMeant: (suspended: Suspended) => boolean): boolean {
    const meant = this.#suspended.filter(isMeant);
    this.#suspended = this.#suspended.filter((suspended) => !isMeant(suspended));
    for (const { resume } of meant) resume();
    return meant.length > 0;
  }

  removeBreak(tag: string): boolean {
    const kept = this.#set.filter((breakpoint) => breakpoint.tag !== tag);
    const removed = kept.length < this.#set.length;
    this.#set = kept;
    this.resume(tag);
    return removed;
  }

  waitFor(tag: string): Promise<void> {
    if (this.#suspended.some((suspended) => suspended.tag === tag)) return Promise.resolve();
    return new Promise((found) => {
      this.#waiting.push({ tag, found });
    });
  }
}
