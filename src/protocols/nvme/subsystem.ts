/** An NVM subsystem: a name, the namespaces under it, and who may use them. */
import { ZcowError } from "../../base/errors.js";
import { Mutex } from "../../base/mutex.js";
import type { ForcedZoneState } from "../../block/zoned-device.js";
import { NOTICE } from "./async-events.js";
import type { Authenticator } from "./authenticator.js";
import type { Controller } from "./controller.js";
import { CHANGED_ZONES, NAMESPACES } from "./limits.js";
import type { Namespace } from "./namespace.js";
import { requireNqn } from "./nqn.js";
import type { TargetEvent } from "./target-events.js";

/** What one host may do, keyed by its NQN in the hosts of a subsystem. */
export interface HostAccess {
  /** Makes the check that every queue of this host must pass. Left out: none. */
  readonly authenticate?: (exchange: AuthenticationContext) => Authenticator;
  /** The host must come over TLS, with the key of its own name. */
  readonly requireTls?: boolean;
}

/** Whom an authentication is about. */
export interface AuthenticationContext {
  readonly hostNqn: string;
  readonly subsystemNqn: string;
}

export interface SubsystemOptions {
  /** Its NQN: 1 to 223 bytes, as in `nqn.2026-01.example:disk`. */
  readonly nqn: string;
  /** Up to 20 ASCII characters. */
  readonly serial: string;
  /** Up to 40 ASCII characters. */
  readonly model?: string;
  /** Up to 8 ASCII characters. */
  readonly firmware?: string;
  /** Hosts by NQN; `"any"` lets everyone in who can connect. */
  readonly hosts: ReadonlyMap<string, HostAccess> | "any";
  /** Several hosts may be connected at one time. Default false: an image has a single writer. */
  readonly shared?: boolean;
  /** Hosts may see this subsystem through several controllers as one (CMIC, NMIC). Default false. */
  readonly multipath?: boolean;
}

export class Subsystem {
  readonly options: SubsystemOptions;
  /** By NSID. */
  readonly namespaces = new Map<number, Namespace>();
  readonly controllers = new Set<Controller>();
  /** Where failures of closing and flushing are told. Set by the target that serves the subsystem. */
  report: (event: TargetEvent) => void = () => {};
  /** Hosts that leave are settled one after the other, so that `close` comes after all of them. */
  readonly #settling = new Mutex();

  /** Throws `INVALID_ARGUMENT` for a name that is no NQN. */
  constructor(options: SubsystemOptions) {
    requireNqn(options.nqn, "subsystem NQN");
    this.options = options;
  }

  get nqn(): string {
    return this.options.nqn;
  }

  /** Shows a namespace to connected hosts as well. Throws `INVALID_ARGUMENT` for an NSID out of range or in use. */
  addNamespace(namespace: Namespace): void {
    const { nsid } = namespace;
    if (!Number.isInteger(nsid) || nsid < 1 || nsid > NAMESPACES || this.namespaces.has(nsid)) {
      throw new ZcowError("INVALID_ARGUMENT", `${this.nqn}: NSID ${nsid} is in use or not in 1 to ${NAMESPACES}`, {
        data: { field: "NSID", value: nsid, limit: NAMESPACES },
      });
    }
    this.namespaces.set(nsid, namespace);
    this.#announce(nsid);
  }

  /** Takes a namespace away from connected hosts too. Commands under way end as they would. Its device stays open. */
  removeNamespace(nsid: number): void {
    if (this.namespaces.delete(nsid)) this.#announce(nsid);
  }

  /**
   * Forces a state on a zone, as `ZonedDevice.setZoneState`, and tells connected hosts. `zone` counts from the first
   * zone of the namespace. `INVALID_ARGUMENT` when there is no such zone.
   */
  async setZoneState(nsid: number, zone: number, state: ForcedZoneState): Promise<void> {
    const namespace = this.namespaces.get(nsid);
    const zones = namespace?.zones;
    if (namespace === undefined || zones === undefined || !(zone >= 0 && zone < zones.zoneCount)) {
      throw new ZcowError("INVALID_ARGUMENT", `${this.nqn}: namespace ${nsid} has no zone ${zone}`, {
        data: { field: "zone", value: zone },
      });
    }
    const block = zone * zones.zoneBlocks;
    await zones.device.setZoneState(namespace.byteOf(block), state);
    for (const controller of this.controllers) noteChangedZone(controller, nsid, block);
  }

  /** What a host may do; `undefined` for one that is not let in. */
  accessOf(hostNqn: string): HostAccess | undefined {
    const { hosts } = this.options;
    return hosts === "any" ? {} : hosts.get(hostNqn);
  }

  /** False while another host is connected, unless the subsystem is shared. */
  isFreeFor(hostNqn: string, hostId: string): boolean {
    if (this.options.shared === true) return true;
    for (const other of this.controllers) {
      if (other.hostNqn !== hostNqn || other.hostId !== hostId) return false;
    }
    return true;
  }

  /** The association has ended; called by the controller. */
  controllerGone(controller: Controller, reason: string): void {
    if (!this.controllers.delete(controller)) return;
    this.report({
      kind: "controller-gone",
      subsystemNqn: this.nqn,
      hostNqn: controller.hostNqn,
      controllerId: controller.id,
      reason,
    });
    void this.settle(controller);
  }

  /**
   * A host leaves: closes open zones, unless another controller is in use, and makes everything durable. Never fails:
   * what goes wrong is reported.
   */
  settle(leaving: Controller | undefined): Promise<void> {
    return this.#settling.run(() => this.#settleNow(leaving));
  }

  /** Ends all associations and makes everything durable. Devices stay open. */
  async close(reason: string): Promise<void> {
    for (const controller of this.controllers) controller.end(reason);
    await this.settle(undefined);
  }

  async #settleNow(leaving: Controller | undefined): Promise<void> {
    const inUse = [...this.controllers].some((controller) => controller !== leaving && controller.ready);
    const writable = [...this.namespaces.values()].filter((namespace) => !namespace.readOnly);
    // All zones begin to close before anything is waited for: the next host may be here any moment, and wants to open some.
    const closing = writable.map(async ({ nsid, zones }) => {
      if (inUse || zones === undefined) return;
      await zones.device.manageAllZones("close").catch((error: unknown) => this.#settleFailed(nsid, error));
    });
    await Promise.all(closing);
    for (const namespace of writable) {
      try {
        await namespace.device.flush();
      } catch (error) {
        this.#settleFailed(namespace.nsid, error);
      }
    }
  }

  #settleFailed(nsid: number, error: unknown): void {
    this.report({ kind: "settle-failed", subsystemNqn: this.nqn, nsid, error });
  }

  #announce(nsid: number): void {
    for (const controller of this.controllers) {
      controller.changedNamespaces.add(nsid);
      controller.events.raise(NOTICE.namespaceChanged);
    }
  }
}

function noteChangedZone(controller: Controller, nsid: number, block: number): void {
  let changed = controller.changedZones.get(nsid);
  if (changed === undefined) {
    changed = new Set();
    controller.changedZones.set(nsid, changed);
  }
  // One more than the log page holds is enough to know that it cannot hold them.
  if (changed.size <= CHANGED_ZONES) changed.add(block);
  controller.events.raise(NOTICE.zoneChanged, nsid);
}
