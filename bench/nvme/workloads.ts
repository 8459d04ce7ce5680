import type { LoadCommand, LoadQueue } from "./load-host.js";
import type { DiskShape } from "./memory-disk.js";

export const BLOCK = 4096;
const KIB = 1024;

/** One kind of load, at one depth over all queues. */
export interface Workload {
  readonly name: string;
  readonly kind: "read" | "write" | "append" | "zone-write";
  readonly bytes: number;
  readonly depth: number;
  /** On an image whose zones keep their host space when they are reset, and have been written once. */
  readonly warm?: true;
}

export const WORKLOADS: readonly Workload[] = [
  { name: "4 KiB reads, depth 1", kind: "read", bytes: 4 * KIB, depth: 1 },
  { name: "4 KiB reads, depth 32", kind: "read", bytes: 4 * KIB, depth: 32 },
  { name: "4 KiB writes, depth 32", kind: "write", bytes: 4 * KIB, depth: 32 },
  { name: "4 KiB appends, depth 32", kind: "append", bytes: 4 * KIB, depth: 32 },
  { name: "128 KiB reads, depth 8", kind: "read", bytes: 128 * KIB, depth: 8 },
  { name: "128 KiB zone writes, depth 8", kind: "zone-write", bytes: 128 * KIB, depth: 8 },
  { name: "4 KiB appends, depth 32, space kept", kind: "append", bytes: 4 * KIB, depth: 32, warm: true },
  { name: "128 KiB zone writes, depth 8, space kept", kind: "zone-write", bytes: 128 * KIB, depth: 8, warm: true },
];

/** Namespaces of a disk with conventional zones. */
const CONVENTIONAL = 1;
const SEQUENTIAL = 2;
const OPCODE = { flush: 0x00, write: 0x01, read: 0x02, zoneSend: 0x79, append: 0x7d } as const;
const RESET_ALL = 0x104;

export interface Outcome {
  readonly operations: number;
  readonly seconds: number;
}

/**
 * Runs until the time is over or the zones are full. The host polls meanwhile, as hosts in user space do that drive fast disks: on a
 * virtual machine it costs the server more to wake a sleeping host than to serve several commands, and only while the server is
 * slower than the host.
 */
export async function runWorkload(
  queues: readonly LoadQueue[],
  shape: DiskShape,
  workload: Workload,
  seconds: number,
): Promise<Outcome> {
  if (workload.kind === "append" || workload.kind === "zone-write") {
    await one(queues[0] as LoadQueue, {
      opcode: OPCODE.zoneSend,
      nsid: SEQUENTIAL,
      lba: 0,
      blocks: 0,
      dword13: RESET_ALL,
    });
  }
  const sleep = keepAwake();
  const outcome = await new Promise<Outcome>((resolve) => {
    const next = commandSource(shape, workload);
    const start = performance.now();
    const end = start + seconds * 1000;
    let operations = 0;
    let flying = 0;
    const submit = (queue: LoadQueue, slot: number): void => {
      const command = next(slot);
      if (command === undefined) return;
      flying++;
      queue.submit(slot, command);
    };
    for (const queue of queues) {
      queue.onDone = (slot) => {
        flying--;
        operations++;
        // The clock is not cheap at this rate.
        if ((operations & 15) !== 0 || performance.now() < end) submit(queue, slot);
        if (flying === 0) resolve({ operations, seconds: (performance.now() - start) / 1000 });
      };
    }
    for (let slot = 0; slot < workload.depth; slot++) submit(queues[slot % queues.length] as LoadQueue, slot);
  });
  sleep();
  return outcome;
}

/** Until the result is called the event loop asks for what has come instead of waiting for it. */
function keepAwake(): () => void {
  let asleep = false;
  const poll = (): void => {
    if (!asleep) setImmediate(poll);
  };
  poll();
  return () => {
    asleep = true;
  };
}

