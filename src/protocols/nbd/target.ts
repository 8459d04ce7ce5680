/** What the connections of a server share. */
import type { ZcowError } from "../../base/errors.js";
import type { DataBuffers } from "../nvme/data-buffers.js";
import type { Clock } from "../nvme/transport.js";
import type { NbdExport } from "./export.js";
import type { NbdLimits } from "./limits.js";

/** Which TLS a server asks for: none at all, or of every client before anything else. */
export type TlsPolicy = "off" | "required";

/** What is worth a line in a log. */
export type NbdEvent =
  | { readonly kind: "connected"; readonly peer: string; readonly export: string; readonly tls: boolean }
  | { readonly kind: "refused"; readonly peer: string; readonly reason: string }
  | { readonly kind: "ended"; readonly peer: string; readonly reason: string }
  | { readonly kind: "request-failed"; readonly peer: string; readonly operation: string; readonly error: ZcowError }
  | { readonly kind: "internal-error"; readonly peer: string; readonly error: unknown };

export interface NbdTarget {
  readonly exports: ReadonlyMap<string, NbdExport>;
  readonly limits: NbdLimits;
  readonly tls: TlsPolicy;
  readonly clock: Clock;
  /** Calls back in a later turn of the event loop, after what waits in this one. */
  readonly soon: (callback: () => void) => void;
  /** Memory for replies, with any contents. */
  readonly allocate: (bytes: number) => Uint8Array;
  /** Memory for data of writes. */
  readonly buffers: DataBuffers;
  readonly report: (event: NbdEvent) => void;
}
