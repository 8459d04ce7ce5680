/** What all connections of a target share. */
import type { Crc32c } from "../../codec/crc32c.js";
import type { Connection } from "./connection.js";
import type { DataBuffers } from "./data-buffers.js";
import type { TargetLimits } from "./limits.js";
import type { TargetEvent } from "./target-events.js";
import type { Clock } from "./transport.js";

export interface TargetContext {
  readonly limits: TargetLimits;
  readonly clock: Clock;
  readonly crc: Crc32c;
  /** Memory with any contents. */
  readonly allocate: (bytes: number) => Uint8Array;
  readonly buffers: DataBuffers;
  readonly report: (event: TargetEvent) => void;
  readonly connectionEnded: (connection: Connection) => void;
}
