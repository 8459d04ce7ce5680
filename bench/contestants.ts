import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** One run of one program. */
export interface Sample {
  /** Time of the measured part. */
  readonly seconds: number;
  /** Peak resident memory of the whole process; undefined where GNU time is missing. */
  readonly peakMiB: number | undefined;
  /** CPU time of the whole process, user and system. */
  readonly cpuSeconds: number | undefined;
}

export type Contestant = () => Sample;

/** A row of requests, as `qemu-img bench` and the subject understand it. */
export interface RequestRow {
  readonly image: string;
  readonly kind: "read" | "write" | "append";
  readonly count: number;
  readonly depth: number;
  /** Bytes per request. */
  readonly size: number;
  /** Bytes from one request's start to the next one's, modulo the disk. */
  readonly step: number;
  /** Past the page cache. */
  readonly direct?: boolean;
}

const GNU_TIME = "/usr/bin/time";

/**
 * The child's environment. An extra certificate file costs Node 20 some 35 ms at every start. Direct reads wait for the disk
 * in the thread pool, and on Node 20 an ES module comes too late to choose its size.
 */
function environment(): NodeJS.ProcessEnv {
  const { NODE_EXTRA_CA_CERTS: _dropped, NODE_OPTIONS: _options, ...rest } = process.env;
  return { ...rest, LC_ALL: "C", UV_THREADPOOL_SIZE: "32" };
}

interface Finished {
  readonly stdout: string;
  readonly wallSeconds: number;
  readonly peakMiB: number | undefined;
  readonly cpuSeconds: number | undefined;
}

/** Runs a program; `measured` wraps it in GNU time, which adds a millisecond to the wall clock. */
export function run(command: string, args: readonly string[], measured: boolean, workDirectory: string): Finished {
  const report = join(workDirectory, "time.txt");
  const [program, all] = measured
    ? [GNU_TIME, ["-q", "-f", "%M %U %S", "-o", report, command, ...args]]
    : [command, [...args]];
  const start = process.hrtime.bigint();
  const result = spawnSync(program, all, { env: environment(), encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  const wallSeconds = Number(process.hrtime.bigint() - start) / 1e9;
  if (result.error !== undefined) throw result.error;
  if (result.status !== 0) {
    throw new Error(`${command} ${args.join(" ")} exited with ${result.status}: ${result.stderr}${result.stdout}`);
  }
  if (!measured) return { stdout: result.stdout, wallSeconds, peakMiB: undefined, cpuSeconds: undefined };
  const [kib, user, system] = readFileSync(report, "utf8").trim().split(" ").map(Number) as [number, number, number];
  return { stdout: result.stdout, wallSeconds, peakMiB: kib / 1024, cpuSeconds: user + system };
}

/** Requests through the public API, in a process of its own. */
export function subject(row: RequestRow, workDirectory: string): Sample {
  const script = join(import.meta.dirname, "subject.cjs");
  const done = run(process.execPath, [script, JSON.stringify(row)], true, workDirectory);
  return { ...done, seconds: (JSON.parse(done.stdout) as { seconds: number }).seconds };
}

/** The same requests by `qemu-img bench`. */
export function qemuBench(row: RequestRow, workDirectory: string, aio?: "io_uring" | "native"): Sample {
  const args = ["bench", "-f", "qcow2", "-c", String(row.count), "-d", String(row.depth), "-s", String(row.size)];
  args.push("-S", String(row.step), "-t", row.direct === true ? "none" : "writeback");
  if (row.kind !== "read") args.push("-w");
  if (aio !== undefined) args.push("-i", aio);
  const done = run("qemu-img", [...args, row.image], true, workDirectory);
  const seconds = /Run completed in ([0-9.]+) seconds/.exec(done.stdout)?.[1];
  if (seconds === undefined) throw new Error(`qemu-img bench printed no time: ${done.stdout}`);
  return { ...done, seconds: Number(seconds) };
}

/** A whole process from start to exit. Memory comes from a second run, so that measuring it costs no time. */
export function wholeProcess(command: string, args: readonly string[], workDirectory: string): Sample {
  const timed = run(command, args, false, workDirectory);
  const weighed = run(command, args, true, workDirectory);
  return { seconds: timed.wallSeconds, peakMiB: weighed.peakMiB, cpuSeconds: weighed.cpuSeconds };
}

/** A whole process that takes long enough for the wrapper that weighs it not to matter. */
export function longProcess(command: string, args: readonly string[], workDirectory: string): Sample {
  const done = run(command, args, true, workDirectory);
  return { seconds: done.wallSeconds, peakMiB: done.peakMiB, cpuSeconds: done.cpuSeconds };
}
