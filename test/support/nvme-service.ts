import { join } from "node:path";
import { createImage } from "../../src/formats/create-image.js";
import { lineLogger } from "../../src/servers/nvme-tcp/logger.js";
import { NvmeService, type NvmeServiceOptions, type SubsystemToServe } from "../../src/servers/nvme-tcp/service.js";
import { NvmeHost, type QueueOptions } from "./nvme-initiator.js";
import { tcpStream } from "./nvme-sockets.js";

const MIB = 1024 * 1024;
export const DISK_NQN = "nqn.2026-01.test:disk";
export const BLOCK = 4096;
/** Zones of 4 MiB with 3 MiB capacity, the first two conventional. */
export const ZONE_BYTES = 4 * MIB;
export const ZONE_BLOCKS = ZONE_BYTES / BLOCK;

/** A zoned image with conventional zones. */
export async function zonedImage(directory: string): Promise<string> {
  const path = join(directory, "zoned.qcow2");
  await createImage(path, {
    format: "qcow2",
    size: 64 * MIB,
    zone: {
      mode: "host-managed",
      size: ZONE_BYTES,
      capacity: 3 * MIB,
      conventionalZones: 2,
      maxOpenZones: 6,
      maxActiveZones: 8,
    },
  });
  return path;
}

/** A service in this process, and the lines that it logged. */
export class TestService {
  readonly service: NvmeService;
  readonly log: readonly string[];

  private constructor(service: NvmeService, log: readonly string[]) {
    this.service = service;
    this.log = log;
  }

  static async start(
    image: string,
    subsystem: Partial<SubsystemToServe> = {},
    options: Partial<NvmeServiceOptions> = {},
  ): Promise<TestService> {
    const log: string[] = [];
    const service = await NvmeService.start({
      subsystems: [{ nqn: DISK_NQN, hosts: "any", images: [{ path: image, format: "qcow2" }], ...subsystem }],
      host: "127.0.0.1",
      port: 0,
      log: lineLogger("json", (line) => log.push(line)),
      ...options,
    });
    return new TestService(service, log);
  }

  get port(): number {
    return this.service.server.address.port;
  }

  host(options: QueueOptions = {}, queues = 1, hostNqn?: string): Promise<NvmeHost> {
    const names = { subsystemNqn: DISK_NQN, ...(hostNqn === undefined ? {} : { hostNqn }) };
    return NvmeHost.connect(() => tcpStream(this.port), names, options, queues);
  }

  /** Resolves when a line that holds `text` was logged. */
  async logged(text: string): Promise<void> {
    while (!this.log.some((line) => line.includes(text))) await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
