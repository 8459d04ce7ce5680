import { defineConfig } from "vitest/config";

// The tests in a Linux guest (`npm run test:guest`): minutes long, and one guest at a time.
export default defineConfig({
  test: {
    root: import.meta.dirname,
    include: ["**/*.guest.test.ts"],
    pool: "forks",
    maxWorkers: 1,
    fileParallelism: false,
    testTimeout: 15 * 60_000,
    // The first boot builds the guest.
    hookTimeout: 15 * 60_000,
    teardownTimeout: 30_000,
    slowTestThreshold: 60_000,
    allowOnly: process.env["CI"] === undefined,
    passWithNoTests: false,
  },
});
