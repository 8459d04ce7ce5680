/** What happens in a target, for logs. Events are rare: none is reported per command. */

export type TargetEvent =
  | {
      readonly kind: "controller-connected";
      readonly subsystemNqn: string;
      readonly hostNqn: string;
      readonly controllerId: number;
      readonly peer: string;
    }
  | {
      readonly kind: "queue-connected";
      readonly subsystemNqn: string;
      readonly controllerId: number;
      readonly queueId: number;
      readonly entries: number;
      readonly peer: string;
    }
  | {
      readonly kind: "connect-refused";
      readonly subsystemNqn: string;
      readonly hostNqn: string;
      readonly reason: string;
      readonly status: number;
      readonly peer: string;
    }
  | {
      readonly kind: "controller-gone";
      readonly subsystemNqn: string;
      readonly hostNqn: string;
      readonly controllerId: number;
      readonly reason: string;
    }
  | {
      readonly kind: "authentication-failed";
      readonly subsystemNqn: string;
      readonly hostNqn: string;
      readonly peer: string;
    }
  /** The connection was ended for breaking the protocol. `fes`: Fatal Error Status of the C2HTermReq PDU. */
  | { readonly kind: "protocol-error"; readonly peer: string; readonly fes: number; readonly reason: string }
  /** The peer ended the connection with an H2CTermReq PDU. */
  | { readonly kind: "terminated-by-host"; readonly peer: string; readonly fes: number }
  /** Closing zones or flushing behind a host that left failed: what it wrote may not be durable. */
  | { readonly kind: "settle-failed"; readonly subsystemNqn: string; readonly nsid: number; readonly error: unknown }
  /** A mistake of the target itself; the connection was dropped. */
  | { readonly kind: "internal-error"; readonly peer: string; readonly error: unknown }
  /** A command could not be carried out for a reason of our own, which the status alone does not tell. */
  | { readonly kind: "command-failed"; readonly nsid: number; readonly opcode: number; readonly error: unknown };
