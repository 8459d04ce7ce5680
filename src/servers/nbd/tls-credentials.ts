/** TLS credentials in the files of the stock tools: a directory with certificates, or with pre-shared keys. */
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { SecureContextOptions } from "node:tls";
import { isZcowError, ZcowError } from "../../base/errors.js";

export interface TlsServerCredentials {
  readonly context: SecureContextOptions;
  /** Clients must show a certificate that the authority of the directory has signed. */
  readonly verifyPeer: boolean;
  /** The key of a name, where clients prove themselves by keys. */
  readonly pskOf?: (identity: string) => Uint8Array | undefined;
  /** Whether a client with this name on its certificate may connect. Default: every one that is signed. */
  readonly permits?: (name: string) => boolean;
}

/** Suites with keys that are agreed on beforehand, those with fresh keys per session first. */
const PSK_CIPHERS =
  "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES256-GCM-SHA384:DHE-PSK-AES128-GCM-SHA256:PSK-AES256-GCM-SHA384:PSK-AES128-GCM-SHA256";
const PSK_LINE = /^([^:#]+):([0-9a-fA-F]+)$/;
/** Bytes of a credentials file; certificates with their chains take a few thousand. */
const FILE_BYTES = 1 << 20;

export interface X509Choice {
  /** Clients must show a certificate. */
  readonly verifyPeer: boolean;
  /** Certificates that nobody would accept today are refused. */
  readonly checkDates: boolean;
  readonly permits?: ((name: string) => boolean) | undefined;
}

/**
 * `ca-cert.pem`, `server-cert.pem` and `server-key.pem` of `directory`; `dh-params.pem` and `ca-crl.pem` where they are. Fails
 * with `NOT_FOUND`, `ACCESS_DENIED`, and `INVALID_ARGUMENT` for a certificate that is not valid yet, or no more.
 */
export function x509Credentials(directory: string, choice: X509Choice): TlsServerCredentials {
  const { verifyPeer, checkDates, permits } = choice;
  const optional = (name: string): Buffer | undefined => {
    try {
      return credentialFile(directory, name);
    } catch (error) {
      if (isZcowError(error, "NOT_FOUND")) return undefined;
      throw error;
    }
  };
  const ca = credentialFile(directory, "ca-cert.pem");
  const cert = credentialFile(directory, "server-cert.pem");
  if (checkDates) {
    requireCurrent(ca, "CA", join(directory, "ca-cert.pem"));
    requireCurrent(cert, "server", join(directory, "server-cert.pem"));
  }
  const crl = optional("ca-crl.pem");
  const dhparam = optional("dh-params.pem");
  return {
    verifyPeer,
    context: {
      minVersion: "TLSv1.2",
      ca,
      cert,
      key: credentialFile(directory, "server-key.pem"),
      ...(crl === undefined ? {} : { crl }),
      ...(dhparam === undefined ? {} : { dhparam }),
    },
    ...(permits === undefined ? {} : { permits }),
  };
}

/** `keys.psk` of `directory`, in the format of psktool: a line `NAME:HEX` per client. */
export function pskCredentials(directory: string): TlsServerCredentials {
  const keys = readPskFile(join(directory, "keys.psk"));
  return {
    verifyPeer: false,
    pskOf: (identity) => keys.get(identity),
    context: { minVersion: "TLSv1.2", ciphers: PSK_CIPHERS },
  };
}

/** Names and keys of a file made by psktool. */
export function readPskFile(path: string): Map<string, Uint8Array> {
  const keys = new Map<string, Uint8Array>();
  for (const line of readCredential(path).toString("utf8").split("\n")) {
    if (line.trim() === "" || line.startsWith("#")) continue;
    const match = PSK_LINE.exec(line.trim());
    if (match === null || (match[2]?.length ?? 1) % 2 === 1) {
      throw new ZcowError("INVALID_ARGUMENT", `${path}: a line is not of the form NAME:HEXADECIMAL-KEY`, {
        data: { path },
      });
    }
    keys.set(match[1] ?? "", Buffer.from(match[2] ?? "", "hex"));
  }
  return keys;
}

function requireCurrent(bytes: Uint8Array, whose: "CA" | "server", path: string): void {
  const certificate = parsed(bytes);
  if (certificate === undefined) return;
  const { validFrom, validTo } = certificate;
  const now = Date.now();
  if (now >= Date.parse(validFrom) && now <= Date.parse(validTo)) return;
  const state = now > Date.parse(validTo) ? "has expired" : "is not yet active";
  throw new ZcowError(
    "INVALID_ARGUMENT",
    `the certificate ${path} ${state}; it is valid from ${validFrom} to ${validTo}`,
    {
      data: { path },
      stockText: `The ${whose} certificate ${path} ${state}`,
    },
  );
}

/** What cannot be read fails where it is used, with a better reason. */
function parsed(bytes: Uint8Array): X509Certificate | undefined {
  try {
    return new X509Certificate(bytes);
  } catch {
    return undefined;
  }
}

function credentialFile(directory: string, name: string): Buffer {
  return readCredential(join(directory, name));
}

function readCredential(path: string): Buffer {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    const errno = (cause as NodeJS.ErrnoException).code;
    const code = errno === "ENOENT" ? "NOT_FOUND" : "ACCESS_DENIED";
    throw new ZcowError(code, `cannot read the TLS credentials ${path}: ${(cause as Error).message}`, {
      data: { path },
      cause,
      stockText: `Unable to access credentials ${path}: No such file or directory`,
    });
  }
  if (bytes.length <= FILE_BYTES) return bytes;
  throw new ZcowError(
    "INVALID_ARGUMENT",
    `${path} has ${bytes.length} bytes; TLS credentials have at most ${FILE_BYTES}`,
    {
      data: { path, limit: FILE_BYTES },
    },
  );
}
