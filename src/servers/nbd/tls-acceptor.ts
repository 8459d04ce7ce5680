import type { Socket } from "node:net";
import { createSecureContext, type SecureContext, type TLSSocket } from "node:tls";
import { acceptTls, type ServerHandshake } from "../tls-handshake.js";
import type { TlsServerCredentials } from "./tls-credentials.js";

/** Does the server side of TLS handshakes inside connections that have begun in the clear. */
export class TlsAcceptor {
  readonly #credentials: TlsServerCredentials;
  readonly #context: SecureContext;
  readonly #handshakeMilliseconds: number;

  /** Fails as Node does for keys and certificates that do not fit together. */
  constructor(credentials: TlsServerCredentials, handshakeMilliseconds: number) {
    this.#credentials = credentials;
    this.#context = createSecureContext(credentials.context);
    this.#handshakeMilliseconds = handshakeMilliseconds;
  }

  /** Exactly one of `accepted` and `refused` is called, once. */
  accept(socket: Socket, accepted: (secure: TLSSocket) => void, refused: (reason: string) => void): void {
    const { verifyPeer, pskOf, permits } = this.#credentials;
    const handshake: ServerHandshake = {
      context: this.#context,
      milliseconds: this.#handshakeMilliseconds,
      requestCertificate: verifyPeer,
      ...(pskOf === undefined ? {} : { pskOf }),
      verdict: (secure) => (verifyPeer ? verdictOn(secure, permits) : undefined),
    };
    acceptTls(socket, handshake, accepted, refused);
  }
}

/** Where Node keeps the TLS of a socket. */
const HANDLE = "_handle";
interface SocketWithHandle {
  [HANDLE]?: { verifyError?: () => Error | null };
}

/** What is wrong with the certificate of a client; undefined when nothing is. */
function verdictOn(secure: TLSSocket, permits: ((name: string) => boolean) | undefined): string | undefined {
  // Node verifies in the handshake and leaves the result where its own server finds it.
  const handle = (secure as unknown as SocketWithHandle)[HANDLE];
  const failure =
    handle?.verifyError === undefined ? new Error("cannot be verified by this Node") : handle.verifyError();
  const certificate = secure.getPeerX509Certificate();
  if (certificate === undefined) return "the client has no certificate";
  if (failure !== null && failure !== undefined) return `the client's certificate: ${failure.message}`;
  const name = distinguishedName(certificate.subject);
  return permits === undefined || permits(name) ? undefined : `'${name}' is not allowed in`;
}

/** The subject of a certificate in one line, as `O=Example,CN=client`: in the certificate's order, as the stock server has it. */
export function distinguishedName(subject: string): string {
  return subject.split("\n").join(",");
}
