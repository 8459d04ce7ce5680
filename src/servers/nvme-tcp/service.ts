import { isIPv6 } from "node:net";
import { ZcowError } from "../../base/errors.js";
import type { ForcedZoneState } from "../../block/zoned-device.js";
import { isZonedDevice } from "../../block/zoned-device.js";
import { DataBuffers } from "../../protocols/nvme/data-buffers.js";
import type { TargetLimits } from "../../protocols/nvme/limits.js";
import { Subsystem, type SubsystemOptions } from "../../protocols/nvme/subsystem.js";
import { Target } from "../../protocols/nvme/target.js";
import { fastCrc32c } from "./digests.js";
import type { Logger } from "./logger.js";
import {
  type ImageToServe,
  namespacesOfImage,
  openServedImage,
  type ServedImage,
  type ServedNamespace,
} from "./served-image.js";
import { NvmeTcpServer } from "./server.js";
import { DEFAULT_SERVER_LIMITS, type ServerLimits } from "./server-limits.js";
import { systemClock } from "./system-clock.js";
import { type EventCounts, targetLog } from "./target-log.js";
import type { TlsKeys } from "./tls-accepting.js";

/** A subsystem to serve; names that are left out follow from its first image. */
export interface SubsystemToServe extends Pick<SubsystemOptions, "hosts" | "shared" | "multipath"> {
  readonly nqn?: string;
  readonly images: readonly ImageToServe[];
}

/** What is served, where, and within which limits. */
export interface NvmeServiceOptions {
  readonly subsystems: readonly SubsystemToServe[];
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  readonly log: Logger;
  readonly tls?: TlsKeys;
  readonly limits?: Partial<TargetLimits>;
  readonly serverLimits?: Partial<ServerLimits>;
}

/** A subsystem as it is served. */
export interface ServedSubsystem {
  readonly subsystem: Subsystem;
  readonly namespaces: readonly ServedNamespace[];
}

const MODEL = "zcow disk image";
/** How long connections may take to end before they are dropped, milliseconds. */
const FAREWELL_MILLISECONDS = 2_000;

/** Images served over NVMe/TCP: from opening them to closing them. */
export class NvmeService {
  readonly startedAt = Date.now();
  readonly events: EventCounts;
  readonly server: NvmeTcpServer;
  readonly target: Target;
  readonly subsystems: readonly ServedSubsystem[];
  readonly tls: boolean;
  readonly #images: readonly ServedImage[];
  readonly #log: Logger;
  #closing: Promise<void> | undefined;

  private constructor(parts: {
    readonly options: NvmeServiceOptions;
    readonly server: NvmeTcpServer;
    readonly target: Target;
    readonly subsystems: readonly ServedSubsystem[];
    readonly images: readonly ServedImage[];
    readonly events: EventCounts;
  }) {
    this.server = parts.server;
    this.target = parts.target;
    this.subsystems = parts.subsystems;
    this.events = parts.events;
    this.tls = parts.options.tls !== undefined;
    this.#images = parts.images;
    this.#log = parts.options.log;
  }

  /**
   * Opens the images and serves them. Fails with the codes of opening images, `ADDRESS_IN_USE`,
   * `ADDRESS_UNAVAILABLE`, and `INVALID_ARGUMENT` for names and limits; nothing stays open then.
   */
  static async start(options: NvmeServiceOptions): Promise<NvmeService> {
    const images: ServedImage[] = [];
    let server: NvmeTcpServer | undefined;
    try {
      const subsystems = await openSubsystems(options.subsystems, images);
      const events: EventCounts = new Map();
      // Fresh memory costs a page fault per page, which is more than all the rest of a large read.
      const pool = new DataBuffers((bytes) => Buffer.allocUnsafeSlow(bytes));
      server = await NvmeTcpServer.listen({
        // Connections come in later turns, when the target is there.
        accept: (transport, peer) => target.accept(transport, peer),
        host: options.host,
        port: options.port,
        limits: { ...DEFAULT_SERVER_LIMITS, ...options.serverLimits },
        log: options.log,
        pool,
        // The images are open, and more do not come.
        ...commitBefore(images),
        ...(options.tls === undefined ? {} : { tls: options.tls }),
      });
      const target = new Target({
        clock: systemClock,
        limits: options.limits ?? {},
        ports: [discoveryPort(server.address, options.tls !== undefined)],
        allocate: (bytes) => pool.take(bytes),
        crc32c: fastCrc32c(),
        onEvent: targetLog(options.log, events),
      });
      for (const { subsystem } of subsystems) target.addSubsystem(subsystem);
      return new NvmeService({ options, server, target, subsystems, images, events });
    } catch (error) {
      server?.stopAccepting();
      for (const image of images) await image.device.close().catch(() => undefined);
      throw error;
    }
  }

