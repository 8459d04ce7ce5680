import { isIP } from "node:net";
import { hostname } from "node:os";
import { formatSize } from "../base/size-text.js";
import type { Logger } from "../servers/nvme-tcp/logger.js";
import type { ServedNamespace } from "../servers/nvme-tcp/served-image.js";
import type { NvmeService, SubsystemToServe } from "../servers/nvme-tcp/service.js";

/** What is served, and the lines to type on the host. */
export function servingText(service: NvmeService, wanted: readonly SubsystemToServe[]): string {
  const { host, port } = service.server.address;
  const parts = service.subsystems.map(({ subsystem, namespaces }, index) => {
    const hosts = wanted[index]?.hosts;
    const names = hosts === undefined || hosts === "any" ? [undefined] : [...hosts.keys()];
    const lines = names.map((name) => {
      const access = name === undefined || hosts === undefined || hosts === "any" ? undefined : hosts.get(name);
      const options = [
        `-a ${reachable(host)} -s ${port} -n ${subsystem.nqn}`,
        ...(name === undefined ? [] : [`-q ${name}`]),
        ...(service.tls ? ["--tls"] : []),
        ...(access?.authenticate === undefined ? [] : ["--dhchap-secret=SECRET"]),
      ];
      return `  nvme connect -t tcp ${options.join(" ")}\n`;
    });
    return `${namespaces.map(namespaceLine).join("")}attach with:\n${lines.join("")}`;
  });
  return parts.join("\n");
}

function namespaceLine({ namespace, image, part }: ServedNamespace): string {
  const { zones, blockSize, size } = namespace;
  const what =
    zones === undefined
      ? `${part === "conventional" ? "conventional zones, " : ""}${formatSize(size * blockSize)}`
      : `${zones.zoneCount} zones of ${formatSize(zones.zoneBlocks * blockSize)}`;
  const access = namespace.readOnly ? ", read-only" : "";
  return `serving ${image.realPath} as namespace ${namespace.nsid}: ${what}, ${blockSize}-byte blocks${access}\n`;
}

/** An address that a host can type: everywhere is no address. */
function reachable(host: string): string {
  return host === "0.0.0.0" || host === "::" ? hostname() : host;
}

/** Says so when whoever reaches the port may read and write. */
export function warnIfOpen(service: NvmeService, wanted: readonly SubsystemToServe[], log: Logger): void {
  const { host } = service.server.address;
  const loopback = host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
  if (loopback || service.tls) return;
  const open = wanted.some(
    ({ hosts }) => hosts === "any" || [...hosts.values()].some((access) => access.authenticate === undefined),
  );
  if (open)
    log.warn("no-authentication", {
      host,
      note: "whoever reaches this port can use the disks: see --tls-psk and --dhchap-secret",
    });
}
