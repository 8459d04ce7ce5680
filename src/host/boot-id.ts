import { readFileSync } from "node:fs";

const BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id";

/**
 * What tells this run of the operating system from every other one, 16 bytes; undefined where the system does not say
 * (all but Linux). Containers share it with their host, as they share its page cache.
 */
export function bootId(): Uint8Array | undefined {
  let text: string;
  try {
    text = readFileSync(BOOT_ID_FILE, "latin1");
  } catch {
    return undefined;
  }
  const hex = text.trim().replaceAll("-", "");
  return /^[0-9a-f]{32}$/.test(hex) ? Uint8Array.from(Buffer.from(hex, "hex")) : undefined;
}