  /** The served namespace `nsid` of the subsystem; `INVALID_ARGUMENT` when there is none. */
  namespace(nsid: number, nqn?: string): ServedNamespace & { readonly subsystem: Subsystem } {
    for (const { subsystem, namespaces } of this.subsystems) {
      if (nqn !== undefined ? subsystem.nqn !== nqn : this.subsystems.length > 1) continue;
      const found = namespaces.find(({ namespace }) => namespace.nsid === nsid);
      if (found !== undefined) return { ...found, subsystem };
    }
    const where = nqn ?? (this.subsystems.length > 1 ? "any of several subsystems; name one" : "the subsystem");
    throw new ZcowError("INVALID_ARGUMENT", `there is no namespace ${nsid} in ${where}`, {
      data: { field: "nsid", value: nsid },
    });
  }

  /** The namespace that shows the zones of the image at `realPath`; `INVALID_ARGUMENT` when none does. */
  zonedNamespace(realPath: string): ServedNamespace & { readonly subsystem: Subsystem } {
    for (const { subsystem, namespaces } of this.subsystems) {
      const found = namespaces.find(
        ({ image, namespace }) => image.realPath === realPath && namespace.zones !== undefined,
      );
      if (found !== undefined) return { ...found, subsystem };
    }
    throw new ZcowError("INVALID_ARGUMENT", `${realPath} is not served here as a zoned disk`, {
      data: { path: realPath },
    });
  }

  /** Forces a state on the zone of an image that starts at byte `offset` of it, and tells connected hosts. */
  async setZoneState(realPath: string, offset: number, state: ForcedZoneState): Promise<void> {
    const { namespace, subsystem } = this.zonedNamespace(realPath);
    const { device } = namespace;
    const zoneSize = device.limits.zoned?.zoneSize ?? 1;
    const zone = (offset - namespace.deviceOffset) / zoneSize;
    if (!isZonedDevice(device) || !Number.isInteger(zone) || zone < 0 || zone >= (namespace.zones?.zoneCount ?? 0)) {
      throw new ZcowError("INVALID_ARGUMENT", `no sequential zone of ${realPath} starts at ${offset}`, {
        data: { path: realPath, offset },
      });
    }
    await subsystem.setZoneState(namespace.nsid, zone, state);
    this.#log.warn("zone-state-set", { image: realPath, zone, offset, state, nsid: namespace.nsid });
  }

  /**
   * Takes no more connections, ends those there are, makes everything durable, closes zones and images. Idempotent.
   * Fails when something could not be made durable; everything is closed then, too.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.server.stopAccepting();
    await this.target.close();
    const farewell = setTimeout(() => this.server.destroyConnections(), FAREWELL_MILLISECONDS);
    const results = await Promise.allSettled(this.#images.map((image) => image.device.close()));
    await this.server.allGone();
    clearTimeout(farewell);
    for (const result of results) {
      if (result.status === "rejected") throw result.reason;
    }
  }
}

/** Before anything is acknowledged, the journals of the images have it. */
function commitBefore(images: readonly ServedImage[]): { beforeSending?: () => void } {
  const journals = images.flatMap(({ journal }) => (journal === undefined ? [] : [journal]));
  if (journals.length === 0) return {};
  return {
    beforeSending: () => {
      for (const journal of journals) journal.commit();
    },
  };
}

async function openSubsystems(
  wanted: readonly SubsystemToServe[],
  images: ServedImage[],
): Promise<readonly ServedSubsystem[]> {
  const subsystems: ServedSubsystem[] = [];
  for (const one of wanted) subsystems.push(await openSubsystem(one, images));
  return subsystems;
}

/** Opened images are added to `images` one by one, so that they can be closed when a later one fails. */
async function openSubsystem(wanted: SubsystemToServe, images: ServedImage[]): Promise<ServedSubsystem> {
  const namespaces: ServedNamespace[] = [];
  let first: ServedImage | undefined;
  for (const options of wanted.images) {
    const image = await openServedImage(options);
    images.push(image);
    first ??= image;
    namespaces.push(...namespacesOfImage(image, options, namespaces.length + 1));
  }
  if (first === undefined) throw new ZcowError("INVALID_ARGUMENT", "a subsystem needs at least one image");
  const subsystem = new Subsystem({
    nqn: wanted.nqn ?? first.identity.subsystemNqn(),
    serial: first.identity.serial(),
    model: MODEL,
    hosts: wanted.hosts,
    shared: wanted.shared === true,
    multipath: wanted.multipath === true,
  });
  for (const { namespace } of namespaces) subsystem.addNamespace(namespace);
  return { subsystem, namespaces };
}

/** A wildcard address is announced as the one that the host used. */
function discoveryPort(
  { host, port }: { readonly host: string; readonly port: number },
  tls: boolean,
): { address?: string; service: number; portId: number; tls: boolean } {
  const anywhere = host === "0.0.0.0" || (isIPv6(host) && /^[0:]+$/.test(host));
  return { ...(anywhere ? {} : { address: host }), service: port, portId: 1, tls };
}
