import type { Controller } from "../../protocols/nvme/controller.js";
import { uuidText } from "./identity.js";
import type { ServedNamespace } from "./served-image.js";
import type { NvmeService } from "./service.js";

/** What a service is and does at this moment, for people and programs: plain JSON. */
export function serviceStatus(service: NvmeService): object {
  const { host, port } = service.server.address;
  return {
    "uptime-seconds": Math.floor((Date.now() - service.startedAt) / 1000),
    listen: { host, port, tls: service.tls },
    connections: service.server.connections,
    counters: service.server.counters(),
    events: Object.fromEntries(service.events),
    subsystems: service.subsystems.map(({ subsystem, namespaces }) => ({
      nqn: subsystem.nqn,
      shared: subsystem.options.shared === true,
      controllers: [...subsystem.controllers].map(controllerStatus),
      namespaces: namespaces.map(namespaceStatus),
    })),
  };
}

function controllerStatus(controller: Controller): object {
  return {
    id: controller.id,
    host: controller.hostNqn,
    peer: controller.admin.peer.address,
    ready: controller.ready,
    "io-queues": controller.queues.size,
  };
}

function namespaceStatus({ namespace, image, part, faults }: ServedNamespace): object {
  const { zones, identity } = namespace;
  return {
    nsid: namespace.nsid,
    image: image.realPath,
    format: image.device.format,
    part,
    "block-size": namespace.blockSize,
    size: namespace.size * namespace.blockSize,
    "read-only": namespace.readOnly,
    uuid: uuidText(identity.uuid),
    nguid: Buffer.from(identity.nguid).toString("hex"),
    ...(zones === undefined
      ? {}
      : {
          zones: {
            count: zones.zoneCount,
            size: zones.zoneBlocks * namespace.blockSize,
            capacity: zones.capacityBlocks * namespace.blockSize,
            "max-open": zones.maxOpen,
            "max-active": zones.maxActive,
          },
        }),
    counters: namespace.counters,
    faults: faults.rules,
  };
}
