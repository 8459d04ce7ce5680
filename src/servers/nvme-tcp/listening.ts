import type { Server } from "node:net";
import { ZcowError } from "../../base/errors.js";

/** An address as it stands before a port: IPv6 addresses have brackets. */
export function bracketed(address: string): string {
  return address.includes(":") ? `[${address}]` : address;
}

/** Listens at a TCP address. Fails with `ADDRESS_IN_USE` or `ADDRESS_UNAVAILABLE`. */
export function listenAt(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => reject(listenError(error, host, port)));
    server.listen({ host, port }, () => {
      server.removeAllListeners("error");
      // Accepting can fail later, for want of file descriptors; those who are connected must not suffer.
      server.on("error", () => undefined);
      resolve();
    });
  });
}

function listenError(error: NodeJS.ErrnoException, host: string, port: number): ZcowError {
  const code = error.code === "EADDRINUSE" ? "ADDRESS_IN_USE" : "ADDRESS_UNAVAILABLE";
  return new ZcowError(code, `cannot listen at ${bracketed(host)}:${port}: ${error.message}`, {
    data: { value: `${host}:${port}`, ...(error.code === undefined ? {} : { errno: error.code }) },
    cause: error,
  });
}
