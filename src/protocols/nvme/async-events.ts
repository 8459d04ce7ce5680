/** Asynchronous events of a controller: requests that wait for an event, and events that wait for a request. */
import type { Command } from "./command.js";
import { EVENT_REQUESTS, EVENTS_KEPT } from "./limits.js";
import { STATUS } from "./status.js";

/** Kinds of notice, with the log page that tells more and the bit that enables them (Feature 0Bh). */
export const NOTICE = {
  namespaceChanged: { information: 0x00, logPage: 0x04, enable: 1 << 8 },
  zoneChanged: { information: 0xef, logPage: 0xbf, enable: 1 << 27 },
  discoveryChanged: { information: 0xf0, logPage: 0x70, enable: 1 << 31 },
} as const;

export type Notice = (typeof NOTICE)[keyof typeof NOTICE];

/** Event type "notice". */
const TYPE_NOTICE = 2;

export class AsyncEvents {
  /** Feature 0Bh: which notices the host wants. */
  configuration = 0;
  readonly #requests: Command[] = [];
  /** Events that no request was there for. One of a kind, and none of a kind that is announced and not yet read. */
  readonly #kept: { readonly notice: Notice; readonly nsid: number }[] = [];
  /** Kinds that were announced: no more of them until the host has read the log page. */
  readonly #announced = new Set<string>();

  /** Takes an Asynchronous Event Request; ends it when an event is there, or is refused. */
  request(command: Command): void {
    if (this.#requests.length >= EVENT_REQUESTS) {
      command.queue.complete(command, STATUS.eventRequestLimitExceeded);
      return;
    }
    this.#requests.push(command);
    this.#deliver();
  }

  /** `nsid`: the namespace concerned where the notice names one (dword 1), else 0. */
  raise(notice: Notice, nsid = 0): void {
    if ((this.configuration & notice.enable) === 0) return;
    const key = keyOf(notice.logPage, nsid);
    if (this.#announced.has(key) || this.#kept.length >= EVENTS_KEPT) return;
    this.#announced.add(key);
    this.#kept.push({ notice, nsid });
    this.#deliver();
  }

  /** The host has read a log page without asking to retain the event. */
  logPageRead(logPage: number, nsid: number): void {
    this.#announced.delete(keyOf(logPage, logPage === NOTICE.zoneChanged.logPage ? nsid : 0));
  }

  /** Takes back one request; false when it is none that waits. */
  abort(command: Command): boolean {
    const at = this.#requests.indexOf(command);
    if (at < 0) return false;
    this.#requests.splice(at, 1);
    command.queue.complete(command, STATUS.abortRequested);
    return true;
  }

  /** The controller was reset: the requests end here. */
  abortAll(): void {
    this.#kept.length = 0;
    this.#announced.clear();
    for (const command of this.#requests.splice(0)) command.queue.complete(command, STATUS.abortRequested);
  }

  #deliver(): void {
    while (this.#kept.length > 0) {
      const command = this.#requests.shift();
      const event = this.#kept[0];
      if (command === undefined || event === undefined) return;
      this.#kept.shift();
      const { information, logPage } = event.notice;
      command.queue.complete(command, STATUS.success, (logPage << 16) | (information << 8) | TYPE_NOTICE, event.nsid);
    }
  }
}

function keyOf(logPage: number, nsid: number): string {
  return `${logPage}/${nsid}`;
}
