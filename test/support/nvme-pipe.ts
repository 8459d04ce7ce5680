/** A target and hosts in one process: connections in memory, time that passes when told, and images in memory. */
import type { BlockDevice } from "../../src/block/block-device.js";
import { createQcow2 } from "../../src/formats/qcow2/create.js";
import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import type { Connection } from "../../src/protocols/nvme/connection.js";
import type { TargetLimits } from "../../src/protocols/nvme/limits.js";
import { type NamespacesOptions, namespacesOf } from "../../src/protocols/nvme/namespace.js";
import { Subsystem, type SubsystemOptions } from "../../src/protocols/nvme/subsystem.js";
import { Target, type TargetOptions } from "../../src/protocols/nvme/target.js";
import type { TargetEvent } from "../../src/protocols/nvme/target-events.js";
import type { Clock, PeerInfo, Transport } from "../../src/protocols/nvme/transport.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import type { HostStream } from "./nvme-initiator.js";

/** A clock that stands still until it is moved. */
export class FakeClock implements Clock {
  #now = 0;
  readonly #timers = new Set<{ at: number; callback: () => void }>();

  now(): number {
    return this.#now;
  }

  after(delay: number, callback: () => void): () => void {
    const timer = { at: this.#now + delay, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /** Timers that are waiting. */
  get pending(): number {
    return this.#timers.size;
  }

  advance(milliseconds: number): void {
    const end = this.#now + milliseconds;
    for (;;) {
      const due = [...this.#timers].filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.#now = due.at;
      due.callback();
    }
    this.#now = end;
  }
}

/** Both ends of a connection. What the target gets is spoilt after each call, as the seam allows. */
export class Pipe implements Transport, HostStream {
  connection: Connection | undefined;
  /** Bytes per delivery to the target. */
  pieces = Number.POSITIVE_INFINITY;
  /** Replies stay in the backlog until `letGo`. */
  held = false;
  paused = false;
  ended = false;
  destroyedFor: Error | undefined;
  largestBacklog = 0;
  #backlog: Uint8Array[] = [];
  #incoming: Uint8Array[] = [];
  #released: Uint8Array[] = [];
  #listener: ((bytes: Uint8Array) => void) | undefined;
  #closed: (() => void) | undefined;
  #scheduled = false;

  // The target's end.

  send(bytes: Uint8Array): void {
    if (this.ended) throw new Error("send after end");
    this.#backlog.push(bytes);
    this.largestBacklog = Math.max(this.largestBacklog, this.backlog);
    this.#schedule();
  }

  /** Somebody else uses the memory when what was sent of it has left. */
  release(block: Uint8Array): void {
    this.#released.push(block);
    this.#schedule();
  }

  get backlog(): number {
    return this.#backlog.reduce((sum, bytes) => sum + bytes.length, 0);
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
    queueMicrotask(() => this.#deliver());
  }

  end(): void {
    this.ended = true;
    this.#schedule();
  }

  destroy(reason: Error): void {
    this.destroyedFor = reason;
    this.ended = true;
    this.#backlog = [];
    this.#schedule();
  }

  // The host's end.

  write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += this.pieces) {
      this.#incoming.push(bytes.slice(at, at + this.pieces));
      this.#deliver();
    }
  }

  onData(listener: (bytes: Uint8Array) => void): void {
    this.#listener = listener;
  }

  onClose(listener: () => void): void {
    this.#closed = listener;
  }

  close(): void {
    this.connection?.disconnected();
  }

  letGo(): void {
    this.held = false;
    this.#schedule();
  }

  #deliver(): void {
    while (!this.paused && this.#incoming.length > 0) {
      const chunk = this.#incoming.shift() as Uint8Array;
      this.connection?.receive(chunk);
      chunk.fill(0xee);
    }
  }

  #schedule(): void {
    if (this.#scheduled || this.held) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      if (this.held) return;
      const ready = this.#backlog;
      this.#backlog = [];
      for (const bytes of ready) this.#listener?.(bytes);
      for (const block of this.#released.splice(0)) block.fill(0xee);
      if (ready.length > 0) this.connection?.drained();
      if (this.ended && this.#backlog.length === 0) {
        this.#closed?.();
        this.connection?.disconnected();
      }
    });
  }
}

export const SUBSYSTEM_NQN = "nqn.2026-01.test.zcow:disk";

/** Names made from a number. */
export const testIdentity: NamespacesOptions["identity"] = (part) => {
  const fill = { whole: 1, conventional: 2, sequential: 3 }[part];
  return { uuid: new Uint8Array(16).fill(fill), nguid: new Uint8Array(16).fill(0x10 + fill) };
};

export interface Bench {
  readonly target: Target;
  readonly subsystem: Subsystem;
  readonly clock: FakeClock;
  readonly events: TargetEvent[];
  readonly pipes: Pipe[];
  /** A new connection to the target. */
  open(peer?: Partial<PeerInfo>): Pipe;
}

export interface BenchOptions {
  readonly devices: readonly BlockDevice[];
  readonly limits?: Partial<TargetLimits>;
  readonly subsystem?: Partial<SubsystemOptions>;
  readonly namespaces?: Partial<NamespacesOptions>;
  readonly target?: Partial<TargetOptions>;
}

/** A target with one subsystem that shows the devices. */
export function startTarget(options: BenchOptions): Bench {
  const clock = new FakeClock();
  const events: TargetEvent[] = [];
  const limits = options.limits ?? {};
  const target = new Target({ clock, limits, onEvent: (event) => events.push(event), ...options.target });
  const subsystem = new Subsystem({ nqn: SUBSYSTEM_NQN, serial: "T1", hosts: "any", ...options.subsystem });
  let nsid = 1;
  for (const device of options.devices) {
    for (const namespace of namespacesOf(device, { firstNsid: nsid, identity: testIdentity, ...options.namespaces })) {
      subsystem.addNamespace(namespace);
      nsid = namespace.nsid + 1;
    }
  }
  target.addSubsystem(subsystem);
  const pipes: Pipe[] = [];
  const open = (peer: Partial<PeerInfo> = {}): Pipe => {
    const pipe = new Pipe();
    pipe.connection = target.accept(pipe, { address: "test", ...peer });
    pipes.push(pipe);
    return pipe;
  };
  return { target, subsystem, clock, events, pipes, open };
}

/** A new image in memory. */
export async function memoryImage(options: CreateQcow2Options): Promise<BlockDevice> {
  const storage = memoryStorage();
  await createQcow2(storage, options);
  return openQcow2(storage);
}
