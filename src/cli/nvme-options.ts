import { readFileSync } from "node:fs";
import { isZcowError } from "../base/errors.js";
import { parseSize } from "../base/size-text.js";
import { type ChapGroup, type ChapHash, GROUPS, HASHES } from "../protocols/nvme/auth/chap-crypto.js";
import type { TargetLimits } from "../protocols/nvme/limits.js";
import type { BlockSize } from "../protocols/nvme/namespace.js";
import { requireNqn } from "../protocols/nvme/nqn.js";
import type { HostAccess } from "../protocols/nvme/subsystem.js";
import { parseUuid } from "../servers/nvme-tcp/identity.js";
import type { LogFormat } from "../servers/nvme-tcp/logger.js";
import { type ChapAccessOptions, chapAccess } from "../servers/nvme-tcp/security/chap-access.js";
import { parseTlsKey, type TlsKey } from "../servers/nvme-tcp/security/tls-key.js";
import type { ImageToServe } from "../servers/nvme-tcp/served-image.js";
import type { TlsKeys } from "../servers/nvme-tcp/tls-accepting.js";
import { IMAGE_OPTS_OPTION, OBJECT_OPTION } from "./common-options.js";
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

export const NVME_OPTIONS: readonly OptionGroup[] = [
  {
    heading: "Serving",
    options: [
      value("listen", "l", "HOST:PORT", "default 127.0.0.1:4420; port 0 takes a free one"),
      value("nqn", "n", "NQN", "name of the subsystem; made from the image's path when left out"),
      flag("separate", undefined, "a subsystem per image instead of one for all"),
      value(
        "uuid",
        undefined,
        "UUID",
        "of the disk; once per image, in their order. Made from the image's path when left out",
      ),
      value("format", "f", "FORMAT", "of the images; recognised by content when left out"),
      OBJECT_OPTION,
      IMAGE_OPTS_OPTION,
      flag("read-only", "r", "refuse writes"),
      value("lba-size", undefined, "SIZE", "512 or 4096; 4096 where the image allows it when left out"),
      flag("keep-space", undefined, "zones keep their host space when they are reset, and are faster to write again"),
      flag("multipath", undefined, "let a host see several connections as paths to one disk"),
      flag("shared", undefined, "let several hosts connect at one time"),
      flag("help", "h"),
    ],
  },
  {
    heading: "Who may connect",
    options: [
      value(
        "host",
        undefined,
        "NQN[,SETTING]",
        "only hosts that are listed; SETTING is dhchap=SECRET, dhchap-ctrl=SECRET or tls-psk=KEY",
      ),
      value("dhchap-secret", undefined, "SECRET", "secret (DHHC-1:...) of the hosts that have none of their own"),
      value("dhchap-ctrl-secret", undefined, "SECRET", "secret that proves this server to hosts which ask for it"),
      value("dhchap-hash", undefined, "LIST", "sha256,sha384,sha512: those acceptable, the preferred first"),
      value(
        "dhchap-group",
        undefined,
        "LIST",
        "ffdhe2048 to ffdhe8192 and null: those acceptable, the preferred first",
      ),
      value("tls-psk", undefined, "KEY", "TLS 1.3 with this key (NVMeTLSkey-1:01:...), for all connections"),
      flag("tls-compat", undefined, "the key was inserted by an older nvme-cli (or with --compat)"),
    ],
    note: "Secrets and keys may be given as the name of a file, which keeps them out of the list of processes.",
  },
  {
    heading: "Limits",
    options: [
      value("mdts", undefined, "SIZE", "largest read or write (default 1M)"),
      value("zasl", undefined, "SIZE", "largest zone append (default 128k)"),
      value("in-capsule", undefined, "SIZE", "write data that may come with its command (default 8k)"),
      value("maxh2cdata", undefined, "SIZE", "largest piece of other write data (default 128k)"),
      value("queues", undefined, "N", "I/O queues per host (default 16)"),
    ],
  },
  {
    heading: "Safety",
    options: [
      value(
        "journal",
        undefined,
        "DIR",
        "where to keep what is written and not flushed, which a killed server then does not lose; beside each image when left out; 'off': nowhere",
      ),
    ],
  },
  {
    heading: "Watching",
    options: [
      value("control", undefined, "SOCKET", "Unix socket for 'zcow control' and 'zcow zone set-state'"),
      value("metrics", undefined, "HOST:PORT", "metrics for Prometheus at /metrics"),
      value("log-format", undefined, "FORM", "text (default) or json, on standard error"),
    ],
  },
];

