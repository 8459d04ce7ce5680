/** A server in the background: the parent stays until the child serves, so that what goes wrong before is the parent's failure. */
import { spawn } from "node:child_process";
import { closeSync, openSync, writeSync } from "node:fs";
import { EXIT_FAILURE } from "./failure.js";

/** Tells the child which descriptor to report on. */
const READY_VARIABLE = "ZCOW_READY_DESCRIPTOR";
const READY_DESCRIPTOR = 3;
const READY_BYTE = 1;
const STDERR = 2;

/** Runs this program again, detached, without the option `--fork`; resolves to the exit status of the parent. */
export function runDetached(args: readonly string[]): Promise<number> {
  const script = process.argv[1] ?? "";
  const child = spawn(process.execPath, [...process.execArgv, script, ...args.filter((arg) => arg !== "--fork")], {
    argv0: process.argv0,
    detached: true,
    env: { ...process.env, [READY_VARIABLE]: String(READY_DESCRIPTOR) },
    // Standard error is kept until the child serves: that is where it says what is wrong.
    stdio: ["ignore", "ignore", "inherit", "pipe"],
  });
  return new Promise((resolve) => {
    child.once("error", () => resolve(EXIT_FAILURE));
    child.once("exit", () => resolve(EXIT_FAILURE));
    child.stdio[READY_DESCRIPTOR]?.once("data", () => {
      child.unref();
      resolve(0);
      // The pipe would keep this process alive.
      process.exit(0);
    });
  });
}

/** The child's word that it serves. Without a parent that waits, nothing. */
export function reportReady(): void {
  const descriptor = Number(process.env[READY_VARIABLE]);
  delete process.env[READY_VARIABLE];
  if (!Number.isInteger(descriptor) || descriptor < READY_DESCRIPTOR) return;
  // Whoever reads the standard error of the parent must not wait for the child. The lowest free number is the one just closed.
  closeSync(STDERR);
  openSync("/dev/null", "w");
  writeSync(descriptor, Uint8Array.of(READY_BYTE));
  closeSync(descriptor);
}
