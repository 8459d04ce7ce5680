import { writeSync } from "node:fs";
import { Random } from "../support/random.js";
import { exerciseImage } from "./exercise.js";
import { type ChildOrder, type ChildReport, MEMORY_LIMIT_MIB, SLOW_CASE_MS } from "./fuzz-protocol.js";
import { goodImages } from "./good-images.js";
import { applyDamages, type Damage, randomDamages } from "./mutations.js";

/**
 * Runs fuzz cases in a process of its own, so that a hang or a crash costs one case and the memory of the process is the
 * memory of the product. Says on stdout which case it begins before it begins it.
 */
const order = JSON.parse(process.argv[2] ?? "") as ChildOrder;
const CASES_PER_COLLECTION = 4;
const collectGarbage = (globalThis as { gc?: () => void }).gc;
let current = -1;
let failedCase = -1;

function say(report: ChildReport): void {
  writeSync(1, `${JSON.stringify(report)}\n`);
}

function fail(index: number, problem: string, damages: readonly Damage[], image: Uint8Array | undefined): void {
  failedCase = index;
  const what = damages.map((damage) => damage.what);
  say({ kind: "failed", index, problem, damages: what, image: image && Buffer.from(image).toString("base64") });
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? "" : `\ncaused by ${describe(error.cause)}`;
  return `${error.stack ?? error.message}${cause}`;
}

process.on("unhandledRejection", (error) => fail(current, `unhandled rejection: ${describe(error)}`, [], undefined));

/** The failure of a set of damages, or undefined. */
async function attempt(good: Uint8Array, damages: readonly Damage[], seed: number): Promise<string | undefined> {
  const started = Date.now();
  try {
    await exerciseImage(applyDamages(good, damages), new Random(seed));
  } catch (error) {
    return describe(error);
  }
  const spent = Date.now() - started;
  return spent > SLOW_CASE_MS ? `took ${spent} ms` : undefined;
}

/** Leaves out every damage that the failure does not need. */
async function minimise(good: Uint8Array, damages: Damage[], seed: number): Promise<Damage[]> {
  let kept = damages;
  for (const damage of damages) {
    const fewer = kept.filter((other) => other !== damage);
    if (fewer.length > 0 && (await attempt(good, fewer, seed)) !== undefined) kept = fewer;
  }
  return kept;
}

const images = await goodImages();
say({ kind: "ready", images: images.map((image) => image.name) });
for (current = order.from; current < order.to; current++) {
  say({ kind: "begin", index: current });
  const random = new Random(order.seed + current);
  const image = random.pick(images);
  const damages = randomDamages(random, image.bytes, image.pointerTable);
  const seed = random.u32();
  const problem = await attempt(image.bytes, damages, seed);
  await new Promise((resolve) => setImmediate(resolve));
  // The peak is to be that of a case, not of what thousands before it left to be collected.
  if (current % CASES_PER_COLLECTION === 0) collectGarbage?.();
  if (problem !== undefined) {
    const fewest = await minimise(image.bytes, damages, seed);
    fail(current, `${image.name}: ${problem}`, fewest, applyDamages(image.bytes, fewest));
  }
  const peak = process.resourceUsage().maxRSS / 1024;
  if (peak > MEMORY_LIMIT_MIB) {
    fail(current, `${image.name}: peak memory ${Math.round(peak)} MiB`, damages, applyDamages(image.bytes, damages));
    break;
  }
}
say({ kind: "done", peakMiB: Math.round(process.resourceUsage().maxRSS / 1024), lastFailure: failedCase });
