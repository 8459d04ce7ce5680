import { writeSync } from "node:fs";
import { ZcowError } from "../base/errors.js";

const STDOUT = 1;
const STDERR = 2;
/** Standard output went away: what the shell reports for a program that SIGPIPE ended. */
export const BROKEN_PIPE_STATUS = 128 + 13;
const RETRY_MILLISECONDS = 2;

/**
 * Where a command prints. Everything is written before the call returns, so that nothing is
 * lost when the process exits and the two streams keep their order.
 */
export interface Output {
  out(text: string): void;
  err(text: string): void;
}

/** The standard streams of this process. Ends the process when the reader has gone away. */
export const standardOutput: Output = {
  out: (text) => writeAll(STDOUT, text),
  err: (text) => writeAll(STDERR, text),
};

function writeAll(fd: number, text: string): void {
  const bytes = new TextEncoder().encode(text);
  let done = 0;
  while (done < bytes.length) {
    try {
      done += writeSync(fd, bytes, done);
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      if (code === "EPIPE") process.exit(BROKEN_PIPE_STATUS);
      // A pipe or terminal shared with another program may be non-blocking, and full for the moment.
      if (code === "EAGAIN") pause();
      else if (fd === STDERR)
        return; // Nowhere is left to complain.
      else throw outputError(code, error);
    }
  }
}

function outputError(code: unknown, cause: unknown): ZcowError {
  const full = code === "ENOSPC";
  return new ZcowError(
    full ? "NO_SPACE" : "IO_ERROR",
    `cannot write to standard output: ${full ? "no space left on the device" : String(code)}`,
    { cause },
  );
}

function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MILLISECONDS);
}
