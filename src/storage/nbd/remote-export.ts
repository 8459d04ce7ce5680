/** An export over as many connections as it needs, which are made again when they break. */
import { isZcowError, ZcowError } from "../../base/errors.js";
import { COMMAND, EXPORT_FLAG } from "../../codec/nbd/wire.js";
import { type ClientLink, openLink } from "./client-link.js";
import type { RemoteExtent, Request } from "./client-session.js";
import type { NbdAddress } from "./nbd-uri.js";
import type { NegotiatedExport } from "./negotiation.js";
import { isChange, UnflushedWrites } from "./unflushed-writes.js";

export interface RemoteExportOptions {
  /** Connections, where the server allows several. Default 4. */
  readonly connections?: number;
  /** Milliseconds for which a server that is gone is looked for again before requests fail. Default 30 000. */
  readonly reconnectMilliseconds?: number;
}

const CONNECTIONS = 4;
const RECONNECT_MILLISECONDS = 30_000;
/** Milliseconds between two attempts: the first, and the longest. */
const FIRST_DELAY = 20;
const LONGEST_DELAY = 1_000;
/** Requests of one connection that make another one worth while. */
const DEEP = 4;

export class RemoteExport {
  readonly negotiated: NegotiatedExport;
  readonly #address: NbdAddress;
  readonly #most: number;
  readonly #patience: number;
  #links: ClientLink[];
  #opening: Promise<void> | undefined;
  #repairing: Promise<void> | undefined;
  readonly #unflushed = new UnflushedWrites();
  #writesLost = false;
  /** Bytes to which we have grown the export; 0 when we have not. */
  #grownTo = 0;
  #closed = false;

  private constructor(address: NbdAddress, link: ClientLink, options: RemoteExportOptions) {
    this.#address = address;
    this.negotiated = link.negotiated;
    this.#links = [];
    const several = (link.negotiated.flags & EXPORT_FLAG.multiConnection) !== 0;
    this.#most = several ? (options.connections ?? CONNECTIONS) : 1;
    this.#patience = options.reconnectMilliseconds ?? RECONNECT_MILLISECONDS;
    this.#adopt(link);
  }

  static async open(address: NbdAddress, options: RemoteExportOptions = {}): Promise<RemoteExport> {
    return new RemoteExport(address, await openLink(address), options);
  }

  /** Sends a request, again when the connection breaks. */
  async request(request: Request): Promise<readonly RemoteExtent[]> {
    for (;;) {
      if (this.#repairing !== undefined) await this.#repairing;
      const link = this.#leastBusy();
      if (link === undefined) {
        await this.#repair();
        continue;
      }
      try {
        const result = await link.request(request);
        if (isChange(request)) this.#unflushed.add(request);
        return result;
      } catch (error) {
        if (!isZcowError(error, "REMOTE_LOST") || this.#closed) throw error;
      }
    }
  }

  /** Makes what was acknowledged durable. Fails with `REMOTE_WRITES_LOST` when some of it may be gone. */
  async flush(): Promise<void> {
    const mark = this.#unflushed.mark();
    await this.request({ type: COMMAND.flush, flags: 0, offset: 0, length: 0 });
    if (this.#writesLost) {
      this.#writesLost = false;
      throw new ZcowError(
        "REMOTE_WRITES_LOST",
        `${this.#address.uri}: the server was gone, and writes that it had acknowledged since the last flush may be missing`,
        { data: { path: this.#address.uri } },
      );
    }
    this.#unflushed.flushed(mark);
  }

  /** Makes the export `size` bytes long. One call at a time, each with a larger size than the one before. */
  async grow(size: number): Promise<void> {
    await this.request(resizeRequest(size));
    this.#grownTo = size;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#opening?.catch(() => undefined);
    await Promise.all(this.#links.map((link) => link.close()));
  }

  #leastBusy(): ClientLink | undefined {
    let best: ClientLink | undefined;
    for (const link of this.#links) if (best === undefined || link.outstanding < best.outstanding) best = link;
    if (best !== undefined && best.outstanding >= DEEP && this.#links.length < this.#most) this.#openAnother();
    return best;
  }

  /** A connection more, while the others work on. That it cannot be had is no failure. */
  #openAnother(): void {
    this.#opening ??= openLink(this.#address)
      .then((link) => this.#adopt(link))
      .catch(() => undefined)
      .finally(() => {
        this.#opening = undefined;
      });
  }

  #adopt(link: ClientLink): void {
    if (this.#closed) return void link.close();
    this.#links.push(link);
    void link.gone.then(() => {
      const others = this.#links.filter((one) => one !== link);
      this.#links = [];
      if (this.#closed) return;
      // What was acknowledged may be gone with the server and is made again; what is in flight must come behind that.
      for (const other of others) other.drop();
      this.#repair().catch(() => undefined);
    });
  }

  /** One attempt at a time, however many requests wait for it. */
  #repair(): Promise<void> {
    this.#repairing ??= this.#reconnect().finally(() => {
      this.#repairing = undefined;
    });
    return this.#repairing;
  }

  async #reconnect(): Promise<void> {
    const end = performance.now() + this.#patience;
    for (let delay = FIRST_DELAY; ; delay = Math.min(2 * delay, LONGEST_DELAY)) {
      try {
        const link = await openLink(this.#address);
        this.#requireSame(link);
        await this.#makeAgain(link);
        return this.#adopt(link);
      } catch (error) {
        const hopeless =
          isZcowError(error) && !["REMOTE_LOST", "REMOTE_UNREACHABLE", "REMOTE_REFUSED"].includes(error.code);
        if (hopeless || this.#closed || performance.now() + delay > end) throw error;
        await new Promise((resolve) => setTimeout(resolve, delay));
      }
    }
  }

  #requireSame(link: ClientLink): void {
    const { size, flags } = this.negotiated;
    const now = link.negotiated;
    // A resizable one is at least as large as it was when we came; what we grew it by since is made again.
    const sized = (flags & EXPORT_FLAG.resize) === 0 ? now.size === size : now.size >= size;
    if (sized && now.flags === flags && now.form === this.negotiated.form) return;
    void link.close();
    throw new ZcowError(
      "REMOTE_PROTOCOL",
      `${this.#address.uri}: the export is another one since the server came back`,
      {
        data: { path: this.#address.uri, value: now.size, limit: size },
      },
    );
  }

  async #makeAgain(link: ClientLink): Promise<void> {
    // Before the writes, which may lie behind the end there was. A server that is as large already would refuse to shrink.
    if (this.#grownTo > link.negotiated.size) await link.request(resizeRequest(this.#grownTo));
    const changes = this.#unflushed.changes();
    if (changes === undefined) {
      this.#writesLost = true;
      this.#unflushed.reset();
      return;
    }
    // In their order: later ones may have replaced what earlier ones wrote.
    for (const change of changes) await link.request(change);
  }
}

function resizeRequest(size: number): Request {
  return { type: COMMAND.resize, flags: 0, offset: size, length: 0 };
}
