import { type ChildProcess, fork } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createImage } from "../src/formats/create-image.js";
import { lineLogger } from "../src/servers/nvme-tcp/logger.js";
import { NvmeService } from "../src/servers/nvme-tcp/service.js";
import { reportedMemoryWarning } from "./host-memory.js";
import { LoadQueue } from "./nvme/load-host.js";
import { type DiskShape, MemoryDisk } from "./nvme/memory-disk.js";
import { fill, fillZones, type Outcome, runWorkload, WORKLOADS, type Workload } from "./nvme/workloads.js";
import { median, shuffled } from "./statistics.js";

/**
 * Load over the loopback: the server on a warm qcow2 image beside the same server on an array in memory, in alternation.
 * Server and host are processes of their own. Ratios are image / memory: 1 = the image costs nothing.
 */

const MIB = 1024 * 1024;
const SHAPE: DiskShape = { size: 2048 * MIB, zoneSize: 32 * MIB, conventionalZones: 8 };
const NQN = "nqn.2026-01.zcow:bench-disk";
const QUEUES = 2;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "1" },
    only: { type: "string" },
    digests: { type: "boolean", default: false },
    directory: { type: "string", default: existsSync("/dev/shm") ? "/dev/shm" : tmpdir() },
    json: { type: "string" },
  },
});

type Request =
  | { readonly kind: "usage" }
  | { readonly kind: "run"; readonly workload: Workload; readonly seconds: number };

interface Usage {
  readonly cpuSeconds: number;
  readonly resident: number;
}

// --- the server -----------------------------------------------------------------------------------

async function serve(image: string, keepZoneSpace: boolean): Promise<void> {
  const service = await NvmeService.start({
    subsystems: [
      {
        nqn: NQN,
        hosts: "any",
        images: [
          image === "memory"
            ? { path: "memory", format: "raw", device: new MemoryDisk(SHAPE) }
            : { path: image, format: "qcow2", keepZoneSpace },
        ],
      },
    ],
    host: "127.0.0.1",
    port: 0,
    log: lineLogger("text", (line) => (line.includes(" info ") ? undefined : process.stderr.write(line))),
  });
  process.on("message", () => {
    const { user, system } = process.cpuUsage();
    const usage: Usage = { cpuSeconds: (user + system) / 1e6, resident: process.memoryUsage.rss() };
    process.send?.(usage);
  });
  process.on("SIGTERM", () => {
    void service.close().then(() => process.exit(0));
  });
  process.send?.(service.server.address.port);
}

// --- the host -------------------------------------------------------------------------------------

async function load(port: number, digests: boolean, warm: boolean): Promise<void> {
  const settings = { port, nqn: NQN, headerDigest: digests, dataDigest: digests };
  const { queue: admin, controllerId } = await LoadQueue.open(settings, 0, 32);
  await admin.enable();
  const queues: LoadQueue[] = [];
  for (let id = 1; id <= QUEUES; id++) {
    queues.push((await LoadQueue.open(settings, id, 128, controllerId)).queue);
  }
  await fill(queues[0] as LoadQueue, SHAPE);
  if (warm) await fillZones(queues, SHAPE);
  process.on("message", (request: Extract<Request, { kind: "run" }>) => {
    const used = request.workload.depth < QUEUES ? queues.slice(0, 1) : queues;
    void runWorkload(used, SHAPE, request.workload, request.seconds).then((outcome) => process.send?.(outcome));
  });
  process.send?.("ready");
}

// --- the comparison -------------------------------------------------------------------------------

function ask<Reply>(child: ChildProcess, request?: Request): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const gone = (): void => reject(new Error("a process of the benchmark ended early"));
    child.once("exit", gone);
    child.once("message", (reply) => {
      child.off("exit", gone);
      resolve(reply as Reply);
    });
    if (request !== undefined) child.send(request);
  });
}

class Contestant {
  readonly name: string;
  readonly #server: ChildProcess;
  readonly #host: ChildProcess;

  private constructor(name: string, server: ChildProcess, host: ChildProcess) {
    this.name = name;
    this.#server = server;
    this.#host = host;
  }

  static async start(name: string, image: string, digests: boolean, warm = false): Promise<Contestant> {
    const self = fileURLToPath(import.meta.url);
    const server = fork(self, ["serve", image, String(warm)]);
    const port = await ask<number>(server);
    const host = fork(self, ["load", String(port), String(digests), String(warm)]);
    await ask(host);
    return new Contestant(name, server, host);
  }

