import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { cpus, loadavg, release, tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { run } from "./contestants.js";
import { reportedMemoryWarning } from "./host-memory.js";
import { CONTESTANTS, LOADS, type Load, type Outcome } from "./nbd/loads.js";
import {
  CEILING,
  type Disks,
  type ListenAt,
  OURS,
  QEMU_RING,
  QEMU_THREADS,
  RunningServer,
  type ServerKind,
} from "./nbd/servers.js";
import { median, shuffled } from "./statistics.js";

/**
 * `npm run bench -- nbd`: load on NBD servers over the loopback, or over Unix sockets (`--unix`), zcow's beside the stock ones,
 * in an order that is new in every round. All serve the same allocated disk, warm: the images of zcow and qemu-nbd are qcow2,
 * nbdkit has no such driver and serves it raw.
 */

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "2" },
    mib: { type: "string", default: "1024" },
    only: { type: "string" },
    peers: { type: "string" },
    unix: { type: "boolean", default: false },
    directory: { type: "string", default: existsSync("/dev/shm") ? "/dev/shm" : tmpdir() },
    "disk-directory": { type: "string", default: tmpdir() },
    json: { type: "string" },
  },
});

interface Sample extends Outcome {
  /** Seconds of the server's processors for a request. */
  readonly cpuPerRequest: number;
}

interface Result {
  readonly load: string;
  readonly server: string;
  readonly rate: number;
  readonly cpuMicroseconds: number;
  readonly p99Milliseconds: number | undefined;
  /** Our rate / that of this server. */
  readonly ratio: number;
  readonly goal: number | undefined;
  readonly missed: readonly string[];
  readonly samples: readonly Sample[];
}

const MIB = 1024 * 1024;
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);

function makeDisks(directory: string, names: readonly ServerKind[]): Disks {
  const bytes = Number(values.mib) * MIB;
  const disks = {
    ours: join(directory, "ours.qcow2"),
    peer: join(directory, "peer.qcow2"),
    raw: join(directory, "raw"),
  };
  run("qemu-img", ["create", "-q", "-f", "qcow2", disks.ours, String(bytes)], false, directory);
  run("qemu-io", ["-f", "qcow2", "-c", `write -q -P 165 0 ${bytes}`, disks.ours], false, directory);
  if (names.length > 1) copyFileSync(disks.ours, disks.peer);
  run("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", disks.ours, disks.raw], false, directory);
  return disks;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  const address = server.address();
  await new Promise((closed) => server.close(closed));
  return typeof address === "object" && address !== null ? address.port : 0;
}

async function startAll(kinds: readonly ServerKind[], disks: Disks, direct: boolean): Promise<RunningServer[]> {
  const servers: RunningServer[] = [];
  for (const [index, kind] of kinds.entries()) {
    const at: ListenAt = values.unix
      ? { path: join(dirname(disks.ours), `socket-${index}`) }
      : { port: await freePort() };
    try {
      servers.push(await RunningServer.start(kind, disks, at, direct));
    } catch (error) {
      // Where the stock tool has no io_uring, the others are still worth comparing.
      if (kind !== QEMU_RING) throw error;
      console.log("# qemu-nbd has no io_uring here");
    }
  }
  return servers;
}

async function measure(load: Load, servers: readonly RunningServer[], source: string): Promise<Result[]> {
  const samples = new Map<ServerKind, Sample[]>(servers.map(({ kind }) => [kind, []]));
  for (let round = -1; round < rounds; round++) {
    for (const server of shuffled([...servers])) {
      const before = server.cpuSeconds;
      const outcome = await load.run(server, { seconds: round < 0 ? 1 : seconds, source });
      const cpuPerRequest = (server.cpuSeconds - before) / outcome.requests;
      // The first round is for warming up.
      if (round >= 0) samples.get(server.kind)?.push({ ...outcome, cpuPerRequest });
    }
  }
  const ours = samples.get(OURS) ?? [];
  return servers.map(({ kind }) => summarise(load, kind, samples.get(kind) ?? [], ours, samples.get(QEMU_THREADS)));
}

