import type { Server } from "node:net";
import { listenAt } from "../nvme-tcp/listening.js";
import { removeDeadSocket, unusablePath } from "../socket-path.js";

/** Where a server listens. */
export type ListenAddress =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string }
  /** A socket that listens already, handed over by whoever started the process. */
  | { readonly kind: "descriptor"; readonly fd: number };

/** Starts to listen. A socket file that no server listens at any more is replaced. Fails with `ADDRESS_IN_USE` or `ADDRESS_UNAVAILABLE`. */
export async function listenOn(server: Server, address: ListenAddress): Promise<void> {
  if (address.kind === "tcp") return listenAt(server, address.host, address.port);
  if (address.kind === "unix") await removeDeadSocket(address.path);
  const where = address.kind === "unix" ? { path: address.path } : { fd: address.fd };
  const name = address.kind === "unix" ? address.path : `descriptor ${address.fd}`;
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => reject(unusablePath(name, error)));
    server.listen(where, () => {
      server.removeAllListeners("error");
      // Accepting can fail later, for want of file descriptors; those who are connected must not suffer.
      server.on("error", () => undefined);
      resolve();
    });
  });
}
