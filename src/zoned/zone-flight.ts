/**
 * The writes in flight of one sequential zone.
 *
 * A write is `flying` from its submission until its I/O ends and all writes before it are acknowledged.
 * Live writes form a queue in write-pointer order: its head is where the committed pointer stands.
 * When one fails, it and all behind it leave the queue at once; those whose I/O still runs are only counted
 * (`draining`), for until they end their bytes may still land in the zone.
 * Nothing is accepted until the zone is idle.
 */
import type { ZoneIndex } from "../base/units.js";
import { aborted } from "./zone-errors.js";

/** The ticket of one write or append to a sequential zone. */
export class ZoneWrite {
  readonly zone: ZoneIndex;
  /** Where the write goes: for an append, the offset it got. Bytes on the disk. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  /** The write behind this one in the queue. */
  next: ZoneWrite | undefined = undefined;
  /** `done`: its I/O ended well and it waits for earlier ones. `ended`: its caller has its answer. */
  phase: "flying" | "done" | "aborted" | "ended" = "flying";
  /** Why it was abandoned, when `phase` is `aborted`. */
  abortReason: Error | undefined = undefined;
  #resolve: (() => void) | undefined = undefined;
  #reject: ((reason: Error) => void) | undefined = undefined;

  constructor(zone: ZoneIndex, offset: number, length: number) {
    this.zone = zone;
    this.offset = offset;
    this.length = length;
  }

  /** Settles when the writes before this one have decided its fate. */
  wait(): Promise<void> {
    this.phase = "done";
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  acknowledge(): void {
    this.phase = "ended";
    this.#resolve?.();
  }

  refuse(reason: Error): void {
    this.phase = "ended";
    this.#reject?.(reason);
  }
}

export class ZoneFlight {
  /** First live write that is not acknowledged. */
  head: ZoneWrite | undefined = undefined;
  /** Abandoned writes whose I/O has not ended. */
  draining = 0;
  /** A write failed: nothing is accepted until nothing is in flight. */
  broken = false;
  /** Where the failed write started, when broken. */
  failedAt = 0;
  /** Why, when broken. */
  failure: unknown = undefined;
  #tail: ZoneWrite | undefined = undefined;

  get idle(): boolean {
    return this.head === undefined && this.draining === 0;
  }

  add(write: ZoneWrite): void {
    if (this.#tail === undefined) this.head = write;
    else this.#tail.next = write;
    this.#tail = write;
  }

  /** Acknowledges the head, whose I/O has ended, and all behind it that only waited for it. */
  acknowledgeHead(): void {
    let write = this.head;
    if (write === undefined) return;
    do {
      const next: ZoneWrite | undefined = write.next;
      write.acknowledge();
      write = next;
    } while (write !== undefined && write.phase === "done");
    this.head = write;
    if (write === undefined) this.#tail = undefined;
  }

  /** Takes the failed write and all behind it out of the queue. */
  cutAt(failed: ZoneWrite, cause: unknown): void {
    this.#truncateBefore(failed);
    this.broken = true;
    this.failedAt = failed.offset;
    this.failure = cause;
    failed.phase = "ended";
    for (let write = failed.next; write !== undefined; write = write.next) {
      const reason = aborted(failed.zone, failed.offset, cause);
      if (write.phase === "done") {
        write.refuse(reason);
      } else {
        write.phase = "aborted";
        write.abortReason = reason;
        this.draining += 1;
      }
    }
  }

  #truncateBefore(failed: ZoneWrite): void {
    if (this.head === failed) {
      this.head = undefined;
      this.#tail = undefined;
      return;
    }
    let last = this.head;
    while (last !== undefined && last.next !== failed) last = last.next;
    if (last === undefined) return;
    last.next = undefined;
    this.#tail = last;
  }
}
