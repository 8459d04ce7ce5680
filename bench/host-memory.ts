import { closeSync, existsSync, openSync, rmSync, writeSync } from "node:fs";
import { KiB, MiB } from "../src/base/units.js";
import { nativeCalls } from "../src/host/native.js";
import { punchHole } from "../src/host/punch-hole.js";

/**
 * Memory that a virtual machine gives back to its host.
 *
 * With free page reporting the guest's kernel hands large free blocks to the host, and each page of them costs a fault in the host when it is
 * used again: 8 us instead of 1 for 4 KiB. Benchmarks that write to tmpfs then measure the host, and the more the longer the machine was idle.
 * Pinning touches memory once and frees it again but for one page in every MiB, so that no free block grows large enough to be reported.
 */

const PINS = "/dev/shm/zcow-bench-memory";
const REPORTING = "/sys/module/page_reporting/parameters/page_reporting_order";
const PAGE = 4 * KiB;
/** Blocks of that size and smaller are not reported: kernels report from 2 MiB on (order 9) unless told otherwise. */
const PIN_EVERY = MiB;

/** A line to print above results when free memory is reported to a host and nothing keeps it here; else undefined. */
export function reportedMemoryWarning(): string | undefined {
  if (!existsSync(REPORTING) || existsSync(PINS)) return undefined;
  return "warning: this machine gives free memory back to its host; writes to new memory measure that (npm run bench -- memory GIB)";
}

/** Pins `gib` GiB of free memory until this is called again; 0 pins none. */
export function pinMemory(gib: number): void {
  const calls = nativeCalls();
  if (calls === undefined) throw new Error("pinning memory needs the native calls of this machine (koffi)");
  rmSync(PINS, { force: true });
  if (gib === 0) return;
  const file = openSync(PINS, "wx+", 0o600);
  try {
    const block = new Uint8Array(PIN_EVERY);
    const count = Math.floor((gib * 1024 * MiB) / PIN_EVERY);
    for (let at = 0; at < count; at++) writeSync(file, block, 0, block.length, at * PIN_EVERY);
    for (let at = 0; at < count; at++) {
      if (punchHole(calls, file, at * PIN_EVERY + PAGE, PIN_EVERY - PAGE, "here") !== true)
        throw new Error(`${PINS}: cannot punch holes`);
    }
  } finally {
    closeSync(file);
  }
}
