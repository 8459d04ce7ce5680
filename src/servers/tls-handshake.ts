import type { Socket } from "node:net";
import { type SecureContext, TLSSocket, type TLSSocketOptions } from "node:tls";

/** The server's side of a handshake: how it is made, and how its outcome is judged. */
export interface ServerHandshake {
  readonly context: SecureContext;
  readonly milliseconds: number;
  /** Asks for the certificate of the client, which `verdict` has to judge. Default false. */
  readonly requestCertificate?: boolean;
  /** The key that goes with an identity; undefined when there is none. Left out: no such keys. */
  readonly pskOf?: (identity: string) => Uint8Array | undefined;
  /** Why a handshake that succeeded is not good enough; undefined when it is. */
  readonly verdict: (secure: TLSSocket) => string | undefined;
  /** Words for a failed handshake. Default: those of the error. */
  readonly explain?: (error: Error) => string;
}

/** Makes the server's side of TLS on `socket`. Exactly one of `accepted` and `refused` is called, once. */
export function acceptTls(
  socket: Socket,
  handshake: ServerHandshake,
  accepted: (secure: TLSSocket) => void,
  refused: (reason: string) => void,
): void {
  const { pskOf, verdict, explain = (error: Error) => error.message } = handshake;
  let settled = false;
  const refuse = (reason: string): void => {
    if (settled) return;
    settled = true;
    clearTimeout(timer);
    secure.destroy();
    refused(reason);
  };
  const options: TLSSocketOptions & { pskCallback?: unknown } = {
    isServer: true,
    secureContext: handshake.context,
    requestCert: handshake.requestCertificate === true,
    // Judged below, where the reason can be told.
    rejectUnauthorized: false,
    // The types know this option for servers only, but sockets are what servers hand it to.
    ...(pskOf === undefined ? {} : { pskCallback: (_socket: TLSSocket, identity: string) => pskOf(identity) ?? null }),
  };
  const secure = new TLSSocket(socket, options);
  const timer = setTimeout(() => refuse("the TLS handshake took too long"), handshake.milliseconds);
  timer.unref();
  secure.on("error", (error) => refuse(error.message));
  secure.on("_tlsError", (error: Error) => refuse(explain(error)));
  secure.on("close", () => refuse("the peer left during the TLS handshake"));
  secure.on("secure", () => {
    if (settled) return;
    const reason = verdict(secure);
    if (reason !== undefined) return refuse(reason);
    settled = true;
    clearTimeout(timer);
    accepted(secure);
  });
}