function summarise(
  load: Load,
  kind: ServerKind,
  samples: readonly Sample[],
  ours: readonly Sample[],
  stock: readonly Sample[] | undefined,
): Result {
  const rateOf = (of: readonly Sample[]): number => median(of.map((one) => one.requests / one.seconds));
  const p99Of = (of: readonly Sample[]): number => median(of.map((one) => one.p99Milliseconds ?? Number.NaN));
  const ratio = rateOf(ours) / rateOf(samples);
  const cpuMicroseconds = median(samples.map((one) => one.cpuPerRequest)) * 1e6;
  const goal = load.goals.get(kind);
  const missed: string[] = [];
  if (goal !== undefined && ratio < goal) missed.push(`ratio below ${goal}`);
  if (kind === OURS && load.cpuGoal !== undefined && cpuMicroseconds > load.cpuGoal) {
    missed.push(`more than ${load.cpuGoal} us of CPU`);
  }
  if (kind === OURS && load.p99Goal !== undefined && stock !== undefined && p99Of(ours) > load.p99Goal * p99Of(stock)) {
    missed.push(`p99 above ${load.p99Goal.toFixed(2)} of qemu-nbd's`);
  }
  const p99 = p99Of(samples);
  return {
    load: load.name,
    server: kind.name,
    rate: rateOf(samples),
    cpuMicroseconds,
    p99Milliseconds: Number.isNaN(p99) ? undefined : p99,
    ratio,
    goal,
    missed,
    samples,
  };
}

function line(load: Load, result: Result): string {
  const { rate, cpuMicroseconds: cpu } = result;
  const cells = [
    result.server === OURS.name ? load.name : "",
    result.server,
    load.bytes === 0
      ? `${(1 / rate).toFixed(3)} s`
      : load.bytes >= 64 * 1024
        ? `${((rate * load.bytes) / MIB).toFixed(0)} MiB/s`
        : `${(rate / 1000).toFixed(1)} k/s`,
    result.server === OURS.name ? "" : result.ratio.toFixed(2),
    result.goal === undefined || result.goal === 0 ? "" : String(result.goal),
    cpu < 10_000 ? `${cpu.toFixed(1)} us` : `${(cpu / 1e6).toFixed(3)} s`,
    result.p99Milliseconds?.toFixed(2) ?? "",
    result.missed.join("; "),
  ];
  return `| ${cells.join(" | ")} |`;
}

async function compare(loads: readonly Load[], direct: boolean, folder: string): Promise<Result[]> {
  if (loads.length === 0) return [];
  const kinds = chosenPeers(direct);
  const directory = mkdtempSync(join(folder, "zcow-nbd-load-"));
  let servers: RunningServer[] = [];
  try {
    const disks = makeDisks(directory, kinds);
    servers = await startAll(kinds, disks, direct);
    const results: Result[] = [];
    for (const load of loads) {
      const found = await measure(load, servers, disks.raw);
      results.push(...found);
      for (const result of found) console.log(line(load, result));
    }
    for (const { kind, peakMiB } of servers) console.log(`# peak memory of ${kind.name}: ${peakMiB.toFixed(0)} MiB`);
    return results;
  } finally {
    await Promise.all(servers.map((server) => server.stop()));
    rmSync(directory, { recursive: true, force: true });
  }
}

function chosenPeers(direct: boolean): ServerKind[] {
  const named = values.peers?.split(",");
  return CONTESTANTS.filter((kind) => {
    if (kind === OURS) return true;
    if (direct) return kind === QEMU_THREADS;
    return named === undefined ? kind !== CEILING : named.includes(kind.name);
  });
}

const wanted = LOADS.filter(({ name }) => values.only === undefined || new RegExp(values.only).test(name));
const version = run("qemu-nbd", ["--version"], false, tmpdir()).stdout.split("\n")[0] ?? "";
const warning = reportedMemoryWarning();
if (warning !== undefined) console.log(warning);
console.log(
  `# ${version}; Node ${process.version}; Linux ${release()}; ${cpus().length} cores; ${values.unix ? "Unix sockets" : "TCP"}; load ${loadavg()[0]}`,
);
console.log("| load | server | rate | zcow / it | goal | server CPU a request | p99 ms | missed |");
console.log("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |");
const results = [
  ...(await compare(
    wanted.filter((load) => load.direct !== true),
    false,
    resolve(values.directory),
  )),
  ...(await compare(
    wanted.filter((load) => load.direct === true),
    true,
    resolve(values["disk-directory"]),
  )),
];
const machine = {
  sockets: values.unix ? "unix" : "tcp",
  version,
  node: process.version,
  linux: release(),
  cores: cpus().length,
  load: loadavg(),
};
const file = values.json ?? join(import.meta.dirname, `../../bench/results/local/nbd-${Date.now()}.json`);
mkdirSync(dirname(resolve(file)), { recursive: true });
writeFileSync(file, `${JSON.stringify({ date: new Date().toISOString(), machine, results }, undefined, 1)}\n`);
console.log(`\nresults: ${file}`);
