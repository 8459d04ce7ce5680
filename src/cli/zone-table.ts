import { formatSize } from "../base/size-text.js";
import { GiB, KiB, MiB, TiB } from "../base/units.js";
import { writtenBytes, type ZoneReport } from "../jobs/zone-report.js";
import type { ZoneDescriptor, ZoneState } from "../zoned/zone-state.js";
import { stateName } from "./zone-picture.js";

/** `bytes` in the largest unit that needs no fraction: nothing is rounded away. */
function exactSize(bytes: number): string {
  const units: readonly [number, string][] = [
    [TiB, "TiB"],
    [GiB, "GiB"],
    [MiB, "MiB"],
    [KiB, "KiB"],
  ];
  const [size, name] = units.find(([unit]) => bytes >= unit && bytes % unit === 0) ?? [1, "B"];
  return `${bytes / size} ${name}`;
}

const OPEN_STATES: readonly ZoneState[] = ["implicitly-open", "explicitly-open"];
const ACTIVE_STATES: readonly ZoneState[] = [...OPEN_STATES, "closed"];

function countOf(report: ZoneReport, states: readonly ZoneState[]): number {
  return states.reduce((sum, state) => sum + (report.states.get(state) ?? 0), 0);
}

function limitText(limit: number): string {
  return limit === 0 ? "no limit" : `at most ${limit}`;
}

/** What the zones add up to, in two lines. */
export function zoneSummary(name: string, report: ZoneReport): string {
  const { limits, zones } = report;
  const shown = zones.length === limits.zoneCount ? "" : `, ${zones.length} shown`;
  const capacity = limits.zoneCapacity === limits.zoneSize ? "" : ` (capacity ${exactSize(limits.zoneCapacity)})`;
  return (
    `${name}: ${limits.zoneCount} zones of ${exactSize(limits.zoneSize)}${capacity}, ` +
    `${limits.conventionalZones} conventional${shown}\n` +
    `written ${formatSize(report.written)}; ` +
    `open ${countOf(report, OPEN_STATES)} (${limitText(limits.maxOpenZones)}); ` +
    `active ${countOf(report, ACTIVE_STATES)} (${limitText(limits.maxActiveZones)}); ` +
    `largest append ${exactSize(limits.maxAppendBytes)}\n`
  );
}

const HEADINGS = ["ZONE", "START", "SIZE", "CAPACITY", "WRITTEN", "FILL", "STATE"] as const;

/** One line per zone, columns as wide as needed; numbers stand at the right, the state at the left. */
export function zoneTable(zones: readonly ZoneDescriptor[]): string {
  const rows = [[...HEADINGS], ...zones.map(zoneRow)];
  const widths = HEADINGS.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) => `${row.map((cell, column) => pad(cell, column, widths)).join("  ")}\n`).join("");
}

function pad(cell: string, column: number, widths: readonly number[]): string {
  return column === HEADINGS.length - 1 ? cell : cell.padStart(widths[column] ?? 0);
}

function zoneRow(zone: ZoneDescriptor): string[] {
  const start = [String(zone.index), exactSize(zone.start), exactSize(zone.length), exactSize(zone.capacity)];
  if (zone.type === "conventional") return [...start, "-", "-", stateName(zone.state)];
  const written = writtenBytes(zone);
  return [...start, exactSize(written), fillText(written, zone.capacity), stateName(zone.state)];
}

/** Never 0% for a zone with data, nor 100% for one with room. */
function fillText(written: number, capacity: number): string {
  const percent = (written * 100) / capacity;
  if (percent > 0 && percent < 0.1) return "<0.1%";
  return `${(Math.floor(percent * 10) / 10).toFixed(1)}%`;
}
