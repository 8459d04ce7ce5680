import type { TargetEvent } from "../../protocols/nvme/target-events.js";
import type { LogFields, Logger } from "./logger.js";

/** How many events of each kind there were. */
export type EventCounts = Map<TargetEvent["kind"], number>;

type Severity = "info" | "warn" | "error";

const SEVERITIES: Readonly<Record<TargetEvent["kind"], Severity>> = {
  "controller-connected": "info",
  "queue-connected": "info",
  "connect-refused": "warn",
  "controller-gone": "info",
  "authentication-failed": "warn",
  "protocol-error": "warn",
  "terminated-by-host": "warn",
  "settle-failed": "error",
  "internal-error": "error",
  "command-failed": "error",
};

/** Logs what happens in a target and counts it. */
export function targetLog(log: Logger, counts: EventCounts): (event: TargetEvent) => void {
  return (event) => {
    counts.set(event.kind, (counts.get(event.kind) ?? 0) + 1);
    log[SEVERITIES[event.kind]](event.kind, fieldsOf(event));
  };
}

function fieldsOf(event: TargetEvent): LogFields {
  const fields: Record<string, string | number | boolean> = {};
  for (const [key, value] of Object.entries(event)) {
    if (key === "kind") continue;
    if (typeof value === "string" || typeof value === "number" || typeof value === "boolean") fields[key] = value;
    else fields[key] = messageOf(value);
  }
  return fields;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
