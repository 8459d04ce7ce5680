/** `--list`: the exports of another server, as the stock tool shows them. */
import { EXPORT_FLAG } from "../codec/nbd/wire.js";
import { listRemoteExports } from "../storage/nbd/client-link.js";
import type { NbdAddress, NbdTlsAddress } from "../storage/nbd/nbd-uri.js";
import type { ListedExport } from "../storage/nbd/negotiation.js";
import type { CommandContext } from "./context.js";
import { nbdAddress } from "./nbd-options.js";
import { credentialsObject, definedObjects } from "./nbd-tls.js";
import { isGiven, lastValue, type ParsedArguments } from "./options.js";
import { UsageError } from "./usage-error.js";

/** Names of the flags in the order in which they are shown. */
const FLAG_NAMES: readonly (readonly [number, string])[] = [
  [EXPORT_FLAG.readOnly, "readonly"],
  [EXPORT_FLAG.flush, "flush"],
  [EXPORT_FLAG.fua, "fua"],
  [EXPORT_FLAG.rotational, "rotational"],
  [EXPORT_FLAG.trim, "trim"],
  [EXPORT_FLAG.writeZeroes, "zeroes"],
  [EXPORT_FLAG.dontFragment, "df"],
  [EXPORT_FLAG.multiConnection, "multi"],
  [0x200, "resize"],
  [EXPORT_FLAG.cache, "cache"],
  [EXPORT_FLAG.fastZero, "fast-zero"],
];

const PER_DEVICE = [
  "export-name",
  "description",
  "offset",
  "bitmap",
  "allocation-depth",
  "read-only",
  "snapshot",
  "load-snapshot",
];

export async function listCommand(parsed: ParsedArguments, context: CommandContext): Promise<number> {
  if (parsed.positionals.length > 0) throw new UsageError("List mode is incompatible with a file name", false);
  if (PER_DEVICE.some((name) => isGiven(parsed, name))) {
    throw new UsageError("List mode is incompatible with per-device settings", false);
  }
  const exports = await listRemoteExports(serverAddress(parsed));
  context.output.out(`exports available: ${exports.length}\n${exports.map(exportText).join("")}`);
  return 0;
}

function serverAddress(parsed: ParsedArguments): NbdAddress {
  const where = nbdAddress(parsed);
  const tls = tlsAddress(parsed);
  const scheme = tls === undefined ? "nbd" : "nbds";
  const uri =
    where.kind === "unix" ? `${scheme}+unix:///?socket=${where.path}` : `${scheme}://${where.host}:${where.port}`;
  return { uri, where, exportName: "", tls };
}

function tlsAddress(parsed: ParsedArguments): NbdTlsAddress | undefined {
  const objects = definedObjects(parsed);
  const id = lastValue(parsed, "tls-creds");
  if (id === undefined) return undefined;
  const { type, options } = credentialsObject(objects, id, "client");
  const directory = options.get("dir");
  if (directory === undefined) throw new UsageError(`TLS credentials '${id}' need a directory: dir=PATH`, false);
  const psk = type === "tls-creds-psk";
  return {
    certificates: psk ? undefined : directory,
    pskFile: psk ? `${directory}/keys.psk` : undefined,
    username: options.get("username"),
    hostname: lastValue(parsed, "tls-hostname"),
    verifyPeer: (options.get("verify-peer") ?? "on") === "on",
  };
}

function exportText({ name, info, contexts }: ListedExport): string {
  const lines = [` export: '${name}'`];
  if (info !== undefined) {
    if (info.description !== undefined) lines.push(`  description: ${info.description}`);
    lines.push(`  size:  ${info.size}`);
    const flags = FLAG_NAMES.filter(([bit]) => (info.flags & bit) !== 0).map(([, text]) => `${text} `);
    if (info.flags !== 0) lines.push(`  flags: 0x${info.flags.toString(16)} ( ${flags.join("")})`);
    const { blockSizes } = info;
    if (blockSizes !== undefined) {
      lines.push(
        `  min block: ${blockSizes.minimum}`,
        `  opt block: ${blockSizes.preferred}`,
        `  max block: ${blockSizes.maximum}`,
      );
    }
  }
  if (contexts.length > 0) {
    lines.push(`  available meta contexts: ${contexts.length}`, ...contexts.map((context) => `   ${context}`));
  }
  return `${lines.join("\n")}\n`;
}
