import { ZcowError } from "../base/errors.js";
import type { CommandContext } from "./context.js";
import { UsageError } from "./usage-error.js";

/** What `--json` prints on standard error in place of a line of text: one object, in one line. */
interface Report {
  /** "error": why the command failed. "warning" and "note": what it has to say besides. */
  readonly level: "error" | "warning" | "note";
  /** A code of docs/errors.md; USAGE for a command line that makes no sense, FAILED for what has no code, INTERNAL for a fault of zcow. */
  readonly code?: string;
  readonly category?: string;
  /** Name of the errno that stock tools would report. */
  readonly errno?: string;
  readonly message: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

/** The report of whatever made a command fail. */
function failureReport(error: unknown): Report {
  if (error instanceof UsageError) return { level: "error", code: "USAGE", message: error.message };
  if (error instanceof ZcowError) {
    const { code, category, errno, message } = error;
    const data = Object.fromEntries(
      Object.entries(error.data).map(([key, value]: [string, unknown]) => [key, plain(value)]),
    );
    return { level: "error", code, category, errno, message, data };
  }
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { level: "error", code: "INTERNAL", message };
}

/** The report of a line that a command printed about its failure, or as a warning. */
function lineReport(text: string): Report {
  const warning = /^warning: (.*)$/s.exec(text)?.[1];
  return warning === undefined
    ? { level: "error", code: "FAILED", message: text }
    : { level: "warning", message: warning };
}

/** Flag words above 2^53 - 1 cannot be numbers of JSON. */
function plain(value: unknown): unknown {
  if (typeof value !== "bigint") return value;
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : `0x${value.toString(16)}`;
}

/** `context` with everything for standard error as reports, a line each: what is no failure and no warning is a note. */
export function withJsonErrors(context: CommandContext): CommandContext {
  const { output } = context;
  const print = (report: Report): void => output.err(`${JSON.stringify(report)}\n`);
  const note = (text: string): void => {
    for (const message of text.split("\n")) if (message.trim() !== "") print({ level: "note", message });
  };
  return {
    ...context,
    output: { out: (text) => output.out(text), err: note },
    reporter: { failure: (error) => print(failureReport(error)), line: (text) => print(lineReport(text)) },
  };
}
