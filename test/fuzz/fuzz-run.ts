import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { build } from "esbuild";
import { type ChildOrder, type ChildReport, type FuzzFailure, HUNG_CASE_MS } from "./fuzz-protocol.js";

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
  /** The kinds that cases are drawn from; default `core` alone. */
  readonly kinds?: readonly string[];
  /** Told of each failure as it is found, and of every hundredth case. */
  readonly onFailure?: (failure: FuzzFailure) => void;
  readonly onProgress?: (next: number) => void;
}

const HERE = import.meta.dirname;
/** A journal costs more than what is fuzzed. */
const MEMORY_FOLDER = "/dev/shm";

/** Runs the cases in child processes; a child that hangs or dies is a failure of its case, and the next case gets a new child. */
export async function runFuzz(options: FuzzOptions): Promise<FuzzResult> {
  const directory = mkdtempSync(join(tmpdir(), "zcow-fuzz-"));
  const images = mkdtempSync(join(existsSync(MEMORY_FOLDER) ? MEMORY_FOLDER : directory, "zcow-fuzz-"));
  try {
    const script = join(directory, "fuzz-child.mjs");
    await build({
      entryPoints: [join(HERE, "fuzz-child.ts")],
      outfile: script,
      bundle: true,
      platform: "node",
      target: "node20.19",
      format: "esm",
      external: ["koffi"],
      sourcemap: "inline",
      logLevel: "warning",
    });
    return await runAll(script, images, options);
  } finally {
    rmSync(images, { recursive: true, force: true });
    rmSync(directory, { recursive: true, force: true });
  }
}

async function runAll(script: string, folder: string, options: FuzzOptions): Promise<FuzzResult> {
  const failures: FuzzFailure[] = [];
  let peakMiB = 0;
  const { seed, kinds = ["core"] } = options;
  const first = options.from ?? 0;
  const end = first + options.cases;
  for (let from = first; from < end; ) {
    const part = await runChild(script, { seed, kinds, from, to: end, folder, alone: false }, options);
    failures.push(...part.failures);
    peakMiB = Math.max(peakMiB, part.peakMiB);
    from = part.next;
    // What earlier cases left behind counts in the memory of a process: whether it was the case is told by a process of its own.
    for (const index of part.heavy) {
      const again = await runChild(script, { seed, kinds, from: index, to: index + 1, folder, alone: true }, options);
      failures.push(...again.failures);
      peakMiB = Math.max(peakMiB, again.peakMiB);
    }
  }
  return { cases: options.cases, failures, peakMiB };
}

interface ChildPart {
  readonly failures: FuzzFailure[];
  /** The first case that was not run. */
  readonly next: number;
  readonly heavy: readonly number[];
  readonly peakMiB: number;
}

function runChild(script: string, order: ChildOrder, { onFailure, onProgress }: FuzzOptions): Promise<ChildPart> {
  return new Promise((resolve, reject) => {
    const failures: FuzzFailure[] = [];
    const failed = (failure: FuzzFailure): void => {
      failures.push(failure);
      onFailure?.(failure);
    };
    const heavy: number[] = [];
    let current = order.from;
    let done: number | undefined;
    let hung = false;
    const child = spawn(process.execPath, ["--enable-source-maps", "--expose-gc", script, JSON.stringify(order)], {
      stdio: ["ignore", "pipe", "pipe"],
      // The script is bundled elsewhere; the optional packages and the images are here.
      env: {
        ...process.env,
        NODE_PATH: join(HERE, "../../node_modules"),
        ZCOW_FUZZ_CORPUS: join(HERE, "../corpus/good"),
        // Memory that is free again goes back to the system, so that what thousands of cases left behind is not taken for one's.
        MALLOC_ARENA_MAX: "2",
        MALLOC_MMAP_THRESHOLD_: "65536",
        MALLOC_TRIM_THRESHOLD_: "65536",
      },
    });
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
      if (report.kind === "begin") {
        current = report.index;
        if (current % 100 === 0) onProgress?.(current);
      } else if (report.kind === "heavy") heavy.push(report.index);
      else if (report.kind === "failed") failed(report.failure);
      else if (report.kind === "done") done = report.peakMiB;
    });
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearTimeout(watchdog);
      if (done === undefined) {
        const problem = hung
          ? `no answer for ${HUNG_CASE_MS} ms`
          : `the process ended with ${code ?? signal}: ${errors}`;
        failed({ index: current, kind: order.kinds.join(","), problem, damages: [] });
      }
      resolve({ failures, next: current + 1, peakMiB: done ?? 0, heavy });
    });
  });
}

/** One failure for a person: what to run to see it again. */
export function describeFailure(seed: number, kinds: readonly string[], failure: FuzzFailure): string {
  const damages = failure.damages.map((damage) => `  - ${damage}`).join("\n");
  const repeat = `npm run fuzz -- --seed ${seed} --kind ${kinds.join(",")} --case ${failure.index}`;
  return `case ${failure.index} of seed ${seed}, ${failure.kind} (repeat: ${repeat})\n${damages}\n${failure.problem}`;
}
