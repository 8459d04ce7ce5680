/** A target: subsystems, the discovery service, and the connections to them. */
import { ZcowError } from "../../base/errors.js";
import { type Crc32c, crc32c } from "../../codec/crc32c.js";
import { AdminQueue } from "./admin/admin-queue.js";
import { NOTICE } from "./async-events.js";
import { Connection } from "./connection.js";
import { Controller } from "./controller.js";
import { DataBuffers } from "./data-buffers.js";
import type { DiscoveryContents, DiscoveryPort } from "./discovery/discovery-log.js";
import { DiscoveryQueue } from "./discovery/discovery-queue.js";
import { AuthenticatedQueue } from "./fabrics/authenticated-queue.js";
import * as connect from "./fabrics/connect.js";
import { type Admission, UnconnectedQueue } from "./fabrics/unconnected-queue.js";
import { IoQueue } from "./io/io-queue.js";
import { ADMIN_IN_CAPSULE_BYTES, ADMIN_QUEUE_ENTRIES, SUBSYSTEMS, type TargetLimits } from "./limits.js";
import { DISCOVERY_NQN } from "./nqn.js";
import type { QueueRole } from "./queue-role.js";
import { type HostAccess, Subsystem } from "./subsystem.js";
import type { TargetContext } from "./target-context.js";
import type { TargetEvent } from "./target-events.js";
import { checkedLimits } from "./target-limits.js";
import type { Clock, PeerInfo, Transport } from "./transport.js";

export interface TargetOptions {
  readonly clock: Clock;
  readonly limits?: Partial<TargetLimits>;
  /** Where the target can be reached, for the discovery log. Default: nothing is announced. */
  readonly ports?: readonly DiscoveryPort[];
  /** Memory that need not be zeroed: all of it is overwritten before it is sent. Default: zeroed memory. */
  readonly allocate?: (bytes: number) => Uint8Array;
  /** A faster CRC32C than the built-in one, for digests. */
  readonly crc32c?: Crc32c;
  readonly onEvent?: (event: TargetEvent) => void;
}

/** CNTLIDs that a controller can have: FFF0h and above are reserved. */
const CONTROLLER_IDS = 0xffef;

export class Target {
  readonly subsystems = new Map<string, Subsystem>();
  readonly connections = new Set<Connection>();
  readonly #context: TargetContext;
  readonly #ports: readonly DiscoveryPort[];
  readonly #discovery: Subsystem;
  /** GENCTR: changes whenever the discovery log does. */
  #generation = 1;
  #lastControllerId = 0;
  #closed = false;

