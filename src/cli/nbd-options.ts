import { parseSize } from "../base/size-text.js";
import type { ZeroDetection } from "../protocols/nbd/export.js";
import type { ListenAddress } from "../servers/nbd/listen-address.js";
import { type CacheMode, cacheMode, WRITE_BACK } from "./cache-mode.js";
import type { OptionGroup } from "./manual.js";
import {
  allValues,
  flagOption as flag,
  isGiven,
  lastValue,
  type ParsedArguments,
  valueOption as value,
} from "./options.js";
import { UsageError } from "./usage-error.js";

/** The options of the stock tool, and ours. Those that say nothing are taken to be refused or passed over. */
export const NBD_OPTIONS: readonly OptionGroup[] = [
  {
    heading: "Serving",
    options: [
      value("port", "p", "PORT", "default 10809; 0 takes a free one"),
      value("bind", "b", "ADDRESS", "default 127.0.0.1; 0.0.0.0 for all"),
      value("socket", "k", "PATH", "a Unix socket in place of TCP"),
      value("shared", "e", "N", "clients at one time; 0, the default, for any number (as qemu-nbd: 1)"),
      flag("persistent", "t", "stay when the last client has gone (as qemu-nbd; otherwise always)"),
      value(
        "export-name",
        "x",
        "NAME",
        'once per image, in their order; default "" for one image, else the names of the files',
      ),
      value("description", "D", "TEXT", "what clients are told about the exports"),
      flag("fork", undefined, "go to the background when serving has begun"),
      value("pid-file", undefined, "PATH", "file to write the number of the process to"),
      value("handshake-limit", undefined, "SECONDS", "for choosing an export (default 10; 0: no limit)"),
    ],
    note: "Sockets that systemd hands over (LISTEN_FDS) are used in place of -b, -p and -k.",
  },
  {
    heading: "What is served",
    options: [
      value("format", "f", "FORMAT", "of the images; recognised by content when left out"),
      flag("read-only", "r", "refuse writes"),
      value(
        "load-snapshot",
        "l",
        "NAME",
        "a snapshot inside the image, by id or name, read-only; also snapshot.id=ID, snapshot.name=NAME",
      ),
      value("offset", "o", "BYTES", "leave out so much at the start"),
      flag("allocation-depth", "A", "metadata context qemu:allocation-depth"),
      value("bitmap", "B", "NAME", "metadata context qemu:dirty-bitmap:NAME, of a bitmap in the image"),
      flag("resizable", undefined, "let clients that know how make raw and qcow2 disks larger"),
      flag("zoned-writes", undefined, "let clients write to zoned images, which are read-only otherwise"),
      flag("image-opts", undefined, "IMAGE is a list of options: driver=qcow2,file.filename=PATH"),
    ],
  },
  {
    heading: "How the disk is used",
    options: [
      value("cache", undefined, "MODE", "writeback (default), writethrough, none, directsync, unsafe"),
      flag("nocache", "n", "the same as --cache none"),
      value("discard", undefined, "MODE", "unmap (default) or ignore (default as qemu-nbd)"),
      value("detect-zeroes", undefined, "MODE", "off (default), on, unmap: make writes of zeros holes"),
      value("aio", undefined, "MODE"),
      flag("snapshot", "s", "what clients write goes to a temporary file, and the image stays as it is"),
    ],
  },
  {
    heading: "Who may connect (TLS)",
    options: [
      value(
        "object",
        undefined,
        "OBJECT",
        "tls-creds-x509,id=ID,endpoint=server,dir=DIRECTORY[,verify-peer=off], or " +
          "tls-creds-psk,id=ID,endpoint=server,dir=DIRECTORY: what proves both ends; " +
          "authz-simple,id=ID,identity=NAME, authz-list or authz-list-file: whom to let in",
      ),
      value("tls-creds", undefined, "ID", "require TLS with these credentials"),
      value("tls-authz", undefined, "ID", "only clients whose certificate this object allows"),
      value("tls-hostname", undefined, "NAME"),
    ],
  },
  {
    heading: "Asking another server",
    options: [flag("list", "L", "show its exports; with -b, -p, -k and the TLS options")],
  },
  {
    heading: "Watching",
    options: [
      value("log-format", undefined, "FORM", "text (default) or json, on standard error (as qemu-nbd: only with -v)"),
      flag("verbose", "v", "as qemu-nbd: log on standard error"),
      value("trace", "T"),
      value("selinux-label"),
      value("connect", "c"),
      flag("disconnect", "d"),
      flag("version", "V"),
      flag("help", "h"),
    ],
  },
];

export const DEFAULT_NBD_PORT = 10_809;
/** The stock server listens on all addresses; who wants that says so. */
const LOOPBACK = "127.0.0.1";
const LONGEST_NUMBER = 9;

/** How the image is used, by options that the stock tool has too. */
export interface NbdDiskOptions {
  readonly cache: CacheMode;
  readonly discard: boolean;
  readonly zeroDetection: ZeroDetection;
  /** Bytes. */
  readonly offset: number;
}

/** `discard`: what discards do unless told. */
export function diskOptions(parsed: ParsedArguments, discard: boolean): NbdDiskOptions {
  requireAio(parsed);
  const options = { cache: cacheOption(parsed), discard: discardOption(parsed, discard) };
  const zeroDetection = detectZeroesOption(parsed);
  if (zeroDetection === "unmap" && !options.discard) {
    throw new UsageError(
      "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
      false,
    );
  }
  return { ...options, zeroDetection, offset: offsetOption(parsed) };
}