const DEFAULT_HOST = "127.0.0.1";
const DEFAULT_PORT = 4420;

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** `HOST:PORT`, `[IPv6]:PORT`, `PORT` or `HOST`. */
export function addressOption(name: string, text: string | undefined, defaultPort: number): Address {
  if (text === undefined) return { host: DEFAULT_HOST, port: defaultPort };
  if (/^\d+$/.test(text)) return { host: DEFAULT_HOST, port: portNumber(name, text) };
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+))(?::(\d+))?$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined) throw new UsageError(`--${name} '${text}' is not of the form HOST:PORT`, false);
  const port = match?.[3];
  return { host, port: port === undefined ? defaultPort : portNumber(name, port) };
}

function portNumber(name: string, text: string): number {
  const port = Number(text);
  if (port <= 0xffff) return port;
  throw new UsageError(`--${name}: ${text} is not a port, 0 to 65535`, false);
}

export function listenOption(parsed: ParsedArguments): Address {
  return addressOption("listen", lastValue(parsed, "listen"), DEFAULT_PORT);
}

export function logFormatOption(parsed: ParsedArguments): LogFormat {
  const format = lastValue(parsed, "log-format") ?? "text";
  if (format === "text" || format === "json") return format;
  throw new UsageError(`--log-format '${format}' is neither text nor json`, false);
}

export function blockSizeOption(parsed: ParsedArguments): BlockSize | undefined {
  const text = lastValue(parsed, "lba-size");
  if (text === undefined) return undefined;
  const size = parseSize(text);
  if (size === 512 || size === 4096) return size;
  throw new UsageError(`--lba-size '${text}' is neither 512 nor 4096`, false);
}

/** Where journals go: nothing said, "off", or a directory. */
export function journalOption(parsed: ParsedArguments): NonNullable<ImageToServe["journal"]> {
  const place = lastValue(parsed, "journal");
  if (place === undefined) return "beside";
  return place === "off" ? false : { directory: place };
}

/** Options that set a limit of the target. */
const LIMIT_OPTIONS = {
  mdts: "transferBytes",
  zasl: "appendBytes",
  "in-capsule": "inCapsuleBytes",
  maxh2cdata: "h2cDataBytes",
  queues: "ioQueues",
} as const satisfies Record<string, keyof TargetLimits>;

/** The limits that were given; the target checks their values. */
export function limitOptions(parsed: ParsedArguments): Partial<TargetLimits> {
  const limits: { -readonly [Name in keyof TargetLimits]?: TargetLimits[Name] } = {};
  for (const [option, limit] of Object.entries(LIMIT_OPTIONS)) {
    const text = lastValue(parsed, option);
    if (text === undefined) continue;
    const value = parseSize(text);
    if (value === undefined) {
      throw new UsageError(`--${option} '${text}' is not a number (with an optional suffix k, M)`, false);
    }
    limits[limit] = value;
  }
  // Without a word about it, appends must not be above the largest transfer.
  if (limits.appendBytes === undefined && limits.transferBytes !== undefined && limits.transferBytes < 128 * 1024) {
    limits.appendBytes = limits.transferBytes;
  }
  return limits;
}

/** An error about a limit, in terms of the option that sets it; any other as it is. */
export function inTermsOfOptions(error: unknown): unknown {
  if (!isZcowError(error, "INVALID_ARGUMENT")) return error;
  const [option] = Object.entries(LIMIT_OPTIONS).find(([, limit]) => limit === error.data.field) ?? [];
  return option === undefined ? error : new UsageError(`--${option}: ${error.message}`, false);
}

/** The UUIDs of the images, in their order. */
export function uuidOptions(parsed: ParsedArguments): Uint8Array[] {
  const uuids = allValues(parsed, "uuid").map(parseUuid);
  if (uuids.length <= parsed.positionals.length) return uuids;
  throw new UsageError(`there are ${uuids.length} --uuid for ${parsed.positionals.length} images`, false);
}

/** What one `--host` says: `NQN[,dhchap=SECRET][,dhchap-ctrl=SECRET][,tls-psk=KEY]`. */
interface HostOption {
  readonly nqn: string;
  readonly settings: ReadonlyMap<string, string>;
}

const HOST_SETTINGS = ["dhchap", "dhchap-ctrl", "tls-psk"];

