/** An NBD service on a Unix socket in this process, and a relay that cuts connections. */
import { connect, createServer, type Server, type Socket } from "node:net";
import type { BlockDevice } from "../../src/block/block-device.js";
import type { NbdExportOptions } from "../../src/protocols/nbd/export.js";
import { NbdService, type NbdServiceOptions } from "../../src/servers/nbd/service.js";

const SILENT = { info: () => undefined, warn: () => undefined, error: () => undefined };

export function startNbdService(
  path: string,
  device: BlockDevice,
  options: Partial<NbdServiceOptions> & { readonly export?: Partial<NbdExportOptions> } = {},
): Promise<NbdService> {
  const { export: more, ...rest } = options;
  return NbdService.start({
    exports: [{ name: "", device, ...more }],
    addresses: [{ kind: "unix", path }],
    log: SILENT,
    ...rest,
  });
}

export const unixUri = (path: string, name = ""): string => `nbd+unix:///${name}?socket=${path}`;

/** Passes bytes on between clients at one socket and a server at another. */
export class Relay {
  readonly #server: Server;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  /** Connections that are still to be cut, and made since. */
  cutsLeft = 0;
  cuts = 0;
  /** While there are any left, a connection is cut when so many bytes have come from the server, or gone to it. */
  cutAfter = 0;

  private constructor(to: string) {
    this.#server = createServer((client) => this.#join(client, connect(to)));
  }

  static async listen(path: string, to: string): Promise<Relay> {
    const relay = new Relay(to);
    await new Promise<void>((resolve) => relay.#server.listen(path, resolve));
    return relay;
  }

  cutAll(): void {
    for (const [one, other] of this.#pairs) {
      one.destroy();
      other.destroy();
    }
  }

  close(): void {
    this.#server.close();
    this.cutAll();
  }

  #join(client: Socket, server: Socket): void {
    const pair = [client, server] as const;
    this.#pairs.add(pair);
    let passed = 0;
    let isCut = false;
    const end = (): void => {
      this.#pairs.delete(pair);
      client.destroy();
      server.destroy();
    };
    const pass = (from: Socket, to: Socket): void => {
      from.on("data", (chunk: Buffer) => {
        if (isCut) return;
        const left = this.cutsLeft > 0 ? Math.max(0, this.cutAfter - passed) : Number.POSITIVE_INFINITY;
        passed += chunk.length;
        to.write(left < chunk.length ? chunk.subarray(0, left) : chunk);
        if (left > chunk.length) return;
        isCut = true;
        this.cutsLeft -= 1;
        this.cuts += 1;
        to.end();
        setImmediate(end);
      });
      from.on("error", end);
      from.on("close", end);
    };
    pass(client, server);
    pass(server, client);
  }
}
