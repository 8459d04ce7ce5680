import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { build } from "esbuild";
import { type ChildReport, type FuzzFailure, HUNG_CASE_MS } from "./fuzz-protocol.js";

export interface FuzzResult {
  readonly cases: number;
  readonly failures: readonly FuzzFailure[];
  readonly peakMiB: number;
}

export interface FuzzOptions {
  readonly seed: number;
  readonly cases: number;
  /** First case; with `cases: 1` repeats one. */
  readonly from?: number;
}

/** Runs the cases in child processes; a child that hangs or dies is a failure of its case, and the next case gets a new child. */
export async function runFuzz(options: FuzzOptions): Promise<FuzzResult> {
  const directory = mkdtempSync(join(tmpdir(), "zcow-fuzz-"));
  try {
    const script = join(directory, "fuzz-child.mjs");
    await build({
      entryPoints: [join(import.meta.dirname, "fuzz-child.ts")],
      outfile: script,
      bundle: true,
      platform: "node",
      target: "node20.19",
      format: "esm",
      external: ["koffi"],
      sourcemap: "inline",
      logLevel: "warning",
    });
    return await runAll(script, options);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function runAll(script: string, options: FuzzOptions): Promise<FuzzResult> {
  const failures: FuzzFailure[] = [];
  let peakMiB = 0;
  const first = options.from ?? 0;
  const end = first + options.cases;
  for (let from = first; from < end; ) {
    const part = await runChild(script, options.seed, from, end);
    failures.push(...part.failures);
    peakMiB = Math.max(peakMiB, part.peakMiB);
    from = part.next;
  }
  return { cases: options.cases, failures, peakMiB };
}

interface ChildPart {
  readonly failures: FuzzFailure[];
  /** The first case that was not run. */
  readonly next: number;
  readonly peakMiB: number;
}

function runChild(script: string, seed: number, from: number, to: number): Promise<ChildPart> {
  return new Promise((resolve, reject) => {
    const failures: FuzzFailure[] = [];
    let current = from;
    let done: number | undefined;
    let hung = false;
    const child = spawn(
      process.execPath,
      ["--enable-source-maps", "--expose-gc", script, JSON.stringify({ seed, from, to })],
      {
        stdio: ["ignore", "pipe", "pipe"],
        // The script is bundled elsewhere; the optional packages are here.
        env: { ...process.env, NODE_PATH: join(import.meta.dirname, "../../node_modules") },
      },
    );
    const hang = (): void => {
      hung = true;
      child.kill("SIGKILL");
    };
    let watchdog = setTimeout(hang, HUNG_CASE_MS);
    let errors = "";
    child.stderr.on("data", (chunk: Uint8Array) => {
      errors = (errors + String(chunk)).slice(-4000);
    });
    createInterface({ input: child.stdout }).on("line", (line) => {
      clearTimeout(watchdog);
      watchdog = setTimeout(hang, HUNG_CASE_MS);
      const report = JSON.parse(line) as ChildReport;
      if (report.kind === "begin") current = report.index;
      else if (report.kind === "failed") failures.push(report);
      else if (report.kind === "done") done = report.peakMiB;
    });
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearTimeout(watchdog);
      if (done === undefined) {
        const problem = hung
          ? `no answer for ${HUNG_CASE_MS} ms`
          : `the process ended with ${code ?? signal}: ${errors}`;
        failures.push({ index: current, problem, damages: [] });
      }
      resolve({ failures, next: current + 1, peakMiB: done ?? 0 });
    });
  });
}

/** One failure for a person: what to run to see it again. */
export function describeFailure(seed: number, failure: FuzzFailure): string {
  const damages = failure.damages.map((damage) => `  - ${damage}`).join("\n");
  return `case ${failure.index} of seed ${seed} (repeat: ZCOW_SEED=${seed} ZCOW_FUZZ_CASE=${failure.index})\n${damages}\n${failure.problem}`;
}
