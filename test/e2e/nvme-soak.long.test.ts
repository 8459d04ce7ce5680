import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { createImage } from "../../src/formats/create-image.js";
import { checkImage } from "../../src/jobs/check.js";
import { type HostQueue, ioCommand, type NvmeHost, parseZoneReport } from "../support/nvme-initiator.js";
import { NvmeServerProcess } from "../support/nvme-server-process.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { BuiltCommand } from "./built-command.js";

/**
 * A server under mixed load from several queues for ZCOW_SOAK_MINUTES (10): every byte that is read is compared, hosts come and
 * go, and the memory of the process must not grow.
 */
const MINUTES = Number(process.env["ZCOW_SOAK_MINUTES"] ?? "10");
const MiB = 1024 * 1024;
const BLOCK = 4096;
const ZONES = 64;
const ZONE_BLOCKS = (4 * MiB) / BLOCK;
const CAPACITY_BLOCKS = (3 * MiB) / BLOCK;
const WORKERS = 4;
const SAMPLE_MS = 2000;
/** What the collector of the engine may leave lying about from one sample to the next. */
const SLACK_BYTES = 24 * MiB;
const RESET = 4;

const inFolder = temporaryFolder();
let server: NvmeServerProcess | undefined;

afterEach(async () => {
  await server?.stop("SIGKILL");
});

/** The bytes of a block: its address and how often its zone was reset, all over. */
function blockBytes(lba: number, life: number): Uint8Array {
  return new Uint8Array(new Uint32Array(BLOCK / 4).fill((lba * 2_654_435_761 + life * 97) >>> 0).buffer);
}

function bytesFrom(lba: number, blocks: number, life: number): Uint8Array {
  const bytes = new Uint8Array(blocks * BLOCK);
  for (let index = 0; index < blocks; index++) bytes.set(blockBytes(lba + index, life), index * BLOCK);
  return bytes;
}

interface OwnedZone {
  readonly start: number;
  written: number;
  life: number;
}

/** Works on its own zones through one queue, with one command at a time per zone and several zones at once. */
class Worker {
  commands = 0;
  readonly #queue: HostQueue;
  readonly #random: Random;
  readonly #zones: readonly OwnedZone[];

  constructor(queue: HostQueue, random: Random, zones: readonly OwnedZone[]) {
    this.#queue = queue;
    this.#random = random;
    this.#zones = zones;
  }

  async run(end: number): Promise<void> {
    await Promise.all(this.#zones.map((zone) => this.#workOn(zone, end)));
  }

  async #workOn(zone: OwnedZone, end: number): Promise<void> {
    while (Date.now() < end) {
      this.commands++;
      const kind = this.#random.weighted({ write: 6, append: 6, read: 12, report: 1, flush: 1 });
      if (kind === "read") await this.#read(zone);
      else if (kind === "report") await this.#report(zone);
      else if (kind === "flush") await this.#expect(ioCommand.flush(1));
      else await this.#grow(zone, kind === "append");
    }
  }

  async #grow(zone: OwnedZone, append: boolean): Promise<void> {
    const blocks = Math.min(this.#random.pick([1, 2, 8, 32]), CAPACITY_BLOCKS - zone.written);
    if (blocks === 0) {
      await this.#expect(ioCommand.zoneSend(1, zone.start, RESET));
      zone.written = 0;
      zone.life++;
      return;
    }
    const at = zone.start + zone.written;
    const data = bytesFrom(at, blocks, zone.life);
    const command = append ? ioCommand.append(1, zone.start, blocks, data) : ioCommand.write(1, at, blocks, data);
    const { low } = await this.#expect(command);
    if (append) expect(low).toBe(at);
    zone.written += blocks;
  }

  async #read(zone: OwnedZone): Promise<void> {
    if (zone.written === 0) return;
    const first = this.#random.below(zone.written);
    const blocks = Math.min(zone.written - first, this.#random.pick([1, 4, 32]));
    const { data } = await this.#expect(ioCommand.read(1, zone.start + first, blocks, BLOCK));
    const expected = bytesFrom(zone.start + first, blocks, zone.life);
    if (Buffer.compare(data, expected) !== 0) throw new Error(`block ${zone.start + first} reads back wrong`);
  }

  async #report(zone: OwnedZone): Promise<void> {
    const { data } = await this.#expect(ioCommand.zoneReport(1, zone.start, 128));
    expect(parseZoneReport(data).zones[0]).toMatchObject({ start: zone.start });
  }

  async #expect(command: Parameters<HostQueue["command"]>[0]) {
    const completion = await this.#queue.command(command);
    expect(completion.status).toBe(0);
    return completion;
  }
}

/** Connects anew again and again, looks, and goes without a word. */
async function comeAndGo(running: NvmeServerProcess, end: number): Promise<number> {
  let count = 0;
  for (; Date.now() < end; count++) {
    const host = await running.host({ headerDigest: count % 2 === 0, dataDigest: count % 3 === 0 }, 1);
    expect((await host.identify(1)).status).toBe(0);
    expect((await host.io.command(ioCommand.read(1, 0, 1, BLOCK))).status).toBe(0);
    host.close();
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  return count;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

test(
  `a server under mixed load for ${MINUTES} minutes returns what was written and keeps its memory flat`,
  async () => {
    const command = await BuiltCommand.build(inFolder("build"));
    const image = join(inFolder("."), "soak.qcow2");
    const zone = { mode: "host-managed", size: 4 * MiB, capacity: 3 * MiB } as const;
    await createImage(image, { format: "qcow2", size: ZONES * 4 * MiB, zone });
    server = await NvmeServerProcess.start(command, [image]);
    const running = server;
    const random = new Random(seedFromEnvironment(61));
    const host: NvmeHost = await running.host({ headerDigest: true, dataDigest: true }, WORKERS);
    const end = Date.now() + MINUTES * 60_000;
    const workers = host.queues.map(
      (queue, index) =>
        new Worker(
          queue,
          new Random(random.u32()),
          Array.from({ length: ZONES / WORKERS }, (_, n) => ({
            start: (n * WORKERS + index) * ZONE_BLOCKS,
            written: 0,
            life: 0,
          })),
        ),
    );
    const samples: number[] = [];
    const sampler = setInterval(() => samples.push(running.residentBytes()), SAMPLE_MS);
    const [visits] = await Promise.all([comeAndGo(running, end), ...workers.map((worker) => worker.run(end))]);
    clearInterval(sampler);
    host.close();
    expect(await running.stop()).toBe(0);
    server = undefined;

    const quarter = Math.floor(samples.length / 4);
    const early = median(samples.slice(quarter, 2 * quarter));
    const late = median(samples.slice(-quarter));
    const total = workers.reduce((sum, worker) => sum + worker.commands, 0);
    console.log(
      `${total} commands, ${visits} visits; memory ${Math.round(early / MiB)} MiB early, ${Math.round(late / MiB)} MiB late, ` +
        `${Math.round(Math.max(...samples) / MiB)} MiB at most`,
    );
    expect(late).toBeLessThan(early + SLACK_BYTES);
    expect((await checkImage(image, { format: "qcow2" })).findings).toEqual([]);
  },
  MINUTES * 60_000 + 120_000,
);
