import { ZcowError } from "../base/errors.js";
import type { CommandContext } from "./context.js";
import { UsageError } from "./usage-error.js";

/** Exit status of a command that failed, as the stock tools have it. */
export const EXIT_FAILURE = 1;

/** What the C library calls an errno. */
const STRERROR: Readonly<Record<string, string>> = {
  EACCES: "Permission denied",
  EAGAIN: "Resource temporarily unavailable",
  EBUSY: "Device or resource busy",
  EBADF: "Bad file descriptor",
  EEXIST: "File exists",
  EFBIG: "File too large",
  EINVAL: "Invalid argument",
  EIO: "Input/output error",
  EISDIR: "Is a directory",
  ENOENT: "No such file or directory",
  ENOSPC: "No space left on device",
  ENOTSUP: "Operation not supported",
  ENXIO: "No such device or address",
  EOVERFLOW: "Value too large for defined data type",
  EPERM: "Operation not permitted",
  EROFS: "Read-only file system",
  ETOOMANYREFS: "Too many references: cannot splice",
};

/** Numbers of the errno names that stock tools print as a number, as Linux has them. */
const ERRNO_NUMBERS: Readonly<Record<string, number>> = {
  EPERM: 1,
  ENOENT: 2,
  EIO: 5,
  EACCES: 13,
  EBUSY: 16,
  EINVAL: 22,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  ENOTSUP: 95,
};

/** The number of the errno that stock tools would report for `error`. */
export function errnoNumber(error: ZcowError): number {
  return ERRNO_NUMBERS[error.errno] ?? (ERRNO_NUMBERS["EIO"] as number);
}

/** The text of the errno that stock tools would report for `error`. */
export function errnoText(error: unknown): string {
  const errno = error instanceof ZcowError ? error.errno : "EIO";
  return STRERROR[errno] ?? errno;
}

/** What to say about `error`: the stock tool's own words when standing in for it, the full message otherwise. */
export function explain(error: unknown, context: CommandContext): string {
  if (!(error instanceof ZcowError)) return error instanceof Error ? (error.stack ?? error.message) : String(error);
  if (context.standIn) return error.stockText ?? error.message;
  return [error.message, ...(error.data.reasons ?? []).map((reason) => `  ${reason}`)].join("\n");
}

/** Prints `text` as the stock tools print an error: behind the name of the program. */
export function printError(context: CommandContext, text: string): void {
  if (context.reporter === undefined) context.output.err(`${context.program}: ${text}\n`);
  else context.reporter.line(text);
}

/** Reports whatever made a command fail; returns the exit status. */
export function reportFailure(error: unknown, context: CommandContext): number {
  if (context.reporter !== undefined) {
    context.reporter.failure(error);
  } else if (error instanceof UsageError) {
    for (const line of error.message.split("\n")) printError(context, line);
    if (error.hint) context.output.err(`Try '${context.program} --help' for more information\n`);
  } else {
    printError(context, explain(error, context));
  }
  return EXIT_FAILURE;
}

/** An error with the words that go in front of it, such as "Could not open 'x'". Its code and data stay. */
export function withSubject(subject: string, error: unknown): unknown {
  if (!(error instanceof ZcowError)) return error;
  // The stock tools name a file that cannot be opened twice; once is enough for our own words.
  const saysSo = error.category === "storage" && error.message.startsWith("cannot open ");
  return new ZcowError(error.code, saysSo ? error.message : `${subject}: ${error.message}`, {
    data: error.data,
    cause: error,
    stockText: `${subject}: ${error.stockText ?? error.message}`,
  });
}
