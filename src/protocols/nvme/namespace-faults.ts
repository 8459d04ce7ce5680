/** Errors and delays that an administrator puts on a namespace, to see how hosts bear them. */

/** What happens to a command instead of, or before, its ordinary course. */
export interface InjectedFault {
  /** Milliseconds before the command is carried out (or fails). */
  readonly delay?: number;
  /** Status to complete with, without touching the device: SC in bits 7:0, SCT in bits 10:8. */
  readonly status?: number;
}

/** An I/O command as fault rules see it. */
export interface FaultSubject {
  readonly opcode: number;
  /** First block. */
  readonly lba: number;
  readonly blocks: number;
}

/** Decides per I/O command. `undefined`: nothing is done to it. Called on the hot path while it is set. */
export type FaultInjector = (subject: FaultSubject) => InjectedFault | undefined;
