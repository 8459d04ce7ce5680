// `npm run test:guest`: attaches served images to a Linux guest under emulation and tests them there. Takes long; not
// part of `npm test`. Arguments go to vitest: `npm run test:guest -- filesystems`.
import { join } from "node:path";
import { capture, findProgram, PROJECT_ROOT, passThrough } from "./run-command.mjs";
import { setUp } from "./setup.mjs";

/** Programs that build and run the guest, and the Debian packages that have them. */
const PROGRAMS = {
  "qemu-system-x86_64": "qemu-system-x86",
  readelf: "binutils",
  cpio: "cpio",
  depmod: "kmod",
  xz: "xz-utils",
  zstd: "zstd",
};

// Debian leaves the folder of depmod out of the path of ordinary users.
process.env["PATH"] += ":/usr/sbin:/sbin";

const missingPackages = () =>
  Object.entries(PROGRAMS)
    .filter(([program]) => findProgram(program) === undefined)
    .map(([, name]) => name);

async function installPrograms() {
  const packages = missingPackages();
  if (packages.length === 0) return;
  if (process.getuid?.() === 0 && findProgram("apt-get") !== undefined) {
    console.log(`[setup] installing the Debian packages ${packages.join(", ")}`);
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
    await capture("apt-get", ["update"], { env });
    await capture("apt-get", ["install", "--yes", "--no-install-recommends", ...packages], { env });
  }
  const missing = missingPackages();
  if (missing.length > 0) throw new Error(`install the Debian packages ${missing.join(", ")} to run these tests`);
}

try {
  await setUp();
  await installPrograms();
  const vitest = join(PROJECT_ROOT, "node_modules/vitest/vitest.mjs");
  const config = join(PROJECT_ROOT, "test/guest/vitest.config.ts");
  const args = [vitest, "run", "--config", config, "--reporter=verbose", ...process.argv.slice(2)];
  process.exitCode = passThrough(process.execPath, args);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
