import { spawn } from "node:child_process";
import { availableParallelism } from "node:os";
import { CEILING, NBDKIT, OURS, QEMU_RING, QEMU_THREADS, type RunningServer, type ServerKind } from "./servers.js";

const KIB = 1024;
const MIB = 1024 * KIB;

export interface Outcome {
  readonly requests: number;
  readonly seconds: number;
  /** Time within which 99 of 100 requests were answered. */
  readonly p99Milliseconds?: number;
}

export interface LoadSettings {
  readonly seconds: number;
  /** A raw file of the size of the disk. */
  readonly source: string;
}

/** One kind of load and what is asked of the server under it. */
export interface Load {
  readonly name: string;
  /** Bytes of a request; of the whole copy, where that is what is measured. */
  readonly bytes: number;
  readonly direct?: boolean;
  /** Server and client share one processor. */
  readonly pinned?: boolean;
  /** Our rate / the peer's, at least. */
  readonly goals: ReadonlyMap<ServerKind, number>;
  /** Microseconds of the server's processors for a request, at most. */
  readonly cpuGoal?: number;
  /** Our 99th percentile / qemu-nbd's, at most. */
  readonly p99Goal?: number;
  run(server: RunningServer, settings: LoadSettings): Promise<Outcome>;
}

interface FioLoad extends Pick<Load, "direct" | "pinned" | "cpuGoal" | "p99Goal"> {
  readonly kind: "read" | "write";
  readonly bytes: number;
  readonly depth: number;
  readonly goals: readonly (readonly [ServerKind, number])[];
}

function fioLoad({ kind, bytes, depth, goals, ...rest }: FioLoad): Load {
  const size = bytes < MIB ? `${bytes / KIB} KiB` : `${bytes / MIB} MiB`;
  const where = rest.direct === true ? ", past the page cache" : rest.pinned === true ? ", one processor" : "";
  return {
    ...rest,
    name: `${size} random ${kind}s, depth ${depth}${where}`,
    bytes,
    goals: new Map(goals),
    run: async (server, { seconds }) => {
      const args = ["--name=load", "--ioengine=nbd", `--uri=${server.uri}`, `--rw=rand${kind}`, `--bs=${bytes}`];
      args.push(`--iodepth=${depth}`, "--time_based", `--runtime=${seconds}`, "--thread", "--output-format=json");
      // Not a generator whose state costs as much as the request; data that is not all alike.
      args.push("--random_generator=tausworthe64", "--norandommap", "--refill_buffers=0");
      if (rest.pinned !== true) return fioOutcome(await output("fio", args), kind);
      server.pin("0");
      try {
        return fioOutcome(await output("taskset", ["-c", "0", "fio", ...args]), kind);
      } finally {
        server.pin(`0-${availableParallelism() - 1}`);
      }
    },
  };
}

function fioOutcome(text: string, kind: "read" | "write"): Outcome {
  const [job] = JSON.parse(text.slice(text.indexOf("{"))).jobs;
  const { total_ios, runtime, clat_ns } = job[kind];
  if (job.error !== 0 || total_ios === 0) throw new Error(`fio: error ${job.error}`);
  return {
    requests: total_ios,
    seconds: runtime / 1000,
    p99Milliseconds: clat_ns.percentile["99.000000"] / 1e6,
  };
}

function copyLoad(direction: "from" | "to"): Load {
  return {
    name: direction === "from" ? "nbdcopy server to null" : "nbdcopy file to server",
    bytes: 0,
    goals: new Map([
      [QEMU_THREADS, 1],
      [QEMU_RING, 1],
    ]),
    run: async (server, { source }) => {
      const start = performance.now();
      await output("nbdcopy", direction === "from" ? [server.uri, "null:"] : [source, server.uri]);
      return { requests: 1, seconds: (performance.now() - start) / 1000 };
    },
  };
}

const SMALL = [
  [QEMU_THREADS, 4],
  [QEMU_RING, 2.5],
  [NBDKIT, 1.2],
] as const;
const LONE = [
  [QEMU_THREADS, 1.2],
  [QEMU_RING, 1.2],
  [NBDKIT, 0],
] as const;
const LONE_PINNED = LONE.map(([kind, goal]) => [kind, goal === 0 ? 0 : 1.6] as const);
const bulk = (goal: number) =>
  [
    [QEMU_THREADS, goal],
    [QEMU_RING, goal],
    [NBDKIT, 0],
  ] as const;

const loads: Load[] = [];
for (const kind of ["read", "write"] as const) {
  loads.push(fioLoad({ kind, bytes: 4 * KIB, depth: 32, goals: SMALL, cpuGoal: 6, p99Goal: 1 / 3 }));
}
for (const kind of ["read", "write"] as const) {
  loads.push(fioLoad({ kind, bytes: 4 * KIB, depth: 1, goals: LONE }));
  loads.push(fioLoad({ kind, bytes: 4 * KIB, depth: 1, goals: LONE_PINNED, pinned: true }));
}
for (const kind of ["read", "write"] as const) {
  loads.push(fioLoad({ kind, bytes: 64 * KIB, depth: 8, goals: bulk(1.5) }));
  loads.push(fioLoad({ kind, bytes: MIB, depth: 4, goals: bulk(1.3) }));
}
loads.push(copyLoad("from"), copyLoad("to"));
loads.push(fioLoad({ kind: "read", bytes: 4 * KIB, depth: 32, goals: [[QEMU_THREADS, 0.9]], direct: true }));

/** Everything that is measured. */
export const LOADS: readonly Load[] = loads;
export const CONTESTANTS: readonly ServerKind[] = [OURS, QEMU_THREADS, QEMU_RING, NBDKIT, CEILING];

function output(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    let text = "";
    let errors = "";
    child.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      errors += chunk.toString();
    });
    child.once("error", reject);
    child.once("close", (code) => (code === 0 ? resolve(text) : reject(new Error(`${program}: ${errors || text}`))));
  });
}