  async run(workload: Workload, seconds: number): Promise<Sample> {
    const before = await ask<Usage>(this.#server, { kind: "usage" });
    const outcome = await ask<Outcome>(this.#host, { kind: "run", workload, seconds });
    const after = await ask<Usage>(this.#server, { kind: "usage" });
    return {
      rate: outcome.operations / outcome.seconds,
      cpuPerOperation: (after.cpuSeconds - before.cpuSeconds) / outcome.operations,
      resident: after.resident,
    };
  }

  async stop(): Promise<void> {
    this.#host.kill();
    const gone = new Promise((resolve) => this.#server.once("exit", resolve));
    this.#server.kill("SIGTERM");
    await gone;
  }
}

interface Sample {
  /** Operations per second. */
  readonly rate: number;
  /** Seconds of the server's processor time. */
  readonly cpuPerOperation: number;
  /** Bytes. */
  readonly resident: number;
}

async function makeImage(directory: string, warm: boolean): Promise<string> {
  const image = join(directory, warm ? "warm.qcow2" : "disk.qcow2");
  await createImage(image, {
    format: "qcow2",
    size: SHAPE.size,
    zone: { mode: "host-managed", size: SHAPE.zoneSize, conventionalZones: SHAPE.conventionalZones },
  });
  return image;
}

async function compare(): Promise<void> {
  const directory = mkdtempSync(join(values.directory, "zcow-nvme-load-"));
  const rounds = Number(values.rounds);
  const seconds = Number(values.seconds);
  const contestants: Contestant[] = [];
  try {
    const workloads = WORKLOADS.filter(({ name }) => values.only === undefined || name.includes(values.only));
    const memory = await Contestant.start("memory", "memory", values.digests);
    contestants.push(memory);
    const rows: Row[] = [];
    for (const warm of [false, true]) {
      const chosen = workloads.filter((workload) => (workload.warm ?? false) === warm);
      if (chosen.length === 0) continue;
      const image = await Contestant.start("image", await makeImage(directory, warm), values.digests, warm);
      contestants.push(image);
      for (const workload of chosen) rows.push(await compareOn(workload, [memory, image], rounds, seconds));
    }
    print(rows);
    const machine = { node: process.version, cpus: cpus().length, loadAverage: loadavg()[0] };
    if (values.json !== undefined) {
      writeFileSync(values.json, `${JSON.stringify({ machine, digests: values.digests, rounds, rows }, null, 2)}\n`);
    }
  } finally {
    await Promise.all(contestants.map((contestant) => contestant.stop()));
    rmSync(directory, { recursive: true, force: true });
  }
}

interface Row {
  readonly workload: Workload;
  readonly memory: Sample;
  readonly image: Sample;
  /** Median over the rounds of image / memory of one round. */
  readonly ratio: number;
}

async function compareOn(
  workload: Workload,
  contestants: readonly Contestant[],
  rounds: number,
  seconds: number,
): Promise<Row> {
  const samples = new Map<string, Sample[]>();
  for (let round = -1; round < rounds; round++) {
    for (const contestant of shuffled([...contestants])) {
      const sample = await contestant.run(workload, round < 0 ? seconds / 3 : seconds);
      if (round >= 0) samples.set(contestant.name, [...(samples.get(contestant.name) ?? []), sample]);
    }
  }
  const [memory, image] = [samples.get("memory") ?? [], samples.get("image") ?? []];
  const ratio = median(image.map((sample, round) => sample.rate / (memory[round]?.rate ?? Number.NaN)));
  return { workload, memory: middle(memory), image: middle(image), ratio };
}

function middle(samples: readonly Sample[]): Sample {
  const of = (field: keyof Sample): number => median(samples.map((sample) => sample[field]));
  return { rate: of("rate"), cpuPerOperation: of("cpuPerOperation"), resident: of("resident") };
}

function print(rows: readonly Row[]): void {
  const warning = reportedMemoryWarning();
  if (warning !== undefined) console.log(warning);
  console.log(`digests ${values.digests ? "on" : "off"}, ${QUEUES} queues, load average ${loadavg()[0]?.toFixed(1)}`);
  console.log("| load | memory | image | ratio | CPU per op, memory | image | resident, memory | image |");
  console.log("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
  for (const { workload, memory, image, ratio } of rows) {
    const speed = (sample: Sample): string =>
      workload.bytes > 4096
        ? `${((sample.rate * workload.bytes) / (1024 * MIB)).toFixed(2)} GiB/s`
        : `${(sample.rate / 1000).toFixed(1)} k/s`;
    const cpu = (sample: Sample): string => `${(sample.cpuPerOperation * 1e6).toFixed(1)} us`;
    const resident = (sample: Sample): string => `${Math.round(sample.resident / MIB)} MiB`;
    console.log(
      `| ${workload.name} | ${speed(memory)} | ${speed(image)} | ${ratio.toFixed(2)} | ${cpu(memory)} | ${cpu(image)} | ${resident(memory)} | ${resident(image)} |`,
    );
  }
}

const [role, ...rest] = positionals;
if (role === "serve") await serve(rest[0] ?? "memory", rest[1] === "true");
else if (role === "load") await load(Number(rest[0]), rest[1] === "true", rest[2] === "true");
else await compare();
