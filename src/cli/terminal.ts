import { isatty } from "node:tty";
import type { PictureStyle } from "./zone-picture.js";

const STDOUT = 1;
const DEFAULT_WIDTH = 80;

export interface TerminalStyle extends PictureStyle {
  /** Standard output is a terminal. */
  readonly interactive: boolean;
}

/** What standard output can show. Colours are off in a pipe, on a dumb terminal and when NO_COLOR is set. */
export function terminal(): TerminalStyle {
  const interactive = isatty(STDOUT);
  const { NO_COLOR, TERM } = process.env;
  const plain = TERM === "dumb" || (NO_COLOR !== undefined && NO_COLOR !== "");
  return {
    interactive,
    rich: interactive && !plain,
    width: interactive ? terminalWidth() : DEFAULT_WIDTH,
  };
}

function terminalWidth(): number {
  // A terminal that was never told its size reports none, or 0.
  const width: number | undefined = process.stdout.columns;
  return width === undefined || width === 0 ? DEFAULT_WIDTH : width;
}
