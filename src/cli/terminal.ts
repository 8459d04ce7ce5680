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
    width: interactive ? (process.stdout.columns ?? DEFAULT_WIDTH) : DEFAULT_WIDTH,
  };
}
