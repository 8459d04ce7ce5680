import { createQcow2 } from "../../../../../src/formats/qcow2/create.js";
import type { CreateQcow2Options } from "../../../../../src/formats/qcow2/create-options.js";
import { type OpenQcow2Options, openQcow2 } from "../../../../../src/formats/qcow2/open.js";
import type { ZonedQcow2Device } from "../../../../../src/formats/qcow2/zones/zoned-device.js";
import { type FaultPlan, type FaultStorage, faultStorage } from "../../../../../src/storage/fault-storage.js";
import { type MemoryStorage, memoryStorage } from "../../../../../src/storage/memory-storage.js";
import { type RecordingStorage, recordingStorage } from "../../../../../src/storage/recording-storage.js";
import type { Storage } from "../../../../../src/storage/storage.js";
import type { ZoneState } from "../../../../../src/zoned/zone-state.js";

export const KB = 1024;
export const CLUSTER = 4 * KB;
export const ZONE = 64 * KB;
export const CAPACITY = 40 * KB;
/** Zones 0 and 1 are conventional, 2..7 sequential, 8 is sequential and cut short after 10 KiB: not whole clusters. */
export const SIZE = 8 * ZONE + 10 * KB;

/** Start of zone `index`. */
export const at = (index: number): number => index * ZONE;

export type ZonedImageOptions = Omit<CreateQcow2Options, "zone"> & { readonly zone?: CreateQcow2Options["zone"] };

export async function newZonedImage(options: ZonedImageOptions = {}): Promise<MemoryStorage> {
  const storage = memoryStorage();
  await createQcow2(storage, {
    size: SIZE,
    clusterSize: CLUSTER,
    ...options,
    zone: { mode: "host-managed", size: ZONE, capacity: CAPACITY, conventionalZones: 2, ...options.zone },
  });
  return storage;
}

export async function openZoned(storage: Storage, options: OpenQcow2Options = {}): Promise<ZonedQcow2Device> {
  return (await openQcow2(storage, options)) as ZonedQcow2Device;
}

/** An open image whose storage can be made to fail and remembers what was written when. */
export interface Bench {
  readonly device: ZonedQcow2Device;
  readonly memory: MemoryStorage;
  readonly recorder: RecordingStorage;
  readonly faults: FaultStorage;
  /** File offset of the write-pointer table. */
  readonly table: number;
  /** The file as it would be had the process died now; everything written is kept. */
  readonly killed: () => MemoryStorage;
  /** The file as it would be had the power failed now; nothing after the last flush is kept. */
  readonly crashed: () => MemoryStorage;
}

export async function bench(options: ZonedImageOptions = {}): Promise<Bench> {
  const memory = await newZonedImage(options);
  const recorder = recordingStorage(memory);
  const faults = faultStorage(recorder, {});
  const device = await openZoned(faults);
  const table = device.header.zoned?.tableOffset ?? 0;
  return {
    device,
    memory,
    recorder,
    faults,
    table,
    killed: () => memory.clone(),
    crashed: () => recorder.crashImage(recorder.moment(), { random: () => 1, keep: 0 }),
  };
}

/** Fails writes to the write-pointer table, as `fault` says. */
export function failTable(bench: Bench, fault: "error" | "lost"): void {
  const { table } = bench;
  const plan: FaultPlan = {
    rules: [{ fault: { type: fault }, kinds: ["write"], where: (call) => isInTable(call.at, table) }],
  };
  bench.faults.plan(plan);
}

function isInTable(offset: number, table: number): boolean {
  return offset >= table && offset < table + CLUSTER;
}

export function filled(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

export async function readBytes(device: ZonedQcow2Device, offset: number, length: number): Promise<Uint8Array> {
  const bytes = filled(length, 0xee);
  await device.read(offset, bytes);
  return bytes;
}

/** Runs of equal bytes, as [length, value]: short in a failure message. */
export function runsOf(bytes: Uint8Array): [number, number][] {
  const runs: [number, number][] = [];
  for (const byte of bytes) {
    const last = runs.at(-1);
    if (last !== undefined && last[1] === byte) last[0] += 1;
    else runs.push([1, byte]);
  }
  return runs;
}

export async function readRunsOf(
  device: ZonedQcow2Device,
  offset: number,
  length: number,
): Promise<[number, number][]> {
  return runsOf(await readBytes(device, offset, length));
}

/** State of a zone, and how far it is written in bytes. */
export function zoneOf(device: ZonedQcow2Device, index: number): [ZoneState, number] {
  const zone = device.report(at(index), 1)[0];
  if (zone === undefined) throw new Error(`no zone ${index}`);
  return [zone.state, zone.writePointer - zone.start];
}
