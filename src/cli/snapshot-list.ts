import { formatSize } from "../base/size-text.js";
import type { Snapshot } from "../formats/qcow2/snapshots/snapshot.js";

/** Longest id and name that the stock tools show, in characters. */
const SHOWN_ID = 127;
const SHOWN_NAME = 255;
const NANOSECONDS = 1_000_000_000n;

/** The list of snapshots as the stock tools print it, local time included; empty when there are none. */
export function snapshotListText(snapshots: readonly Snapshot[]): string {
  if (snapshots.length === 0) return "";
  const lines = snapshots.map((snapshot) =>
    row(
      snapshot.id.slice(0, SHOWN_ID),
      snapshot.name.slice(0, SHOWN_NAME),
      formatSize(Number(snapshot.vmStateSize)),
      dateText(snapshot.dateSeconds),
      clockText(snapshot.vmClock),
      snapshot.icount === undefined ? "" : String(snapshot.icount),
    ),
  );
  return ["Snapshot list:", row("ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT"), ...lines, ""].join("\n");
}

function row(id: string, tag: string, size: string, date: string, clock: string, icount: string): string {
  return `${id.padEnd(9)} ${tag.padEnd(16)} ${size.padStart(8)}${date.padStart(20)}${clock.padStart(13)}${icount.padStart(11)}`;
}

function dateText(seconds: number): string {
  const date = new Date(seconds * 1000);
  const two = (value: number): string => String(value).padStart(2, "0");
  return (
    `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ` +
    `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
  );
}

function clockText(nanoseconds: bigint): string {
  const seconds = nanoseconds / NANOSECONDS;
  const two = (value: bigint): string => String(value).padStart(2, "0");
  const milliseconds = String((nanoseconds / 1_000_000n) % 1000n).padStart(3, "0");
  return `${two(seconds / 3600n)}:${two((seconds / 60n) % 60n)}:${two(seconds % 60n)}.${milliseconds}`;
}

/** A snapshot as `info --output=json` has it, keys in the order of the stock tool. */
export function snapshotTree(snapshot: Snapshot): { readonly [key: string]: string | number } {
  return {
    ...(snapshot.icount === undefined ? {} : { icount: Number(snapshot.icount) }),
    "vm-clock-nsec": Number(snapshot.vmClock % NANOSECONDS),
    name: snapshot.name,
    "date-sec": snapshot.dateSeconds,
    "date-nsec": snapshot.dateNanoseconds,
    "vm-clock-sec": Number(snapshot.vmClock / NANOSECONDS),
    id: snapshot.id,
    "vm-state-size": Number(snapshot.vmStateSize),
  };
}
