import { ZcowError } from "../../base/errors.js";
import type { ForcedZoneState } from "../../block/zoned-device.js";
import { isZonedDevice } from "../../block/zoned-device.js";
import type { ControlHandler } from "../control/control-server.js";
import {
  FAULT_OPERATIONS,
  FAULT_RULES,
  FAULT_STATUSES,
  type FaultOperation,
  type FaultRule,
  LONGEST_DELAY,
  STATUS_MASK,
} from "../control/fault-rules.js";
import type { Logger } from "./logger.js";
import type { NvmeService } from "./service.js";
import { serviceStatus } from "./service-status.js";

type Request = Readonly<Record<string, unknown>>;

/** Zones in one answer: those who want more ask again from where it ended. */
const ZONES_PER_REPLY = 4096;
const ZONE_STATES: readonly string[] = ["read-only", "offline", "online"] satisfies ForcedZoneState[];

/** What administrators can ask of a running service; see docs/guides/nvme-control.md. */
export function serviceControl(service: NvmeService, log: Logger): ControlHandler {
  const commands: Readonly<Record<string, (request: Request) => unknown>> = {
    status: () => serviceStatus(service),
    "zone-report": (request) => zoneReport(service, request),
    "zone-set-state": (request) => zoneSetState(service, request),
    inject: (request) => inject(service, request, log),
    "clear-faults": (request) => clearFaults(service, request, log),
  };
  return async (request) => {
    if (typeof request !== "object" || request === null || Array.isArray(request)) {
      throw new ZcowError("CONTROL_PROTOCOL", "a request must be a JSON object");
    }
    const fields = request as Request;
    const name = text(fields, "command");
    const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
    if (command === undefined) {
      throw invalid("command", name, `is not one of ${Object.keys(commands).join(", ")}`);
    }
    return command(fields);
  };
}

function zoneReport(service: NvmeService, request: Request): object {
  const { namespace } = service.zonedNamespace(text(request, "image"));
  const { device, zones, deviceOffset } = namespace;
  if (!isZonedDevice(device) || zones === undefined) throw new ZcowError("NOT_SUPPORTED", "the namespace has no zones");
  const first = number(request, "first", 0, zones.zoneCount - 1) ?? 0;
  const wanted = number(request, "count", 1, Number.MAX_SAFE_INTEGER) ?? zones.zoneCount;
  const count = Math.min(wanted, ZONES_PER_REPLY, zones.zoneCount - first);
  const zoneSize = zones.zoneBlocks * namespace.blockSize;
  const report = device.report(deviceOffset + first * zoneSize, count);
  return {
    total: zones.zoneCount,
    zones: report.map((zone) => ({
      zone: (zone.start - deviceOffset) / zoneSize,
      start: zone.start,
      length: zone.length,
      capacity: zone.capacity,
      "write-pointer": zone.writePointer,
      state: zone.state,
    })),
  };
}

async function zoneSetState(service: NvmeService, request: Request): Promise<object> {
  const state = text(request, "state");
  if (!isForcedState(state)) throw invalid("state", state, `is not one of ${ZONE_STATES.join(", ")}`);
  const offset = number(request, "offset", 0, Number.MAX_SAFE_INTEGER);
  if (offset === undefined) throw missing("offset");
  await service.setZoneState(text(request, "image"), offset, state);
  return {};
}

function isForcedState(state: string): state is ForcedZoneState {
  return ZONE_STATES.includes(state);
}

function inject(service: NvmeService, request: Request, log: Logger): object {
  const { namespace, faults } = chosenNamespace(service, request);
  const rule = faultRule(request);
  if (!faults.add(rule)) {
    throw invalid("nsid", namespace.nsid, `has ${FAULT_RULES} faults already; clear some`);
  }
  namespace.faults = faults.inject;
  log.warn("fault-injected", { nsid: namespace.nsid, ...rule });
  return { faults: faults.rules };
}

function clearFaults(service: NvmeService, request: Request, log: Logger): object {
  const { namespace, faults } = chosenNamespace(service, request);
  faults.clear();
  namespace.faults = undefined;
  log.info("faults-cleared", { nsid: namespace.nsid });
  return {};
}

function chosenNamespace(service: NvmeService, request: Request): ReturnType<NvmeService["namespace"]> {
  const nsid = number(request, "nsid", 1, 0xffff_fffe);
  if (nsid === undefined) throw missing("nsid");
  return service.namespace(nsid, optionalText(request, "subsystem"));
}

function faultRule(request: Request): FaultRule {
  const operation = optionalText(request, "operation") ?? "any";
  if (!isOperation(operation)) throw invalid("operation", operation, `is not one of ${FAULT_OPERATIONS.join(", ")}`);
  const status = request["status"] === undefined ? undefined : statusOf(request["status"]);
  const delay = number(request, "delay", 0, LONGEST_DELAY);
  if (status === undefined && delay === undefined) throw missing("status or delay");
  const lba = number(request, "lba", 0, Number.MAX_SAFE_INTEGER);
  const blocks = number(request, "blocks", 1, Number.MAX_SAFE_INTEGER);
  const count = number(request, "count", 1, Number.MAX_SAFE_INTEGER);
  return {
    operation,
    ...(status === undefined ? {} : { status }),
    ...(delay === undefined ? {} : { delay }),
    ...(lba === undefined ? {} : { lba }),
    ...(blocks === undefined ? {} : { blocks }),
    ...(count === undefined ? {} : { count }),
  };
}

function isOperation(text: string): text is FaultOperation {
  return (FAULT_OPERATIONS as readonly string[]).includes(text);
}

/** A name of {@link FAULT_STATUSES}, or a number. */
function statusOf(value: unknown): number {
  const named = typeof value === "string" && Object.hasOwn(FAULT_STATUSES, value) ? FAULT_STATUSES[value] : value;
  if (typeof named === "number" && Number.isInteger(named) && named > 0 && named <= STATUS_MASK) return named;
  throw invalid("status", value, `is neither 1 to ${STATUS_MASK} nor one of ${Object.keys(FAULT_STATUSES).join(", ")}`);
}

function text(request: Request, field: string): string {
  const value = optionalText(request, field);
  if (value === undefined) throw missing(field);
  return value;
}

function optionalText(request: Request, field: string): string | undefined {
  const value = request[field];
  if (value === undefined || typeof value === "string") return value;
  throw invalid(field, value, "is not a text");
}

function number(request: Request, field: string, least: number, most: number): number | undefined {
  const value = request[field];
  if (value === undefined) return undefined;
  if (typeof value === "number" && Number.isInteger(value) && value >= least && value <= most) return value;
  throw invalid(field, value, `is not a whole number from ${least} to ${most}`);
}

function missing(field: string): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", `the request has no ${field}`, { data: { field } });
}

function invalid(field: string, value: unknown, why: string): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", `${field} ${JSON.stringify(value)} ${why}`, { data: { field } });
}
