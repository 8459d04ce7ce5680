import { lstatSync, unlinkSync } from "node:fs";
import { connect } from "node:net";
import { ZcowError } from "../base/errors.js";

/**
 * Removes the socket file at `path` when nobody listens at it. Any other file stays, and makes listening fail. Fails with
 * `ADDRESS_IN_USE` or `ADDRESS_UNAVAILABLE`.
 */
export async function removeDeadSocket(path: string): Promise<void> {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return;
  await new Promise<void>((resolve, reject) => {
    const probe = connect({ path });
    probe.once("connect", () => {
      probe.destroy();
      reject(new ZcowError("ADDRESS_IN_USE", `another server listens at ${path}`, { data: { path } }));
    });
    probe.once("error", (error: NodeJS.ErrnoException) => {
      // Refused: no server. After anything else there may be one.
      if (error.code !== "ECONNREFUSED") return reject(unusablePath(path, error));
      unlinkSync(path);
      resolve();
    });
  });
}

/** Why a Unix socket cannot be listened at. */
export function unusablePath(path: string, error: NodeJS.ErrnoException): ZcowError {
  const code = error.code === "EADDRINUSE" ? "ADDRESS_IN_USE" : "ADDRESS_UNAVAILABLE";
  return new ZcowError(code, `cannot listen at ${path}: ${error.message}`, {
    data: { path, ...(error.code === undefined ? {} : { errno: error.code }) },
    cause: error,
  });
}