/** Writes every block of the conventional zones once, so that reads find data. */
export async function fill(queue: LoadQueue, shape: DiskShape): Promise<void> {
  const data = payload(128 * KIB);
  const blocks = data.length / BLOCK;
  const total = (shape.conventionalZones * shape.zoneSize) / BLOCK;
  for (let lba = 0; lba < total; lba += blocks) {
    await one(queue, { opcode: OPCODE.write, nsid: CONVENTIONAL, lba, blocks, data });
  }
  await one(queue, { opcode: OPCODE.flush, nsid: CONVENTIONAL, lba: 0, blocks: 0 });
}

/** Writes every zone once. */
export async function fillZones(queues: readonly LoadQueue[], shape: DiskShape): Promise<void> {
  const workload: Workload = { name: "fill", kind: "zone-write", bytes: 128 * KIB, depth: 8 };
  await runWorkload(queues, shape, workload, Number.POSITIVE_INFINITY);
  await one(queues[0] as LoadQueue, { opcode: OPCODE.flush, nsid: SEQUENTIAL, lba: 0, blocks: 0 });
}

function one(queue: LoadQueue, command: LoadCommand): Promise<void> {
  return new Promise((resolve) => {
    queue.onDone = () => resolve();
    queue.submit(0, command);
  });
}

/** The next command of a slot; `undefined` when there is nothing left to do. */
function commandSource(shape: DiskShape, workload: Workload): (slot: number) => LoadCommand | undefined {
  const blocks = workload.bytes / BLOCK;
  const data = payload(workload.bytes);
  switch (workload.kind) {
    case "read":
    case "write": {
      const places = Math.floor((shape.conventionalZones * shape.zoneSize) / workload.bytes);
      const place = (): number => Math.floor(Math.random() * places) * blocks;
      if (workload.kind === "read") return () => ({ opcode: OPCODE.read, nsid: CONVENTIONAL, lba: place(), blocks });
      return () => ({ opcode: OPCODE.write, nsid: CONVENTIONAL, lba: place(), blocks, data });
    }
    case "append":
      return appends(shape, blocks, data);
    case "zone-write":
      return zoneWrites(shape, blocks, data, workload.depth);
  }
}

/** Eight zones are filled at a time. */
function appends(shape: DiskShape, blocks: number, data: Uint8Array): (slot: number) => LoadCommand | undefined {
  const WIDTH = 8;
  const { zones, zoneBlocks } = sequentialZones(shape);
  const current = Array.from({ length: WIDTH }, (_, index) => ({ zone: index, used: 0 }));
  let fresh = WIDTH;
  let turn = 0;
  return () => {
    const target = current[turn++ % WIDTH] as { zone: number; used: number };
    if (target.used + blocks > zoneBlocks) {
      target.zone = fresh++;
      target.used = 0;
    }
    if (target.zone >= zones) return undefined;
    target.used += blocks;
    return { opcode: OPCODE.append, nsid: SEQUENTIAL, lba: target.zone * zoneBlocks, blocks, data };
  };
}

/** Each slot writes a zone of its own from front to back, one write at a time, as Linux does. */
function zoneWrites(
  shape: DiskShape,
  blocks: number,
  data: Uint8Array,
  depth: number,
): (slot: number) => LoadCommand | undefined {
  const { zones, zoneBlocks } = sequentialZones(shape);
  const current = Array.from({ length: depth }, (_, index) => ({ zone: index, used: 0 }));
  let fresh = depth;
  return (slot) => {
    const target = current[slot] as { zone: number; used: number };
    if (target.used + blocks > zoneBlocks) {
      target.zone = fresh++;
      target.used = 0;
    }
    if (target.zone >= zones) return undefined;
    const lba = target.zone * zoneBlocks + target.used;
    target.used += blocks;
    return { opcode: OPCODE.write, nsid: SEQUENTIAL, lba, blocks, data };
  };
}

function sequentialZones(shape: DiskShape): { zones: number; zoneBlocks: number } {
  return { zones: shape.size / shape.zoneSize - shape.conventionalZones, zoneBlocks: shape.zoneSize / BLOCK };
}

/** Not zeros, which some layers treat specially. */
function payload(bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, index) => (index * 31 + (index >>> 8)) & 0xff);
}
