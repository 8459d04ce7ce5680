// `npm test`: sets up what is missing, runs the tests, closes with a line that counts them.
// `--long` runs the long suites instead. Other arguments go to vitest: `npm test -- test/unit/base`.
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PROJECT_ROOT, passThrough } from "./run-command.mjs";
import { setUp } from "./setup.mjs";

/**
 * @typedef {object} VitestReport
 * @property {number} numPassedTests
 * @property {number} numFailedTests
 * @property {number} numPendingTests
 * @property {number} numTodoTests
 * @property {{ status: string, assertionResults: { status: string }[] }[]} testResults
 */

/** @param {VitestReport} report */
function count(report) {
  // A file that cannot be loaded, or whose hooks fail, has no failed test to its name, yet it failed.
  const brokenFiles = report.testResults.filter(
    (file) => file.status === "failed" && !file.assertionResults.some((test) => test.status === "failed"),
  );
  return {
    passed: report.numPassedTests,
    failed: report.numFailedTests + brokenFiles.length,
    skipped: report.numPendingTests + report.numTodoTests,
  };
}

/** @param {string} path */
function readCounts(path) {
  return existsSync(path) ? count(JSON.parse(readFileSync(path, "utf8"))) : { passed: 0, failed: 1, skipped: 0 };
}

const [long, args] = [process.argv.includes("--long"), process.argv.slice(2).filter((arg) => arg !== "--long")];
try {
  await setUp({ stockTools: true });
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  console.log("0 passed, 1 failed");
  process.exit(1);
}

const folder = mkdtempSync(join(tmpdir(), "zcow-report-"));
const reportPath = join(folder, "report.json");
const vitest = join(PROJECT_ROOT, "node_modules/vitest/vitest.mjs");
const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${reportPath}`];
const env = { ...process.env, ...(long ? { ZCOW_LONG: "1" } : {}) };
let code = passThrough(process.execPath, [vitest, "run", ...reporters, ...args], { env });
const { passed, failed, skipped } = readCounts(reportPath);
rmSync(folder, { recursive: true, force: true });

if (skipped > 0 && process.env["CI"]) {
  console.error(`${skipped} tests were skipped; in CI every test must run.`);
  code ||= 1;
}
// Errors outside any test make vitest fail without a failed test; the line must not look clean then.
const strayErrors = code !== 0 && failed === 0 && skipped === 0 ? 1 : 0;
console.log(`${passed} passed, ${failed + strayErrors} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
process.exitCode = code !== 0 || failed > 0 ? 1 : 0;
