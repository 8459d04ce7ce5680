import { writtenBytes } from "../jobs/zone-report.js";
import type { ZoneDescriptor, ZoneState } from "../zoned/zone-state.js";

/** How zones are drawn. */
export interface PictureStyle {
  /** Characters per line, labels included. */
  readonly width: number;
  /** Colour and block characters; otherwise one letter per zone in plain ASCII. */
  readonly rich: boolean;
}

interface StateLook {
  readonly letter: string;
  /** ANSI foreground colour. */
  readonly colour: number;
}

/** In order of interest: when one cell stands for several zones, the first state among them decides its colour. */
const LOOKS: Readonly<Record<ZoneState, StateLook>> = {
  offline: { letter: "X", colour: 31 },
  "read-only": { letter: "R", colour: 35 },
  "explicitly-open": { letter: "E", colour: 92 },
  "implicitly-open": { letter: "I", colour: 32 },
  closed: { letter: "C", colour: 33 },
  full: { letter: "F", colour: 34 },
  empty: { letter: ".", colour: 90 },
  "not-wp": { letter: "=", colour: 36 },
};

const STATE_ORDER = Object.keys(LOOKS) as ZoneState[];
const HEIGHTS = "▁▂▃▄▅▆▇█";
const MOST_LINES = 16;

/** What people call a state. */
export function stateName(state: ZoneState): string {
  return state === "not-wp" ? "conventional" : state;
}

interface Cell {
  readonly state: ZoneState;
  /** Written part of the writable bytes, 0 to 1. */
  readonly fill: number;
}

/**
 * Draws one cell per zone: its state as a colour (or letter) and how full it is as a height. When there are more
 * zones than fit 16 lines, a cell stands for several.
 */
export function zonePicture(zones: readonly ZoneDescriptor[], style: PictureStyle): string {
  const labelWidth = String(zones.at(-1)?.index ?? 0).length + 2;
  const perLine = Math.max(8, Math.floor((style.width - labelWidth) / 8) * 8);
  const zonesPerCell = Math.max(1, Math.ceil(zones.length / (perLine * MOST_LINES)));
  const lines: string[] = [];
  for (let at = 0; at < zones.length; at += perLine * zonesPerCell) {
    const cells: string[] = [];
    const end = Math.min(zones.length, at + perLine * zonesPerCell);
    for (let first = at; first < end; first += zonesPerCell) {
      cells.push(drawCell(cellOf(zones.slice(first, Math.min(end, first + zonesPerCell))), style));
    }
    lines.push(`${String(zones[at]?.index ?? 0).padStart(labelWidth - 1)} ${cells.join("")}`);
  }
  lines.push("", legend(zones, style));
  if (zonesPerCell > 1) lines.push(`one cell is ${zonesPerCell} zones`);
  return `${lines.join("\n")}\n`;
}

function cellOf(zones: readonly ZoneDescriptor[]): Cell {
  let written = 0;
  let capacity = 0;
  let state: ZoneState = "not-wp";
  for (const zone of zones) {
    written += zone.state === "not-wp" ? zone.capacity : writtenBytes(zone);
    capacity += zone.capacity;
    if (STATE_ORDER.indexOf(zone.state) < STATE_ORDER.indexOf(state)) state = zone.state;
  }
  return { state, fill: capacity === 0 ? 0 : written / capacity };
}

function drawCell(cell: Cell, style: PictureStyle): string {
  const look = LOOKS[cell.state];
  if (!style.rich) return look.letter;
  return coloured(heightOf(cell), look.colour);
}

/** An empty zone is a dot, so that one with a single sector written looks different. */
function heightOf(cell: Cell): string {
  if (cell.fill === 0) return "·";
  return HEIGHTS[Math.min(HEIGHTS.length - 1, Math.floor(cell.fill * HEIGHTS.length))] ?? "█";
}

function coloured(text: string, colour: number): string {
  return `\u001b[${colour}m${text}\u001b[0m`;
}

function legend(zones: readonly ZoneDescriptor[], style: PictureStyle): string {
  const present = STATE_ORDER.filter((state) => zones.some((zone) => zone.state === state)).toReversed();
  return present
    .map((state) => {
      const look = LOOKS[state];
      return `${style.rich ? coloured("█", look.colour) : look.letter} ${stateName(state)}`;
    })
    .join("  ");
}
