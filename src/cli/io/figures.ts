import { fixedPoint } from "../../base/size-text.js";

/** Numbers as qemu-io prints them. */

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] as const;
const MINUTE = 60;
const HOUR = 60 * MINUTE;

/** `bytes` with at most three decimals and a binary unit: 65470464 is "62.438 MiB". */
export function sizeFigure(bytes: number): string {
  let power = 0;
  while (power < UNITS.length - 1 && bytes >= 1024 ** (power + 1)) power += 1;
  const digits = fixedPoint(bytes / 1024 ** power, power === 0 ? 6 : 3);
  const end = digits.indexOf(".000");
  return `${end < 0 ? digits : digits.slice(0, end)} ${UNITS[power]}`;
}

/** Elapsed time; short unless it is long or `fixed` asks for all places. */
function timeFigure(seconds: number, fixed: boolean): string {
  if (!fixed && seconds < MINUTE) return `${seconds.toFixed(2).padStart(5, "0")} sec`;
  const hours = Math.floor(seconds / HOUR);
  const minutes = Math.floor((seconds % HOUR) / MINUTE);
  const rest = (seconds % MINUTE).toFixed(2).padStart(5, "0");
  return `${hours}:${String(minutes).padStart(2, "0")}:${rest}`;
}

export interface TransferReport {
  /** "read", "wrote" or "discard". */
  readonly verb: string;
  /** Bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  readonly seconds: number;
  /** One line for programs instead of two for people. */
  readonly machine: boolean;
}

/** The statistics that follow a transfer. */
export function transferReport(report: TransferReport): string {
  const { verb, offset, length } = report;
  // A clock that did not advance must not divide by zero.
  const seconds = Math.max(report.seconds, 1e-9);
  if (report.machine) {
    return `${length},1,${timeFigure(seconds, true)},${(length / seconds).toFixed(3)},${(1 / seconds).toFixed(3)}\n`;
  }
  const rate = `${sizeFigure(length / seconds)}/sec and ${(1 / seconds).toFixed(4)} ops/sec`;
  return (
    `${verb} ${length}/${length} bytes at offset ${offset}\n` +
    `${sizeFigure(length)}, 1 ops; ${timeFigure(seconds, false)} (${rate})\n`
  );
}

const BYTES_PER_LINE = 16;

/** Hexadecimal dump of `bytes`, which lie at `offset` of the disk. */
export function hexDump(bytes: Uint8Array, offset: number): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += BYTES_PER_LINE) {
    const line = bytes.subarray(at, at + BYTES_PER_LINE);
    const hex = Array.from(line, (byte) => `${byte.toString(16).padStart(2, "0")} `).join("");
    const text = Array.from(line, printable).join("");
    lines.push(`${(offset + at).toString(16).padStart(8, "0")}:  ${hex} ${text}\n`);
  }
  return lines.join("");
}

/** Letters and digits stand for themselves, everything else is a dot. */
function printable(byte: number): string {
  const character = String.fromCharCode(byte);
  return /[0-9A-Za-z]/.test(character) ? character : ".";
}
