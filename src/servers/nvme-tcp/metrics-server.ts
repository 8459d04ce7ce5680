import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { listenAt } from "./listening.js";
import { METRICS_CONTENT_TYPE } from "./metrics.js";

/** Requests of scrapers are small and quick; whoever is slower than this is none. Milliseconds. */
const REQUEST_TIMEOUT = 5_000;
const MOST_CONNECTIONS = 16;

/** Answers `GET /metrics` over HTTP, and nothing else. */
export class MetricsServer {
  readonly #server: Server;

  private constructor(render: () => string) {
    this.#server = createServer(
      { requestTimeout: REQUEST_TIMEOUT, keepAliveTimeout: REQUEST_TIMEOUT },
      (request, reply) => {
        if (request.url !== "/metrics") return void reply.writeHead(404).end("not found: try /metrics\n");
        if (request.method !== "GET" && request.method !== "HEAD") return void reply.writeHead(405).end();
        reply.writeHead(200, { "content-type": METRICS_CONTENT_TYPE });
        reply.end(render());
      },
    );
    this.#server.maxConnections = MOST_CONNECTIONS;
  }

  /** Fails with `ADDRESS_IN_USE` or `ADDRESS_UNAVAILABLE`. */
  static async listen(host: string, port: number, render: () => string): Promise<MetricsServer> {
    const metrics = new MetricsServer(render);
    await listenAt(metrics.#server, host, port);
    return metrics;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
