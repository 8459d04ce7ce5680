// Makes a fresh clone ready: packages, build and, for tests, the stock tools. Does nothing, and says
// nothing, when all is in place. Plain Node without dependencies.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { capture, findProgram, PROJECT_ROOT } from "./run-command.mjs";

/** With the tree, not in node_modules, which several trees may share. */
const BUILD_STAMP = join(PROJECT_ROOT, ".cache/build-inputs.sha256");
const BUILD_INPUTS = [
  "src",
  "scripts/build.mjs",
  "scripts/build-command.mjs",
  "scripts/bundle-program.mjs",
  "scripts/code-cache-recorder.cjs",
  "package.json",
  "package-lock.json",
  "tsconfig.json",
  "tsconfig.build.json",
];
const BUILD_PRODUCTS = ["dist/index.js", "dist/cli/zcow.js"];

/** @param {string} text */
const say = (text) => console.log(`[setup] ${text}`);

/**
 * @param {string} what
 * @param {import("./run-command.mjs").CommandResult} result
 */
function failUnlessDone(what, result) {
  if (result.code === 0) return;
  throw new Error(`${what} failed with exit status ${result.code}:\n${result.output}`);
}

/**
 * @param {string} path
 * @returns {Record<string, { version?: string, integrity?: string, optional?: boolean }> | undefined}
 */
function lockedPackages(path) {
  try {
    return JSON.parse(readFileSync(join(PROJECT_ROOT, path), "utf8")).packages;
  } catch {
    return undefined;
  }
}

/** True when node_modules holds exactly what package-lock.json asks for (packages for other platforms aside). */
export function packagesAreCurrent() {
  const wanted = lockedPackages("package-lock.json") ?? {};
  const installed = lockedPackages("node_modules/.package-lock.json");
  if (installed === undefined) return false;
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === "") return true;
    const found = installed[path];
    if (found === undefined) return entry.optional === true;
    return found.version === entry.version && found.integrity === entry.integrity;
  });
}

async function installPackages() {
  if (packagesAreCurrent()) return;
  say("installing packages (npm ci)");
  const result = await capture("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
  failUnlessDone("npm ci", result);
}

/**
 * @param {import("node:crypto").Hash} hash
 * @param {string} path relative to the project
 */
function hashInto(hash, path) {
  const absolute = join(PROJECT_ROOT, path);
  if (statSync(absolute).isDirectory()) {
    for (const name of readdirSync(absolute).toSorted()) hashInto(hash, join(path, name));
    return;
  }
  hash.update(`${path}\0`).update(readFileSync(absolute)).update("\0");
}

function buildInputsHash() {
  const hash = createHash("sha256").update(process.version);
  for (const path of BUILD_INPUTS) hashInto(hash, path);
  return hash.digest("hex");
}

function buildIsCurrent(/** @type {string} */ inputs) {
  const built = BUILD_PRODUCTS.every((path) => existsSync(join(PROJECT_ROOT, path)));
  return built && existsSync(BUILD_STAMP) && readFileSync(BUILD_STAMP, "utf8") === inputs;
}

async function build() {
  const inputs = buildInputsHash();
  if (buildIsCurrent(inputs)) return;
  say("building the library and the command");
  failUnlessDone("the build", await capture(process.execPath, ["scripts/build.mjs"]));
  mkdirSync(dirname(BUILD_STAMP), { recursive: true });
  writeFileSync(BUILD_STAMP, inputs);
}

/** The oracles of the interop tests: qemu's tools, and independent clients and servers of NBD. */
const STOCK_PACKAGES = ["qemu-utils", "libnbd-bin", "nbdkit", "gnutls-bin", "fio", "python3-libnbd"];

const missingStockTools = () =>
  ["qemu-img", "qemu-io", "nbdinfo", "nbdkit", "certtool", "fio", "nbdsh"].filter(
    (name) => findProgram(name) === undefined,
  );

/** Gets qemu-img and qemu-io where that is possible; their absence is not an error here, only said aloud. */
async function installStockTools() {
  if (missingStockTools().length === 0) return;
  const mayInstall = process.getuid?.() === 0 && findProgram("apt-get") !== undefined;
  if (mayInstall) {
    say(`installing Debian packages (the oracles of the interop tests): ${STOCK_PACKAGES.join(", ")}`);
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
    const install = ["install", "--yes", "--no-install-recommends", ...STOCK_PACKAGES];
    await capture("apt-get", ["update"], { env });
    const result = await capture("apt-get", install, { env });
    if (result.code !== 0) say(`apt-get failed:\n${result.output}`);
  }
  const missing = missingStockTools();
  if (missing.length > 0) {
    say(`WARNING: ${missing.join(" and ")} not found. Tests that compare with the stock tools WILL BE SKIPPED.`);
    say(`WARNING: install the Debian packages ${STOCK_PACKAGES.join(", ")} to run them.`);
  }
}

/** @param {{ stockTools?: boolean }} [wanted] */
export async function setUp(wanted = {}) {
  await installPackages();
  await build();
  if (wanted.stockTools) await installStockTools();
}

if (realpathSync(process.argv[1] ?? "") === import.meta.filename) {
  try {
    await setUp({ stockTools: true });
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}
