/** Addresses of exports (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md). */
import { ZcowError } from "../../base/errors.js";
import { STRING_BYTES } from "../../codec/nbd/wire.js";

export interface NbdAddress {
  /** As it was given; how messages call the export. */
  readonly uri: string;
  readonly where:
    | { readonly kind: "tcp"; readonly host: string; readonly port: number }
    | { readonly kind: "unix"; readonly path: string };
  /** "" is the export that servers give to who names none. */
  readonly exportName: string;
  readonly tls: NbdTlsAddress | undefined;
}

/** How the two sides of an `nbds` address prove themselves. */
export interface NbdTlsAddress {
  /** Directory with `ca-cert.pem` and, where the server asks for it, `client-cert.pem` and `client-key.pem`. */
  readonly certificates: string | undefined;
  /** File of keys agreed on beforehand, as psktool makes it. */
  readonly pskFile: string | undefined;
  /** Whose key to use. */
  readonly username: string | undefined;
  /** The name that the server's certificate must have; default: the host of the address. */
  readonly hostname: string | undefined;
  /** The server's certificate is verified. */
  readonly verifyPeer: boolean;
}

const SCHEMES = /^nbds?(\+(tcp|unix))?:\/\//;
const LEGACY = /^nbd:(?:unix:([^:]+)|(\[[0-9a-fA-F:.]+\]|[^:]+):(\d+))(?::exportname=(.*))?$/s;
const USER = /^([a-z+]+:\/\/)([^@/?#]*)@/;
const DEFAULT_PORT = 10_809;

/** Fails with `REMOTE_ADDRESS`. */
export function parseNbdAddress(text: string): NbdAddress {
  const legacy = LEGACY.exec(text);
  const address = legacy !== null && !SCHEMES.test(text) ? legacyAddress(text, legacy) : uriAddress(text);
  if (Buffer.byteLength(address.exportName) > STRING_BYTES) throw invalid(text, "the name of the export is too long");
  return address;
}

/** The address of an export by its parts; undefined when they name neither a socket nor a host. */
export function nbdUri(parts: {
  readonly host: string | undefined;
  readonly port: string | undefined;
  readonly path: string | undefined;
  readonly exportName: string | undefined;
}): string | undefined {
  const { host, port, path, exportName = "" } = parts;
  const name = encodeURIComponent(exportName);
  if (path !== undefined) return `nbd+unix:///${name}?socket=${encodeURIComponent(path).replaceAll("%2F", "/")}`;
  if (host === undefined) return undefined;
  return `nbd://${host.includes(":") ? `[${host}]` : host}${port === undefined ? "" : `:${port}`}/${name}`;
}

/** `nbd:unix:PATH:exportname=NAME` and `nbd:HOST:PORT:exportname=NAME`, as old scripts have them. */
function legacyAddress(uri: string, [, path, host, port, exportName = ""]: RegExpExecArray): NbdAddress {
  if (path !== undefined) return { uri, where: { kind: "unix", path }, exportName, tls: undefined };
  const where = { kind: "tcp", host: bare(host ?? ""), port: Number(port) } as const;
  if (where.port > 0xffff) throw invalid(uri, `${where.port} is not a port`);
  return { uri, where, exportName, tls: undefined };
}

function uriAddress(uri: string): NbdAddress {
  // Node takes no user in front of a host that is empty, as it is with Unix sockets.
  const user = USER.exec(uri);
  let url: URL;
  try {
    url = new URL(user === null ? uri : `${user[1]}${uri.slice(user[0].length)}`);
  } catch {
    throw invalid(uri, "it is not of the form SCHEME://HOST:PORT/EXPORT");
  }
  const scheme = url.protocol.slice(0, -1);
  const query = url.searchParams;
  const socket = query.get("socket");
  const exportName = decoded(uri, url.pathname.replace(/^\//, ""));
  const tls = scheme.startsWith("nbds") ? tlsOf(uri, url, user?.[2]) : undefined;
  if (scheme.endsWith("+unix")) {
    if (socket === null || socket === "") throw invalid(uri, "it names no socket (?socket=PATH)");
    if (url.host !== "" && tls === undefined) throw invalid(uri, "an address of a Unix socket has no host");
    return { uri, where: { kind: "unix", path: socket }, exportName, tls };
  }
  if (socket !== null) throw invalid(uri, "only nbd+unix and nbds+unix have a socket");
  const host = url.hostname === "" ? "localhost" : bare(decoded(uri, url.hostname));
  return {
    uri,
    where: { kind: "tcp", host, port: url.port === "" ? DEFAULT_PORT : Number(url.port) },
    exportName,
    tls,
  };
}

function tlsOf(uri: string, url: URL, user: string | undefined): NbdTlsAddress {
  const query = url.searchParams;
  const username = user === undefined ? (query.get("tls-username") ?? undefined) : decoded(uri, user);
  return {
    certificates: query.get("tls-certificates") ?? undefined,
    pskFile: query.get("tls-psk-file") ?? undefined,
    username,
    hostname: query.get("tls-hostname") ?? undefined,
    verifyPeer: !["no", "false", "0", "off"].includes(query.get("tls-verify-peer") ?? "yes"),
  };
}

function decoded(uri: string, text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid(uri, "a percent sign is not followed by two hexadecimal digits");
  }
}

function bare(host: string): string {
  return host.replace(/^\[|\]$/g, "");
}

function invalid(uri: string, why: string): ZcowError {
  return new ZcowError("REMOTE_ADDRESS", `'${uri}' is no address of an NBD export: ${why}`, {
    data: { path: uri },
    stockText: `No valid URL specified`,
  });
}
