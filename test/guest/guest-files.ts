import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

const PROJECT_ROOT = join(import.meta.dirname, "../..");
const KIT = join(import.meta.dirname, "kit");

/** The kernels the tests know: a long-term one and a recent one, by the Debian suite that has them. */
const SUITES = { "linux-6.12": "trixie", "linux-7": "sid" } as const;

export type GuestKernel = keyof typeof SUITES;
export const GUEST_KERNELS = Object.keys(SUITES) as GuestKernel[];

export interface GuestFiles {
  readonly kernel: string;
  readonly initramfs: string;
}

/** Kernel and initramfs of a guest, built from Debian packages when they are not there or the kit has changed. */
export function ensureGuestFiles(name: GuestKernel): GuestFiles {
  const folder = join(PROJECT_ROOT, ".cache/guest", name);
  const stamp = join(folder, "kit.sha256");
  const kit = kitHash();
  const current = existsSync(stamp) && readFileSync(stamp, "utf8") === kit;
  if (!current) {
    mkdirSync(dirname(folder), { recursive: true });
    const result = spawnSync("bash", [join(KIT, "build.sh"), folder, SUITES[name]], { stdio: "inherit" });
    if (result.status !== 0) throw new Error(`the guest ${name} could not be built; see above`);
    writeFileSync(stamp, kit);
  }
  return { kernel: join(folder, "vmlinuz"), initramfs: join(folder, "initramfs.img") };
}

function kitHash(): string {
  const hash = createHash("sha256");
  for (const name of readdirSync(KIT).sort()) hash.update(`${name}\0`).update(readFileSync(join(KIT, name)));
  return hash.digest("hex");
}
