/**
 * A controller: the association of one host's admin queue with its I/O queues.
 *
 * | state | CC.EN | CSTS | takes |
 * |---|---|---|---|
 * | disabled | 0 | 0 | Fabrics commands, Keep Alive |
 * | ready | 1 | RDY | everything |
 * | failed | 1 | CFS | as disabled; the host may disable it |
 * | resetting | 0 | RDY until the zones are closed | as disabled |
 * | shutting down | - | SHST 1, then 2 | as before; data is flushed when SHST is 2 |
 *
 * It lives as long as its admin connection.
 */
import { AsyncEvents } from "./async-events.js";
import type { Connection } from "./connection.js";
import { ErrorLog } from "./error-log.js";
import { KeepAlive } from "./keep-alive.js";
import { CONFIGURATION, CONTROLLER_STATUS, isUsableConfiguration } from "./properties.js";
import type { Subsystem } from "./subsystem.js";
import type { TargetContext } from "./target-context.js";

export interface ControllerOptions {
  readonly id: number;
  readonly context: TargetContext;
  readonly subsystem: Subsystem;
  readonly hostNqn: string;
  /** 16 bytes, as hexadecimal digits. */
  readonly hostId: string;
  readonly admin: Connection;
  /** Milliseconds; 0 = none. */
  readonly keepAliveTimeout: number;
}

export class Controller {
  readonly id: number;
  readonly context: TargetContext;
  readonly subsystem: Subsystem;
  readonly hostNqn: string;
  readonly hostId: string;
  readonly admin: Connection;
  readonly events = new AsyncEvents();
  readonly errors = new ErrorLog();
  readonly keepAlive: KeepAlive;
  /** I/O queues by number. */
  readonly queues = new Map<number, Connection>();
  /** Namespaces added or removed since the host read the list last (log page 04h). */
  readonly changedNamespaces = new Set<number>();
  /** First blocks of changed zones by namespace, since the host read the list last (log page BFh). */
  readonly changedZones = new Map<number, Set<number>>();
  /** Values the host gave to features that only hold a value. */
  readonly features = new Map<number, number>();
  readonly connectedAt: number;
  #configuration = 0;
  #status = 0;
  #gone = false;

  constructor(options: ControllerOptions) {
    this.id = options.id;
    this.context = options.context;
    this.subsystem = options.subsystem;
    this.hostNqn = options.hostNqn;
    this.hostId = options.hostId;
    this.admin = options.admin;
    this.connectedAt = options.context.clock.now();
    this.keepAlive = new KeepAlive(options.context.clock, () => this.end("the keep-alive timer expired"));
    this.keepAlive.start(options.keepAliveTimeout);
  }

  /** CC. */
  get configuration(): number {
    return this.#configuration;
  }

  /** CSTS. */
  get status(): number {
    return this.#status;
  }

  /** I/O and admin commands are taken. */
  get ready(): boolean {
    return (this.#status & CONTROLLER_STATUS.ready) !== 0 && (this.#configuration & CONFIGURATION.enable) !== 0;
  }

  get gone(): boolean {
    return this.#gone;
  }

  /** The host writes CC. */
  configure(value: number): void {
    const before = this.#configuration;
    this.#configuration = value;
    const enabled = (value & CONFIGURATION.enable) !== 0;
    const wasEnabled = (before & CONFIGURATION.enable) !== 0;
    const shutdown = (value >>> CONFIGURATION.shutdownShift) & CONFIGURATION.shutdownMask;
    const wasShutdown = (before >>> CONFIGURATION.shutdownShift) & CONFIGURATION.shutdownMask;
    if (enabled && !wasEnabled) this.#enable();
    else if (!enabled && wasEnabled) this.#disable();
    if (shutdown !== 0 && wasShutdown === 0) this.#shutDown();
  }

  /** Ends the association with all its connections. Idempotent. */
  end(reason: string): void {
    if (this.#gone) return;
    this.#gone = true;
    this.keepAlive.stop();
    this.#endQueues(reason);
    this.events.abortAll();
    this.admin.end(reason);
    this.subsystem.controllerGone(this, reason);
  }

  #enable(): void {
    this.#status = isUsableConfiguration(this.#configuration) ? CONTROLLER_STATUS.ready : CONTROLLER_STATUS.fatal;
  }

  #disable(): void {
    this.#endQueues("the host reset the controller");
    this.events.abortAll();
    this.events.configuration = 0;
    this.features.clear();
    this.#status &= ~CONTROLLER_STATUS.fatal;
    this.#afterSettling(() => {
      this.#status &= CONTROLLER_STATUS.shutdownOccurring | CONTROLLER_STATUS.shutdownComplete;
      // Enabled again meanwhile: the host did not wait for it, but means it.
      if ((this.#configuration & CONFIGURATION.enable) !== 0) this.#enable();
      else this.#status = 0;
    });
  }

  #shutDown(): void {
    const shutdownBits = CONTROLLER_STATUS.shutdownOccurring | CONTROLLER_STATUS.shutdownComplete;
    this.#status = (this.#status & ~shutdownBits) | CONTROLLER_STATUS.shutdownOccurring;
    this.#afterSettling(() => {
      if ((this.#status & shutdownBits) === 0) return;
      this.#status = (this.#status & ~shutdownBits) | CONTROLLER_STATUS.shutdownComplete;
    });
  }

  /** A failure is told by `settle` itself, and the host must not hang for it. */
  #afterSettling(then: () => void): void {
    void this.subsystem.settle(this).then(then);
  }

  #endQueues(reason: string): void {
    for (const queue of this.queues.values()) queue.end(reason);
    this.queues.clear();
  }
}
