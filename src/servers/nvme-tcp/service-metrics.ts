import { isZonedDevice } from "../../block/zoned-device.js";
import type { NamespaceCounters } from "../../protocols/nvme/namespace.js";
import type { Metric, MetricSample } from "./metrics.js";
import type { ServedNamespace } from "./served-image.js";
import type { NvmeService } from "./service.js";

type Labels = Readonly<Record<string, string>>;

/** Commands by kind, as they are counted. */
const OPERATIONS: readonly (readonly [keyof NamespaceCounters, string])[] = [
  ["reads", "read"],
  ["writes", "write"],
  ["appends", "append"],
  ["zoneOperations", "zone-management"],
  ["flushes", "flush"],
  ["otherCommands", "other"],
];

/** All metrics of a service, as they are now. */
export function serviceMetrics(service: NvmeService): Metric[] {
  return [...connectionMetrics(service), ...namespaceMetrics(service), ...zoneMetrics(service), ...processMetrics()];
}

function connectionMetrics(service: NvmeService): Metric[] {
  const counters = service.server.counters();
  const one = (value: number): MetricSample[] => [{ value }];
  return [
    gauge("zcow_nvme_connections", "TCP connections at this moment.", one(service.server.connections)),
    gauge(
      "zcow_nvme_controllers",
      "Connected hosts (controllers) by subsystem.",
      service.subsystems.map(({ subsystem }) => ({
        labels: { subsystem: subsystem.nqn },
        value: subsystem.controllers.size,
      })),
    ),
    counter("zcow_nvme_connections_accepted_total", "Connections accepted.", one(counters.connectionsAccepted)),
    counter("zcow_nvme_connections_refused_total", "Connections over a limit.", one(counters.connectionsRefused)),
    counter("zcow_nvme_tls_failures_total", "TLS handshakes that failed.", one(counters.tlsFailures)),
    counter("zcow_nvme_received_bytes_total", "Bytes received.", one(counters.bytesReceived)),
    counter("zcow_nvme_sent_bytes_total", "Bytes sent.", one(counters.bytesSent)),
    counter(
      "zcow_nvme_events_total",
      "Events of the target by kind.",
      [...service.events].map(([event, value]) => ({ labels: { event }, value })),
    ),
  ];
}

function namespaceMetrics(service: NvmeService): Metric[] {
  const all = eachNamespace(service);
  const perNamespace = (value: (namespace: ServedNamespace) => number): MetricSample[] =>
    all.map(({ served, labels }) => ({ labels, value: value(served) }));
  return [
    counter(
      "zcow_nvme_commands_total",
      "I/O commands by kind.",
      all.flatMap(({ served, labels }) =>
        OPERATIONS.map(([field, operation]) => ({
          labels: { ...labels, operation },
          value: served.namespace.counters[field],
        })),
      ),
    ),
    counter(
      "zcow_nvme_command_errors_total",
      "I/O commands that ended with a status other than success.",
      perNamespace(({ namespace }) => namespace.counters.errors),
    ),
    counter(
      "zcow_nvme_read_bytes_total",
      "Bytes read by hosts.",
      perNamespace(({ namespace }) => namespace.counters.bytesRead),
    ),
    counter(
      "zcow_nvme_written_bytes_total",
      "Bytes written by hosts.",
      perNamespace(({ namespace }) => namespace.counters.bytesWritten),
    ),
    gauge(
      "zcow_nvme_fault_rules",
      "Injected faults that are in force.",
      perNamespace(({ faults }) => faults.rules.length),
    ),
  ];
}

function zoneMetrics(service: NvmeService): Metric[] {
  const samples: MetricSample[] = [];
  for (const { served, labels } of eachNamespace(service)) {
    const { device, zones, deviceOffset } = served.namespace;
    if (zones === undefined || !isZonedDevice(device)) continue;
    const states = new Map<string, number>();
    for (const { state } of device.report(deviceOffset, zones.zoneCount)) {
      states.set(state, (states.get(state) ?? 0) + 1);
    }
    for (const [state, value] of states) samples.push({ labels: { ...labels, state }, value });
  }
  return [gauge("zcow_nvme_zones", "Zones by state.", samples)];
}

function processMetrics(): Metric[] {
  const { rss, heapUsed, external } = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  const memory = Object.entries({ resident: rss, heap: heapUsed, external });
  return [
    gauge(
      "zcow_memory_bytes",
      "Memory of the server process.",
      memory.map(([kind, value]) => ({ labels: { kind }, value })),
    ),
    counter("zcow_cpu_seconds_total", "CPU time of the server process.", [{ value: (user + system) / 1e6 }]),
  ];
}

function eachNamespace(service: NvmeService): { readonly served: ServedNamespace; readonly labels: Labels }[] {
  return service.subsystems.flatMap(({ subsystem, namespaces }) =>
    namespaces.map((served) => ({
      served,
      labels: { subsystem: subsystem.nqn, nsid: String(served.namespace.nsid), image: served.image.realPath },
    })),
  );
}

function gauge(name: string, help: string, samples: readonly MetricSample[]): Metric {
  return { name, help, type: "gauge", samples };
}

function counter(name: string, help: string, samples: readonly MetricSample[]): Metric {
  return { name, help, type: "counter", samples };
}
