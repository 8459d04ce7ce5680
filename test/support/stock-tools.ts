import { spawn } from "node:child_process";
import { accessSync, constants, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { afterAll, describe } from "vitest";

/**
 * The oracle of the interop tests: the stock qemu-img and qemu-io, run as a user would run them.
 *
 * `ZCOW_WITHOUT_STOCK_TOOLS=1` hides them, to see what a machine without them sees.
 */
export interface ToolResult {
  readonly stdout: string;
  readonly stderr: string;
  /** Exit status; 128 + n when signal n ended the tool. */
  readonly code: number;
}

/** Absolute path of an executable on PATH, or undefined. */
export function findTool(name: string): string | undefined {
  for (const folder of (process.env["PATH"] ?? "").split(delimiter)) {
    const candidate = join(folder, name);
    if (folder !== "" && isExecutable(candidate)) return candidate;
  }
  return undefined;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

const STOCK_TOOLS = ["qemu-img", "qemu-io"] as const;
type StockTool = (typeof STOCK_TOOLS)[number];

const hidden = process.env["ZCOW_WITHOUT_STOCK_TOOLS"] === "1";
const toolPaths = new Map<string, string | undefined>(
  STOCK_TOOLS.map((name) => [name, hidden ? undefined : findTool(name)]),
);
const missing = STOCK_TOOLS.filter((name) => toolPaths.get(name) === undefined);

/** True when qemu-img and qemu-io can be run here. */
export const hasStockTools = missing.length === 0;

/** `describe` that needs the stock tools. Without them the suite is reported as skipped, and says why. */
export function describeWithStock(name: string, suite: () => void): void {
  if (hasStockTools) {
    describe(name, suite);
    return;
  }
  console.warn(`SKIPPED "${name}": ${missing.join(" and ")} not found. Install the Debian package qemu-utils.`);
  describe.skip(`${name} [skipped: no ${missing.join(", ")}]`, suite);
}

/** How often the stock tools may give up on timing their key derivation, as they now and then do on a fast or busy machine. */
const MOST_ATTEMPTS = 20;
const GAVE_UP = "Unable to get accurate CPU usage";

/**
 * Runs any program to its end. Never rejects for a non-zero exit: tests look at `code`. Runs it again when it could not time its key
 * derivation.
 */
export async function runTool(
  command: string,
  args: readonly string[],
  stdin: string | Uint8Array = "",
): Promise<ToolResult> {
  for (let attempt = 1; ; attempt++) {
    const result = await runOnce(command, args, stdin);
    if (attempt === MOST_ATTEMPTS || !result.stderr.includes(GAVE_UP)) return result;
  }
}

function runOnce(command: string, args: readonly string[], stdin: string | Uint8Array): Promise<ToolResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: "pipe", env: { ...process.env, LC_ALL: "C" } });
    const stdout: Uint8Array[] = [];
    const stderr: Uint8Array[] = [];
    child.stdout.on("data", (chunk: Uint8Array) => stdout.push(chunk));
    child.stderr.on("data", (chunk: Uint8Array) => stderr.push(chunk));
    child.on("error", reject);
    // A tool that ends before it has read its input is judged by its exit status.
    child.stdin.on("error", () => undefined);
    child.on("close", (status, signal) => {
      const code = status ?? 128 + signalNumber(signal);
      resolve({ stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString(), code });
    });
    child.stdin.end(stdin);
  });
}

function signalNumber(signal: NodeJS.Signals | null): number {
  const numbers: Partial<Record<NodeJS.Signals, number>> = { SIGABRT: 6, SIGKILL: 9, SIGSEGV: 11, SIGTERM: 15 };
  return signal === null ? 0 : (numbers[signal] ?? 0);
}

function stockToolPath(name: StockTool): string {
  const path = toolPaths.get(name);
  if (path === undefined) throw new Error(`${name} is not installed: put the suite under describeWithStock`);
  return path;
}

/** `qemu-img ARGS`. */
export function qemuImg(args: readonly string[]): Promise<ToolResult> {
  return runTool(stockToolPath("qemu-img"), args);
}

/** `qemu-io ARGS`; without `stdin` its input is empty. */
export function qemuIo(args: readonly string[], stdin = ""): Promise<ToolResult> {
  return runTool(stockToolPath("qemu-io"), args, stdin);
}

/** Throws with the tool's whole output unless `qemu-img check` finds nothing at all, leaks included. */
export async function expectCleanCheck(path: string, format = "qcow2"): Promise<void> {
  const result = await qemuImg(["check", "-f", format, path]);
  const clean = result.code === 0 && result.stdout.includes("No errors were found on the image.");
  if (!clean) {
    throw new Error(`qemu-img check ${path} exited with ${result.code}:\n${result.stdout}${result.stderr}`);
  }
}

/** Throws unless both images hold the same bytes for the guest. */
export async function expectSameContents(
  pathA: string,
  formatA: string,
  pathB: string,
  formatB: string,
): Promise<void> {
  const result = await qemuImg(["compare", "-f", formatA, "-F", formatB, pathA, pathB]);
  if (result.code !== 0) {
    throw new Error(`qemu-img compare ${pathA} ${pathB} exited with ${result.code}:\n${result.stdout}${result.stderr}`);
  }
}

const madeDirectories: string[] = [];
// Registered for the whole file that imports this module (each test file loads it afresh).
afterAll(() => {
  for (const path of madeDirectories.splice(0)) rmSync(path, { recursive: true, force: true });
});

/** A fresh empty directory, removed when the test file has ended. */
export function temporaryDirectory(): string {
  const path = mkdtempSync(join(tmpdir(), "zcow-test-"));
  madeDirectories.push(path);
  return path;
}
