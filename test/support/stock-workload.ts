import type { Random } from "./random.js";
import { SECTOR } from "./sector-history.js";

export interface StockWorkload {
  readonly clusterSize: number;
  /** Some writes are compressed. */
  readonly compressed?: boolean;
  /** Discards leave zeros; or change nothing for the guest; or are not sent at all. Default: zeros. */
  readonly discards?: "zeros" | "nothing" | "none";
}

/** `steps` random qemu-io commands, entered in `live` as well. */
export function stockCommands(
  random: Random,
  live: Uint8Array,
  steps: number,
  { clusterSize, compressed = false, discards = "zeros" }: StockWorkload,
): string[] {
  const commands: string[] = [];
  for (let i = 0; i < steps; i++) {
    const offset = random.below(live.length / SECTOR) * SECTOR;
    const length = Math.min(random.pick([1, 3, 16, 130, 300]) * SECTOR, live.length - offset);
    const kind = random.weighted({
      write: 6,
      zero: 2,
      discard: discards === "none" ? 0 : 1,
      compressed: compressed ? 5 : 0,
    });
    if (kind === "write") {
      const pattern = random.between(1, 255);
      live.fill(pattern, offset, offset + length);
      commands.push("-c", `write -q -P ${pattern} ${offset} ${length}`);
    } else if (kind === "zero") {
      live.fill(0, offset, offset + length);
      commands.push("-c", `write -q -z ${random.chance(0.5) ? "-u" : ""} ${offset} ${length}`);
    } else if (kind === "compressed") {
      const first = Math.floor(offset / clusterSize) * clusterSize;
      const pattern = random.between(1, 255);
      const whole = Math.min(live.length - first, random.between(1, 3) * clusterSize);
      live.fill(pattern, first, first + whole);
      // It is refused where something is stored.
      if (discards !== "none") commands.push("-c", `discard -q ${first} ${whole}`);
      commands.push("-c", `write -q -c -P ${pattern} ${first} ${whole}`);
    } else {
      const first = Math.ceil(offset / clusterSize) * clusterSize;
      const whole = Math.floor((offset + length - first) / clusterSize) * clusterSize;
      if (whole <= 0) continue;
      if (discards === "zeros") live.fill(0, first, first + whole);
      commands.push("-c", `discard -q ${first} ${whole}`);
    }
  }
  return commands;
}
