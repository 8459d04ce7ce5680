import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { allCases, type Case, type Goal } from "./cases.js";
import { run, type Sample } from "./contestants.js";
import { convertCases } from "./convert-cases.js";
import { reportedMemoryWarning } from "./host-memory.js";
import { BenchImages } from "./images.js";
import { median, shuffled } from "./statistics.js";

/** Runs the cases against the stock tools, alternating in a new order every round, and prints ratios of medians. */

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "7" },
    only: { type: "string" },
    scale: { type: "string", default: "1" },
    directory: { type: "string" },
    json: { type: "string" },
  },
});

interface Measured {
  readonly samples: Sample[];
}

interface Row {
  readonly name: string;
  readonly peer: string;
  readonly ourSeconds: number;
  readonly peerSeconds: number;
  /** Peer time / our time: above 1 we are faster. */
  readonly ratio: number;
  readonly goal: Goal;
  readonly reached: boolean;
  readonly requests: number;
  /** User and system time of the whole process per request, start included: hardly affected by other load. */
  readonly ourCpuMicroseconds: number;
  readonly peerCpuMicroseconds: number;
  readonly ourPeakMiB: number;
  readonly peerPeakMiB: number;
  readonly samples: { readonly ours: readonly Sample[]; readonly peer: readonly Sample[] };
}

function hasIoUring(images: BenchImages): boolean {
  try {
    const image = images.empty("probe", 1024 * 1024);
    run("qemu-img", ["bench", "-f", "qcow2", "-c", "1", "-i", "io_uring", image], false, images.directory);
    return true;
  } catch {
    return false;
  }
}

function measure(one: Case, rounds: number): Row[] {
  const measured = new Map<string, Measured>();
  const contestants = [{ name: "", run: one.ours }, ...one.peers];
  for (let round = 0; round < rounds; round++) {
    for (const contestant of shuffled(contestants)) {
      one.prepare?.();
      const entry = measured.get(contestant.name) ?? { samples: [] };
      entry.samples.push(contestant.run());
      measured.set(contestant.name, entry);
    }
  }
  const ours = measured.get("")?.samples ?? [];
  return one.peers.map((peer) => summarise(one, peer, ours, measured.get(peer.name)?.samples ?? []));
}

function summarise(one: Case, peer: Case["peers"][number], ours: Sample[], theirs: Sample[]): Row {
  const ourSeconds = median(ours.map((sample) => sample.seconds));
  const peerSeconds = median(theirs.map((sample) => sample.seconds));
  const ratio = peerSeconds / ourSeconds;
  const extra = (ourSeconds - peerSeconds) * 1000;
  return {
    name: one.name,
    peer: peer.name,
    ourSeconds,
    peerSeconds,
    ratio,
    goal: peer.goal,
    reached: "ratio" in peer.goal ? ratio >= peer.goal.ratio : extra <= peer.goal.extraMilliseconds,
    requests: one.requests,
    ourCpuMicroseconds: cpuPerRequest(ours, one.requests),
    peerCpuMicroseconds: cpuPerRequest(theirs, one.requests),
    ourPeakMiB: median(ours.map((sample) => sample.peakMiB ?? Number.NaN)),
    peerPeakMiB: median(theirs.map((sample) => sample.peakMiB ?? Number.NaN)),
    samples: { ours, peer: theirs },
  };
}

function cpuPerRequest(samples: readonly Sample[], requests: number): number {
  return (median(samples.map((sample) => sample.cpuSeconds ?? Number.NaN)) / requests) * 1e6;
}

function cpuText(microseconds: number): string {
  return microseconds < 1000 ? `${microseconds.toFixed(1)} us` : `${(microseconds / 1000).toFixed(0)} ms`;
}

function speed(seconds: number, requests: number): string {
  return requests === 1 ? `${(seconds * 1000).toFixed(1)} ms` : `${Math.round(requests / seconds / 1000)} k/s`;
}

function goalText(row: Row): string {
  if ("ratio" in row.goal) return `>= ${row.goal.ratio.toFixed(2)}`;
  return `<= +${row.goal.extraMilliseconds} ms (+${((row.ourSeconds - row.peerSeconds) * 1000).toFixed(1)})`;
}

function line(row: Row): string {
  const cells = [
    row.name,
    speed(row.ourSeconds, row.requests),
    `${row.peer}: ${speed(row.peerSeconds, row.requests)}`,
    row.ratio.toFixed(2),
    goalText(row),
    row.reached ? "yes" : "NO",
    `${cpuText(row.ourCpuMicroseconds)} / ${cpuText(row.peerCpuMicroseconds)}`,
    `${row.ourPeakMiB.toFixed(0)} / ${row.peerPeakMiB.toFixed(0)}`,
  ];
  return `| ${cells.join(" | ")} |`;
}

/** Whole images are copied in memory: a disk would be what is measured. */
const MEMORY_DIRECTORY = "/dev/shm";
const converting = positionals[0] === "convert";
const parent = values.directory ?? (converting && existsSync(MEMORY_DIRECTORY) ? MEMORY_DIRECTORY : tmpdir());
const directory = mkdtempSync(join(resolve(parent), "zcow-bench-"));
try {
  const zcow = resolve(import.meta.dirname, "../cli/zcow.js");
  const images = new BenchImages(directory, zcow);
  const context = { images, directory, zcow, ioUring: hasIoUring(images), scale: Number(values.scale) };
  const peerVersion = run("qemu-img", ["--version"], false, directory).stdout.split("\n")[0] ?? "";
  console.log(
    `# ${peerVersion}; Node ${process.version}; Linux ${release()}; ${cpus().length} cores; load ${loadavg()[0]}`,
  );
  const warning = reportedMemoryWarning();
  if (warning !== undefined) console.log(warning);
  console.log(
    "| case | zcow | peer | ratio | goal | reached | CPU per request zcow / peer | peak MiB zcow / peer |\n|---|---|---|---|---|---|---|---|",
  );
  const rows: Row[] = [];
  for (const one of converting ? convertCases(context) : allCases(context)) {
    if (values.only !== undefined && !one.name.includes(values.only)) continue;
    const measured = measure(one, Number(values.rounds));
    rows.push(...measured);
    for (const row of measured) console.log(line(row));
    if (one.remark !== undefined) console.log(one.remark());
  }
  const file = values.json ?? join(import.meta.dirname, `../../bench/results/local/${Date.now()}.json`);
  mkdirSync(resolve(file, ".."), { recursive: true });
  const machine = { peerVersion, node: process.version, linux: release(), cores: cpus().length, load: loadavg() };
  writeFileSync(file, `${JSON.stringify({ date: new Date().toISOString(), machine, rows }, undefined, 1)}\n`);
  console.log(`\nresults: ${file}`);
} finally {
  rmSync(directory, { recursive: true, force: true });
}
