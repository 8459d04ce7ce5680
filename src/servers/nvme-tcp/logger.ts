/** Records what a server does, a line per event. */
export interface Logger {
  /** What happens in the ordinary course. */
  info(event: string, fields?: LogFields): void;
  /** What somebody may want to look at. */
  warn(event: string, fields?: LogFields): void;
  /** What did not work that should have. */
  error(event: string, fields?: LogFields): void;
}

/** Values must be safe to show: no secrets. */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

/** How lines look: JSON objects, or text for people. */
export type LogFormat = "json" | "text";

type Level = "info" | "warn" | "error";

/** Longest value of a field, characters: peers choose some of them. */
const LONGEST_VALUE = 512;
/** Lines of one event per second; what is above is counted and told with the next line. */
const LINES_PER_SECOND = 10;

interface EventRate {
  second: number;
  lines: number;
  suppressed: number;
}

/** A logger that writes lines: JSON objects with `time`, `level`, `event` and the fields, or the same for people. */
export function lineLogger(
  format: LogFormat,
  write: (line: string) => void,
  now: () => Date = () => new Date(),
): Logger {
  const rates = new Map<string, EventRate>();
  const log = (level: Level, event: string, fields: LogFields = {}): void => {
    const time = now();
    const suppressed = admit(rates, event, Math.floor(time.getTime() / 1000));
    if (suppressed < 0) return;
    const all = suppressed > 0 ? { ...fields, suppressed } : fields;
    write(`${format === "json" ? jsonLine(time, level, event, all) : textLine(time, level, event, all)}\n`);
  };
  return {
    info: (event, fields) => log("info", event, fields),
    warn: (event, fields) => log("warn", event, fields),
    error: (event, fields) => log("error", event, fields),
  };
}

/** How many lines of `event` were left out since the last one; -1 when this one is to be left out, too. */
function admit(rates: Map<string, EventRate>, event: string, second: number): number {
  let rate = rates.get(event);
  if (rate === undefined) {
    rate = { second, lines: 0, suppressed: 0 };
    rates.set(event, rate);
  }
  if (rate.second !== second) {
    rate.second = second;
    rate.lines = 0;
  }
  if (rate.lines === LINES_PER_SECOND) {
    rate.suppressed++;
    return -1;
  }
  rate.lines++;
  const { suppressed } = rate;
  rate.suppressed = 0;
  return suppressed;
}

function jsonLine(time: Date, level: Level, event: string, fields: LogFields): string {
  return JSON.stringify({ time: time.toISOString(), level, event, ...fields }, (_key, value: unknown) => cut(value));
}

function textLine(time: Date, level: Level, event: string, fields: LogFields): string {
  const parts = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key}=${shown(cut(value))}`);
  return [time.toISOString(), level, event, ...parts].join(" ");
}

/** Quoted when a line reader could take it for more than one word, or for another line. */
function shown(value: unknown): string {
  const text = String(value);
  return /^[\w.:/@+-]+$/.test(text) ? text : JSON.stringify(text);
}

function cut(value: unknown): unknown {
  return typeof value === "string" && value.length > LONGEST_VALUE ? `${value.slice(0, LONGEST_VALUE)}...` : value;
}
