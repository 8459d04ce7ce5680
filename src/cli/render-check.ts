import type { CheckFinding, CheckResult } from "../formats/qcow2/check/check-result.js";

/** The words of `qemu-img check`. Findings go to standard error, totals to standard output. */

/** One finding, as a line of standard error. `program` is the name the command was called by. */
export function findingLine(finding: CheckFinding, program: string): string {
  const prefixed = finding.kind === "snapshot-table" && finding.severity === "error";
  return `${prefixed ? `${program}: ` : ""}${finding.message}\n`;
}

/** Standard output of a check without `--output json`. */
export function checkText(result: CheckResult): string {
  return `${repairText(result)}${result.failure === undefined ? totalsText(result) : ""}`;
}

/** Why the check counts as failed, for standard error behind the name of the program; undefined when it did not. */
export function checkFailureText(result: CheckResult): string | undefined {
  if (result.failure !== undefined) return `Check failed: ${result.failure}`;
  return result.checkErrors > 0 ? "Check failed" : undefined;
}

function repairText(result: CheckResult): string {
  if (result.corruptionsFixed === 0 && result.leaksFixed === 0) return "";
  return (
    "The following inconsistencies were found and repaired:\n\n" +
    `    ${result.leaksFixed} leaked clusters\n    ${result.corruptionsFixed} corruptions\n\n` +
    "Double checking the fixed image now...\n"
  );
}

function totalsText(result: CheckResult): string {
  return errorsText(result) + allocationText(result) + endText(result);
}

function errorsText({ corruptions, leaks, checkErrors }: CheckResult): string {
  if (corruptions + leaks + checkErrors === 0) return "No errors were found on the image.\n";
  let text = "";
  if (corruptions > 0) {
    text +=
      `\n${corruptions} errors were found on the image.\n` +
      "Data may be corrupted, or further writes to the image may corrupt it.\n";
  }
  if (leaks > 0) {
    text +=
      `\n${leaks} leaked clusters were found on the image.\n` +
      "This means waste of disk space, but no harm to data.\n";
  }
  if (checkErrors > 0) text += `\n${checkErrors} internal errors have occurred during the check.\n`;
  return text;
}

/** With two decimals, halves rounded to even as C does; `toFixed` rounds them up. */
function percent(part: number, whole: number): string {
  const value = (part * 100) / whole;
  const hundredths = Math.floor(value * 100);
  const isTie = value * 8 === Math.floor(value * 8) && value * 100 - hundredths === 0.5;
  return isTie && hundredths % 2 === 0 ? (hundredths / 100).toFixed(2) : value.toFixed(2);
}

function allocationText(result: CheckResult): string {
  const { totalClusters, allocatedClusters, fragmentedClusters, compressedClusters } = result;
  if (totalClusters === 0 || allocatedClusters === 0) return "";
  return (
    `${allocatedClusters}/${totalClusters} = ${percent(allocatedClusters, totalClusters)}% allocated, ` +
    `${percent(fragmentedClusters, allocatedClusters)}% fragmented, ` +
    `${percent(compressedClusters, allocatedClusters)}% compressed clusters\n`
  );
}

function endText({ imageEndOffset }: CheckResult): string {
  return imageEndOffset === 0 ? "" : `Image end offset: ${imageEndOffset}\n`;
}

/** The value behind `--output json`, keys in the order of the stock tool, which leaves out counts of 0. */
export function checkTree(
  result: CheckResult,
  filename: string,
  format: string,
): Readonly<Record<string, number | string>> {
  const counts: readonly (readonly [key: string, count: number])[] = [
    ["image-end-offset", result.imageEndOffset],
    ["total-clusters", result.totalClusters],
    ["corruptions-fixed", result.corruptionsFixed],
    ["fragmented-clusters", result.fragmentedClusters],
    ["corruptions", result.corruptions],
    ["check-errors", result.checkErrors],
    ["leaks", result.leaks],
    ["leaks-fixed", result.leaksFixed],
    ["compressed-clusters", result.compressedClusters],
    ["allocated-clusters", result.allocatedClusters],
  ];
  const tree: Record<string, number | string> = {};
  for (const [key, count] of counts) {
    if (count !== 0 || key === "check-errors") tree[key] = count;
  }
  return { ...tree, filename, format };
}
