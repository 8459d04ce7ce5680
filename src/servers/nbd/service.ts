import { ZcowError } from "../../base/errors.js";
import { isAligned } from "../../base/integers.js";
import type { BlockDevice } from "../../block/block-device.js";
import { STRING_BYTES } from "../../codec/nbd/wire.js";
import { NbdExport, type NbdExportOptions } from "../../protocols/nbd/export.js";
import { DEFAULT_NBD_LIMITS, type NbdLimits } from "../../protocols/nbd/limits.js";
import { standardContexts } from "../../protocols/nbd/meta-context.js";
import type { NbdEvent, NbdTarget } from "../../protocols/nbd/target.js";
import { DataBuffers } from "../../protocols/nvme/data-buffers.js";
import type { Logger } from "../nvme-tcp/logger.js";
import { systemClock } from "../nvme-tcp/system-clock.js";
import type { ListenAddress } from "./listen-address.js";
import { NbdServer } from "./server.js";
import { DEFAULT_NBD_SERVER_LIMITS, type NbdServerLimits } from "./server-limits.js";
import { TlsAcceptor } from "./tls-acceptor.js";
import type { TlsServerCredentials } from "./tls-credentials.js";

export interface NbdServiceOptions {
  /** Disks that are open; the service closes them when it ends. */
  readonly exports: readonly NbdExportOptions[];
  readonly addresses: readonly ListenAddress[];
  readonly log: Logger;
  readonly tls?: TlsServerCredentials;
  readonly limits?: Partial<NbdLimits>;
  readonly serverLimits?: Partial<NbdServerLimits>;
  /** Called when the last client has gone. */
  readonly onIdle?: () => void;
}

/** How long connections may take to end before they are dropped, milliseconds. */
const FAREWELL_MILLISECONDS = 2_000;

/** Disks served over NBD, until `close`. */
export class NbdService {
  readonly server: NbdServer;
  readonly exports: readonly NbdExport[];
  readonly #devices: readonly BlockDevice[];
  #closing: Promise<void> | undefined;

  private constructor(server: NbdServer, exports: readonly NbdExport[]) {
    this.server = server;
    this.exports = exports;
    this.#devices = [...new Set(exports.map(({ device }) => device))];
  }

  /**
   * Serves the disks. Fails with `ADDRESS_IN_USE`, `ADDRESS_UNAVAILABLE`, and `INVALID_ARGUMENT` for names, offsets
   * and credentials; the disks stay the caller's then.
   */
  static async start(options: NbdServiceOptions): Promise<NbdService> {
    const exports = exportsByName(options.exports);
    const serverLimits = { ...DEFAULT_NBD_SERVER_LIMITS, ...options.serverLimits };
    const tls = options.tls && acceptorOf(options.tls, serverLimits);
    // Fresh memory costs a page fault per page, which is more than all the rest of a large read.
    const buffers = new DataBuffers((bytes) => Buffer.allocUnsafeSlow(bytes));
    const target: NbdTarget = {
      exports,
      limits: { ...DEFAULT_NBD_LIMITS, ...options.limits },
      tls: tls === undefined ? "off" : "required",
      clock: systemClock,
      soon: (callback) => void setImmediate(callback),
      allocate: (bytes) => buffers.take(bytes),
      buffers,
      report: (event) => logEvent(options.log, event),
    };
    const server = await NbdServer.listen({
      target,
      addresses: options.addresses,
      limits: serverLimits,
      log: options.log,
      ...(tls === undefined ? {} : { tls }),
      onClientGone: (left) => {
        if (left === 0) options.onIdle?.();
      },
    });
    return new NbdService(server, [...exports.values()]);
  }

  /**
   * Takes no more connections, ends those there are, makes everything durable, closes the disks. Idempotent. Fails when
   * something could not be made durable; everything is closed then, too.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.server.stopAccepting();
    this.server.endConnections("the server stops");
    const farewell = setTimeout(() => this.server.destroyConnections(), FAREWELL_MILLISECONDS);
    const results = await Promise.allSettled(this.#devices.map((device) => device.close()));
    await this.server.allGone();
    clearTimeout(farewell);
    for (const result of results) if (result.status === "rejected") throw result.reason;
  }
}

function exportsByName(wanted: readonly NbdExportOptions[]): Map<string, NbdExport> {
  const exports = new Map<string, NbdExport>();
  for (const options of wanted) {
    checkExport(options);
    if (exports.has(options.name)) {
      throw new ZcowError("INVALID_ARGUMENT", `there are two exports of the name '${options.name}'`, {
        data: { field: "name", value: options.name },
      });
    }
    const contexts = [...standardContexts(options.device), ...(options.contexts ?? [])];
    exports.set(options.name, new NbdExport(options, contexts));
  }
  return exports;
}

function checkExport({ name, description, device, offset = 0 }: NbdExportOptions): void {
  for (const [field, value] of [
    ["name", name],
    ["description", description ?? ""],
  ] as const) {
    if (Buffer.byteLength(value) <= STRING_BYTES) continue;
    const stockText = `export ${field} '${value}' too long`;
    throw new ZcowError("INVALID_ARGUMENT", `the ${field} of an export is longer than ${STRING_BYTES} bytes`, {
      data: { field, limit: STRING_BYTES },
      stockText,
    });
  }
  const alignment = device.limits.requestAlignment;
  if (!Number.isSafeInteger(offset) || offset < 0 || offset > device.size || !isAligned(offset, alignment)) {
    throw new ZcowError(
      "INVALID_ARGUMENT",
      `an export starts at ${offset}, which is not a multiple of ${alignment} from 0 to ${device.size}`,
      { data: { field: "offset", value: offset, limit: device.size } },
    );
  }
}

function acceptorOf(credentials: TlsServerCredentials, limits: NbdServerLimits): TlsAcceptor {
  try {
    return new TlsAcceptor(credentials, limits.tlsHandshakeMilliseconds);
  } catch (cause) {
    throw new ZcowError("INVALID_ARGUMENT", `the TLS credentials cannot be used: ${(cause as Error).message}`, {
      cause,
    });
  }
}

function logEvent(log: Logger, event: NbdEvent): void {
  const { kind, peer } = event;
  switch (event.kind) {
    case "connected":
      return log.info(kind, { peer, export: event.export, tls: event.tls });
    case "refused":
      return log.warn(kind, { peer, reason: event.reason });
    case "ended":
      return log.info(kind, { peer, reason: event.reason });
    case "request-failed":
      return log.warn(kind, { peer, operation: event.operation, code: event.error.code, reason: event.error.message });
    case "internal-error":
      return log.error(kind, {
        peer,
        reason: event.error instanceof Error ? event.error.message : String(event.error),
      });
  }
}
