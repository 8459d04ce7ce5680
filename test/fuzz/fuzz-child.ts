import { readFileSync, writeFileSync, writeSync } from "node:fs";
import { Random } from "../support/random.js";
import { type ChildOrder, type ChildReport, MEMORY_LIMIT_MIB, SLOW_CASE_MS } from "./fuzz-protocol.js";
import { casesOf, type FuzzCase, useFolder } from "./kinds.js";

/**
 * Runs fuzz cases in a process of its own, so that a hang or a crash costs one case and the memory of the process is the
 * memory of the product. Says on stdout which case it begins before it begins it.
 */
const order = JSON.parse(process.argv[2] ?? "") as ChildOrder;
const CASES_PER_COLLECTION = 16;
const collectGarbage = (globalThis as { gc?: () => void }).gc;
let current = -1;
let currentKind = "";

function say(report: ChildReport): void {
  writeSync(1, `${JSON.stringify(report)}\n`);
}

function fail(problem: string, damages: FuzzCase["damages"], found?: FuzzCase): void {
  const what = damages.map((damage) => damage.what);
  const kept = found?.keep(damages);
  say({ kind: "failed", failure: { index: current, kind: currentKind, problem, damages: what, kept } });
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? "" : `\ncaused by ${describe(error.cause)}`;
  return `${error.stack ?? error.message}${cause}`;
}

process.on("unhandledRejection", (error) => fail(`unhandled rejection: ${describe(error)}`, []));

/** The kernel forgets the peak so far; where it cannot, the peak is that of the whole process. */
function forgetPeak(): void {
  try {
    writeFileSync("/proc/self/clear_refs", "5");
  } catch {
    // Not Linux.
  }
}

function peakMiB(): number {
  try {
    const line = /VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "latin1"));
    if (line !== null) return Number(line[1]) / 1024;
  } catch {
    // Not Linux.
  }
  return process.resourceUsage().maxRSS / 1024;
}

function busyMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** What is wrong with the outcome of a case with these damages, or undefined. */
async function attempt(found: FuzzCase, damages: FuzzCase["damages"]): Promise<string | undefined> {
  const started = busyMs();
  forgetPeak();
  try {
    await found.run(damages);
    await new Promise((resolve) => setImmediate(resolve));
  } catch (error) {
    return describe(error);
  }
  const spent = busyMs() - started;
  if (spent > SLOW_CASE_MS) return `took ${Math.round(spent)} ms of processor time`;
  const peak = peakMiB();
  return peak > MEMORY_LIMIT_MIB ? `peak memory ${Math.round(peak)} MiB` : undefined;
}

/** Failures of memory count when they happen with nothing left over from earlier cases. */
async function confirmed(found: FuzzCase, damages: FuzzCase["damages"]): Promise<string | undefined> {
  const problem = await attempt(found, damages);
  if (problem === undefined || !problem.startsWith("peak")) return problem;
  collectGarbage?.();
  return attempt(found, damages);
}

/** Leaves out every damage that the failure does not need. */
async function minimise(found: FuzzCase): Promise<FuzzCase["damages"]> {
  let kept = found.damages;
  for (const damage of found.damages) {
    const fewer = kept.filter((other) => other !== damage);
    if (fewer.length > 0 && (await confirmed(found, fewer)) !== undefined) kept = fewer;
  }
  return kept;
}

useFolder(order.folder);
const makers = [];
for (const kind of order.kinds) makers.push({ kind, make: await casesOf(kind) });
// What making the images left behind is none of the cases'.
collectGarbage?.();
say({ kind: "ready" });
let highest = 0;
for (current = order.from; current < order.to; current++) {
  say({ kind: "begin", index: current });
  const random = new Random(order.seed + current);
  // One kind alone draws nothing, so that its cases stay what they are.
  const { kind, make } = makers.length === 1 ? (makers[0] as (typeof makers)[0]) : random.pick(makers);
  currentKind = kind;
  const found = make(random);
  const problem = await confirmed(found, found.damages);
  // Heavy ones are measured again, alone.
  const isHeavy = !order.alone && problem?.startsWith("peak") === true;
  if (!isHeavy) highest = Math.max(highest, peakMiB());
  // The peak is to be that of a case, not of what thousands before it left to be collected.
  if (current % CASES_PER_COLLECTION === 0) collectGarbage?.();
  if (isHeavy) say({ kind: "heavy", index: current });
  else if (problem !== undefined) fail(`${found.image}: ${problem}`, await minimise(found), found);
}
say({ kind: "done", peakMiB: Math.round(highest) });
