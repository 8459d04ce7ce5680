import type { ToolResult } from "./stock-tools.js";

/** Command lines of the stock tools as words, and what the tools print without what differs from run to run. */

/** Shell-like words: quotes keep spaces together. */
export function wordsOf(line: string): string[] {
  return [...line.matchAll(/'([^']*)'|(\S+)/g)].map((match) => match[1] ?? match[2] ?? "");
}

/** Rates and times of requests differ; everything else must be equal to the letter. */
export function withoutTimes(result: ToolResult): ToolResult {
  const stdout = result.stdout
    .replaceAll(/\([0-9.]+ (?:bytes|[KMGTPE]iB)\/sec and [0-9.]+ ops\/sec\)/g, "(RATE)")
    .replaceAll(/ops; (?:[0-9.]+ sec|[0-9:.]+) /g, "ops; TIME ")
    .replaceAll(/,\d:\d\d:\d\d\.\d\d,[\d.]+,[\d.]+$/gm, ",TIMES");
  return { ...result, stdout };
}

/** How long `bench` took, and when snapshots were taken. */
export function withoutRunTimesAndDates(result: ToolResult): ToolResult {
  const stdout = result.stdout
    .replaceAll(/in [0-9.]+ seconds/g, "in T seconds")
    .replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g, "DATE");
  return { ...result, stdout };
}
