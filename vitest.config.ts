import { defineConfig } from "vitest/config";

const folders = "{unit,conformance,interop,crash,property,fuzz,e2e}";
const longSuites = "**/*.long.test.ts";
const runLongSuites = process.env["ZCOW_LONG"] === "1";

export default defineConfig({
  test: {
    include: runLongSuites ? [`test/${folders}/${longSuites}`] : [`test/${folders}/**/*.test.ts`],
    exclude: runLongSuites ? [] : [longSuites],
    // One process per file: tests load a native helper and take file locks, which threads would share.
    pool: "forks",
    isolate: true,
    maxWorkers: 2,
    testTimeout: runLongSuites ? 30 * 60_000 : 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 10_000,
    // A slow machine must not turn a passing test into a report line.
    slowTestThreshold: 5_000,
    allowOnly: process.env["CI"] === undefined,
    passWithNoTests: false,
  },
});