  /** Throws `INVALID_ARGUMENT` for limits that contradict each other or the transport. */
  constructor(options: TargetOptions) {
    const allocate = options.allocate ?? ((bytes: number): Uint8Array => new Uint8Array(bytes));
    this.#ports = options.ports ?? [];
    this.#context = {
      limits: checkedLimits(options.limits ?? {}),
      clock: options.clock,
      crc: options.crc32c ?? crc32c,
      allocate,
      buffers: new DataBuffers(allocate),
      report: options.onEvent ?? (() => {}),
      connectionEnded: (connection) => this.connections.delete(connection),
    };
    this.#discovery = new Subsystem({ nqn: DISCOVERY_NQN, serial: "discovery", hosts: "any", shared: true });
  }

  get limits(): TargetLimits {
    return this.#context.limits;
  }

  /** Serves a subsystem. Throws `INVALID_ARGUMENT` when its name is taken or there are too many. */
  addSubsystem(subsystem: Subsystem): void {
    const { nqn } = subsystem;
    if (this.subsystems.has(nqn) || nqn === DISCOVERY_NQN || this.subsystems.size >= SUBSYSTEMS) {
      throw new ZcowError(
        "INVALID_ARGUMENT",
        `Subsystem ${nqn} cannot be added: the name is taken, or there are ${SUBSYSTEMS}`,
        {
          data: { field: "subsystem NQN", value: nqn, limit: SUBSYSTEMS },
        },
      );
    }
    subsystem.report = this.#context.report;
    this.subsystems.set(nqn, subsystem);
    this.#discoveryChanged();
  }

  /** Ends the associations of a subsystem and forgets it. What hosts wrote is durable when it resolves. */
  async removeSubsystem(nqn: string): Promise<void> {
    const subsystem = this.subsystems.get(nqn);
    if (subsystem === undefined) return;
    this.subsystems.delete(nqn);
    this.#discoveryChanged();
    await subsystem.close("the subsystem was removed");
  }

  /** Serves a new connection. The transport must tell it all that `TransportListener` says. */
  accept(transport: Transport, peer: PeerInfo): Connection {
    const connection = new Connection(this.#context, transport, peer, (self) => {
      return new UnconnectedQueue(
        self,
        (request) => this.#admit(request, self),
        (refusal) => this.#refused(refusal, peer),
      );
    });
    this.connections.add(connection);
    if (this.#closed) connection.end("the target is closing");
    return connection;
  }

  /** Ends all connections; what hosts wrote is durable when it resolves. Devices stay open. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    const reason = "the target is closing";
    await this.#discovery.close(reason);
    await Promise.all([...this.subsystems.values()].map((subsystem) => subsystem.close(reason)));
    for (const connection of this.connections) connection.end(reason);
  }

  // --- Connect -----------------------------------------------------------------------------------

  #admit(request: connect.ConnectRequest, connection: Connection): Admission | connect.ConnectRefusal {
    const discovery = request.subsystemNqn === DISCOVERY_NQN;
    const subsystem = discovery ? this.#discovery : this.subsystems.get(request.subsystemNqn);
    if (subsystem === undefined) return connect.unknownSubsystem(request);
    const access = subsystem.accessOf(request.hostNqn);
    if (access === undefined) return connect.hostRefused(request, "the host is not on the list");
    const unproven = discovery ? undefined : whyUnproven(request, access, connection.peer);
    if (unproven !== undefined) return connect.hostRefused(request, unproven);
    return request.queueId === 0
      ? this.#admitAdmin(request, connection, subsystem, access)
      : this.#admitIo(request, connection, subsystem, access);
  }

  #admitAdmin(
    request: connect.ConnectRequest,
    connection: Connection,
    subsystem: Subsystem,
    access: HostAccess,
  ): Admission | connect.ConnectRefusal {
    if (request.controllerId !== connect.ANY_CONTROLLER) return connect.chosenController(request);
    if (request.entries > ADMIN_QUEUE_ENTRIES) return connect.invalidQueueSize(request.entries);
    if (!subsystem.isFreeFor(request.hostNqn, request.hostId)) {
      return connect.hostRefused(request, "another host is connected and the subsystem is not shared");
    }
    const id = this.#freeControllerId();
    if (id === undefined) return connect.controllerBusy(request, "there are too many controllers");
    const controller = new Controller({
      id,
      context: this.#context,
      subsystem,
      hostNqn: request.hostNqn,
      hostId: request.hostId,
      admin: connection,
      keepAliveTimeout: request.keepAliveTimeout,
    });
    subsystem.controllers.add(controller);
    const role =
      subsystem === this.#discovery
        ? new DiscoveryQueue(controller, () => this.#discoveryRecords(connection.peer, request.hostNqn))
        : new AdminQueue(controller);
    return this.#connected(request, connection, controller, role, access, ADMIN_IN_CAPSULE_BYTES);
  }

  #admitIo(
    request: connect.ConnectRequest,
    connection: Connection,
    subsystem: Subsystem,
    access: HostAccess,
  ): Admission | connect.ConnectRefusal {
    const controller = [...subsystem.controllers].find((candidate) => candidate.id === request.controllerId);
    if (controller === undefined || subsystem === this.#discovery) return connect.unknownController(request);
    if (controller.hostNqn !== request.hostNqn || controller.hostId !== request.hostId) {
      return connect.differentHost(request);
    }
    const { ioQueues, queueEntries, inCapsuleBytes } = this.#context.limits;
    if (request.queueId > ioQueues) return connect.invalidQueueId(request.queueId);
    if (request.entries > queueEntries) return connect.invalidQueueSize(request.entries);
    if (!controller.ready) return connect.outOfSequence(request, "the controller is not ready");
    if (controller.queues.has(request.queueId)) {
      return connect.outOfSequence(request, `queue ${request.queueId} is connected`);
    }
    controller.queues.set(request.queueId, connection);
    const role = new IoQueue(controller, request.queueId, connection);
    return this.#connected(request, connection, controller, role, access, inCapsuleBytes);
  }

  #connected(
    request: connect.ConnectRequest,
    connection: Connection,
    controller: Controller,
    inner: QueueRole,
    access: HostAccess,
    capsuleDataBytes: number,
  ): Admission {
    const { queueId, entries, flowControl } = request;
    const role = access.authenticate === undefined ? inner : this.#authenticated(connection, controller, inner, access);
    connection.assign({ role, queueId, entries, flowControl, capsuleDataBytes });
    const common = { subsystemNqn: request.subsystemNqn, controllerId: controller.id, peer: connection.peer.address };
    this.#context.report(
      queueId === 0
        ? { kind: "controller-connected", hostNqn: request.hostNqn, ...common }
        : { kind: "queue-connected", queueId, entries, ...common },
    );
    return { controllerId: controller.id, mustAuthenticate: access.authenticate !== undefined };
  }

  #authenticated(connection: Connection, controller: Controller, inner: QueueRole, access: HostAccess): QueueRole {
    const { hostNqn, subsystem } = controller;
    const begin = access.authenticate as NonNullable<HostAccess["authenticate"]>;
    return new AuthenticatedQueue({
      connection,
      inner,
      begin: () => begin({ hostNqn, subsystemNqn: subsystem.nqn }),
      failed: () =>
        this.#context.report({
          kind: "authentication-failed",
          subsystemNqn: subsystem.nqn,
          hostNqn,
          peer: connection.peer.address,
        }),
    });
  }

  #refused(refusal: connect.ConnectRefusal, peer: PeerInfo): void {
    const { status, reason, names } = refusal;
    const { hostNqn, subsystemNqn } = names;
    this.#context.report({ kind: "connect-refused", subsystemNqn, hostNqn, reason, status, peer: peer.address });
  }

  /** Numbers go round, so that a host that comes back late does not meet a stranger's controller. */
  #freeControllerId(): number | undefined {
    const used = new Set<number>();
    for (const subsystem of [this.#discovery, ...this.subsystems.values()]) {
      for (const controller of subsystem.controllers) used.add(controller.id);
    }
    if (used.size >= this.#context.limits.controllers) return undefined;
    do {
      this.#lastControllerId = (this.#lastControllerId % CONTROLLER_IDS) + 1;
    } while (used.has(this.#lastControllerId));
    return this.#lastControllerId;
  }

  // --- discovery -----------------------------------------------------------------------------------

  #discoveryRecords(peer: PeerInfo, hostNqn: string): DiscoveryContents {
    const subsystems = [...this.subsystems.values()].filter((subsystem) => subsystem.accessOf(hostNqn) !== undefined);
    const ports = this.#ports.map((port) =>
      port.address === undefined ? { ...port, address: peer.localAddress ?? "" } : port,
    );
    return { generation: this.#generation, ports, subsystemNqns: subsystems.map((subsystem) => subsystem.nqn) };
  }

  #discoveryChanged(): void {
    this.#generation += 1;
    for (const controller of this.#discovery.controllers) controller.events.raise(NOTICE.discoveryChanged);
  }
}

/** Why the names of a request are not proven enough; `undefined` when they are. */
function whyUnproven(request: connect.ConnectRequest, access: HostAccess, peer: PeerInfo): string | undefined {
  const { tls } = peer;
  if (tls === undefined) return access.requireTls === true ? "the host must use TLS" : undefined;
  const sameNames = tls.hostNqn === request.hostNqn && tls.subsystemNqn === request.subsystemNqn;
  return sameNames ? undefined : "the names are not those of the TLS key";
}