function cacheOption(parsed: ParsedArguments): CacheMode {
  if (isGiven(parsed, "nocache") && isGiven(parsed, "cache")) {
    throw new UsageError("-n and --cache can only be specified once", false);
  }
  const name = isGiven(parsed, "nocache") ? "none" : lastValue(parsed, "cache");
  if (name === undefined) return WRITE_BACK;
  const mode = cacheMode(name);
  if (mode === undefined) throw new UsageError(`Invalid cache mode \`${name}'`, false);
  return mode;
}

function requireAio(parsed: ParsedArguments): void {
  const mode = lastValue(parsed, "aio");
  // What suits the disk is found out by itself; the names are taken so that scripts run.
  if (mode === undefined || ["threads", "native", "io_uring"].includes(mode)) return;
  throw new UsageError(`Invalid aio mode '${mode}'`, false);
}

function discardOption(parsed: ParsedArguments, byDefault: boolean): boolean {
  const mode = lastValue(parsed, "discard");
  if (mode === undefined) return byDefault;
  if (mode === "unmap" || mode === "on") return true;
  if (mode === "ignore" || mode === "off") return false;
  throw new UsageError(`Invalid discard mode \`${mode}'`, false);
}

function detectZeroesOption(parsed: ParsedArguments): ZeroDetection {
  const mode = lastValue(parsed, "detect-zeroes") ?? "off";
  const modes: Readonly<Record<string, ZeroDetection>> = { off: "off", on: "zeroes", unmap: "unmap" };
  const found = Object.hasOwn(modes, mode) ? modes[mode] : undefined;
  if (found !== undefined) return found;
  throw new UsageError(`Failed to parse detect_zeroes mode: invalid parameter value: ${mode}`, false);
}

function offsetOption(parsed: ParsedArguments): number {
  const text = lastValue(parsed, "offset");
  if (text === undefined) return 0;
  // The stock tool takes plain numbers only; sizes as elsewhere do no harm.
  const offset = parseSize(text);
  if (offset === undefined || !Number.isSafeInteger(offset)) throw new UsageError(`Invalid offset '${text}'`, false);
  return offset;
}

/** How many clients may be there at one time; 0 for any number. */
export function sharedOption(parsed: ParsedArguments, byDefault: number): number {
  const text = lastValue(parsed, "shared");
  if (text === undefined) return byDefault;
  if (/^\d+$/.test(text) && text.length <= LONGEST_NUMBER) return Number(text);
  throw new UsageError(`Invalid shared device number '${text}'`, false);
}

/** Seconds for the handshake; 0 for any time. */
export function handshakeLimitOption(parsed: ParsedArguments): number | undefined {
  const text = lastValue(parsed, "handshake-limit");
  if (text === undefined) return undefined;
  if (/^\d+$/.test(text) && text.length <= 5) return Number(text);
  throw new UsageError(`Invalid handshake limit '${text}'`, false);
}

/** Where to listen, or where the server is that is to be asked. */
export function nbdAddress(parsed: ParsedArguments): Exclude<ListenAddress, { kind: "descriptor" }> {
  const path = lastValue(parsed, "socket");
  if (path !== undefined) {
    if (!path.startsWith("/")) throw new UsageError("socket path must be absolute", false);
    return { kind: "unix", path };
  }
  const host = lastValue(parsed, "bind") ?? LOOPBACK;
  return { kind: "tcp", host, port: portOption(parsed, host) };
}

function portOption(parsed: ParsedArguments, host: string): number {
  const text = lastValue(parsed, "port");
  if (text === undefined) return DEFAULT_NBD_PORT;
  if (/^\d{1,5}$/.test(text) && Number(text) <= 0xffff) return Number(text);
  throw new UsageError(`address resolution failed for ${host}:${text}: Servname not supported for ai_socktype`, false);
}

/** First descriptor that is handed over (sd_listen_fds). */
const FIRST_HANDED_OVER = 3;

/** Sockets that whoever started this process listens at already (`LISTEN_FDS`, as systemd does it). */
export function handedOverSockets(environment: NodeJS.ProcessEnv, pid: number): ListenAddress[] {
  const { LISTEN_PID, LISTEN_FDS } = environment;
  if (LISTEN_PID !== String(pid) || LISTEN_FDS === undefined || !/^\d{1,3}$/.test(LISTEN_FDS)) return [];
  return Array.from({ length: Number(LISTEN_FDS) }, (_, index) => ({
    kind: "descriptor",
    fd: FIRST_HANDED_OVER + index,
  }));
}

/** Names of the exports, one per image: those given, else nothing for a single image, else each image's own. */
export function exportNames(parsed: ParsedArguments, paths: readonly string[]): string[] {
  const given = allValues(parsed, "export-name");
  if (paths.length === 1) return [given.at(-1) ?? ""];
  if (given.length > paths.length)
    throw new UsageError(`there are ${given.length} --export-name for ${paths.length} images`, false);
  return paths.map((path, index) => given[index] ?? (path.split("/").at(-1) ?? path).replace(/\.(qcow2|img|raw)$/, ""));
}

/** The snapshot to serve: `ID_OR_NAME`, `snapshot.id=ID`, `snapshot.name=NAME`. */
export function snapshotOption(parsed: ParsedArguments): string | undefined {
  const text = lastValue(parsed, "load-snapshot");
  return text === undefined ? undefined : (/^snapshot\.(?:id|name)=([^,]*)$/.exec(text)?.[1] ?? text);
}
