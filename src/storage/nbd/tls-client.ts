/** The client's side of TLS, with credentials in the files of the stock tools. */
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { join } from "node:path";
import { type ConnectionOptions, connect, type TLSSocket } from "node:tls";
import { ZcowError } from "../../base/errors.js";
import type { NbdAddress, NbdTlsAddress } from "./nbd-uri.js";

const PSK_CIPHERS =
  "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES256-GCM-SHA384:DHE-PSK-AES128-GCM-SHA256:PSK-AES256-GCM-SHA384:PSK-AES128-GCM-SHA256";
const DEFAULT_USER = "qemu";

/** Makes a connected socket TLS. Fails with `REMOTE_REFUSED`, or `ACCESS_DENIED` for credentials that cannot be read. */
export function secureSocket(socket: Socket, address: NbdAddress): Promise<TLSSocket> {
  const options = tlsOptions(address);
  return new Promise((resolve, reject) => {
    const fail = (cause: Error): void => {
      const { uri } = address;
      reject(new ZcowError("REMOTE_REFUSED", `${uri}: TLS failed: ${cause.message}`, { data: { path: uri }, cause }));
    };
    const secure = connect({ ...options, socket }, () => {
      secure.removeListener("error", fail);
      resolve(secure);
    });
    secure.once("error", fail);
    secure.once("close", () => fail(new Error("the server closed the connection")));
  });
}

function tlsOptions({ tls, where }: NbdAddress): ConnectionOptions {
  const { certificates, pskFile, hostname, verifyPeer } = tls as NbdTlsAddress;
  const common: ConnectionOptions = { minVersion: "TLSv1.2" };
  if (pskFile !== undefined)
    return { ...common, ...pskOptions(pskFile, (tls as NbdTlsAddress).username ?? DEFAULT_USER) };
  const name = hostname ?? (where.kind === "tcp" ? where.host : "localhost");
  return {
    ...common,
    ...(certificates === undefined ? {} : certificateOptions(certificates)),
    // An address is no server name, but a certificate may be for one.
    servername: /^[\d.]+$|:/.test(name) ? "" : name,
    host: name,
    rejectUnauthorized: verifyPeer,
  };
}

function certificateOptions(directory: string): ConnectionOptions {
  const cert = optionalCredential(join(directory, "client-cert.pem"));
  const key = optionalCredential(join(directory, "client-key.pem"));
  return {
    ca: credential(join(directory, "ca-cert.pem")),
    ...(cert === undefined || key === undefined ? {} : { cert, key }),
  };
}

function pskOptions(file: string, username: string): ConnectionOptions {
  for (const line of credential(file).toString("utf8").split("\n")) {
    const [name, hex = ""] = line.trim().split(":");
    if (name !== username || !/^([0-9a-fA-F]{2})+$/.test(hex)) continue;
    const psk = Buffer.from(hex, "hex");
    // There is no certificate whose name could be wrong.
    return {
      ciphers: PSK_CIPHERS,
      pskCallback: () => ({ psk, identity: username }),
      checkServerIdentity: () => undefined,
    };
  }
  throw new ZcowError("ACCESS_DENIED", `${file} has no key of '${username}'`, {
    data: { path: file, value: username },
  });
}

function optionalCredential(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}

function credential(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new ZcowError("ACCESS_DENIED", `cannot read the TLS credentials ${path}: ${(cause as Error).message}`, {
      data: { path },
      cause,
    });
  }
}