function hostOptions(parsed: ParsedArguments): HostOption[] {
  return allValues(parsed, "host").map((text) => {
    const [nqn = "", ...rest] = text.split(",");
    requireNqn(nqn, "--host");
    const settings = new Map<string, string>();
    for (const part of rest) {
      const equals = part.indexOf("=");
      const name = part.slice(0, Math.max(0, equals));
      if (!HOST_SETTINGS.includes(name)) {
        throw new UsageError(
          `--host ${nqn}: each setting must be one of ${HOST_SETTINGS.join(", ")}, with '=' and a value`,
          false,
        );
      }
      settings.set(name, part.slice(equals + 1));
    }
    return { nqn, settings };
  });
}

/** Who may connect, and how each must prove itself. */
export function accessOptions(parsed: ParsedArguments): ReadonlyMap<string, HostAccess> | "any" {
  const hosts = hostOptions(parsed);
  const common = lastValue(parsed, "dhchap-secret");
  const commonController = lastValue(parsed, "dhchap-ctrl-secret");
  const algorithms = chapAlgorithms(parsed);
  if (hosts.length === 0) {
    if (common === undefined && commonController === undefined) return "any";
    throw new UsageError("a DH-HMAC-CHAP secret belongs to a host: say which with --host", false);
  }
  const access = new Map<string, HostAccess>();
  for (const { nqn, settings } of hosts) {
    const secret = settings.get("dhchap") ?? common;
    const controllerSecret = settings.get("dhchap-ctrl") ?? commonController;
    if (secret === undefined) {
      if (controllerSecret !== undefined) {
        throw new UsageError(`--host ${nqn}: a controller's secret needs one for the host, too`, false);
      }
      access.set(nqn, {});
      continue;
    }
    const controller =
      controllerSecret === undefined ? {} : { controllerSecret: secretText("dhchap-ctrl-secret", controllerSecret) };
    access.set(nqn, chapAccess(secretText("dhchap-secret", secret), { ...controller, ...algorithms }));
  }
  return access;
}

type ChapAlgorithms = Pick<ChapAccessOptions, "hashes" | "groups">;

function chapAlgorithms(parsed: ParsedArguments): ChapAlgorithms {
  const hashes = lastValue(parsed, "dhchap-hash");
  const groups = lastValue(parsed, "dhchap-group");
  return {
    ...(hashes === undefined ? {} : { hashes: chosen("dhchap-hash", Object.keys(HASHES) as ChapHash[], hashes) }),
    ...(groups === undefined ? {} : { groups: chosen("dhchap-group", Object.keys(GROUPS) as ChapGroup[], groups) }),
  };
}

/** The names of a list with commas, which is also their order. */
function chosen<Name extends string>(option: string, known: readonly Name[], text: string): readonly Name[] {
  return text.split(",").map((name) => {
    const found = known.find((one) => one === name);
    if (found === undefined) throw new UsageError(`--${option} '${name}' is not one of ${known.join(", ")}`, false);
    return found;
  });
}

/** The TLS keys, when there are any: then every connection must use one. */
export function tlsOptions(parsed: ParsedArguments): TlsKeys | undefined {
  const commonText = lastValue(parsed, "tls-psk");
  const common = commonText === undefined ? undefined : parseTlsKey(secretText("tls-psk", commonText));
  const own = new Map<string, TlsKey>();
  for (const { nqn, settings } of hostOptions(parsed)) {
    const key = settings.get("tls-psk");
    if (key !== undefined) own.set(nqn, parseTlsKey(secretText("tls-psk", key)));
  }
  if (common === undefined && own.size === 0) {
    if (isGiven(parsed, "tls-compat")) throw new UsageError("--tls-compat needs --tls-psk", false);
    return undefined;
  }
  return {
    keyOf: (hostNqn) => own.get(hostNqn) ?? common,
    derivation: isGiven(parsed, "tls-compat") ? "unprefixed" : "standard",
  };
}

/** A secret given as such, or the first line of the file that has it. */
function secretText(option: string, given: string): string {
  if (/^(DHHC|NVMeTLSkey)-/.test(given)) return given;
  try {
    return readFileSync(given, "utf8").split("\n")[0] ?? "";
  } catch (error) {
    const reason = error instanceof Error && "code" in error ? String(error.code) : "it cannot be read";
    // The value may be a secret that was mistyped: it must not be shown.
    throw new UsageError(`--${option}: the value is neither a secret nor a file that can be read (${reason})`, false);
  }
}
