/** Completion status values: SC in bits 7:0, SCT in bits 10:8 (NVMe base, "Status Field"; ZNS, "Status Values"). */

export const STATUS = {
  success: 0x000,
  // Generic command status.
  invalidOpcode: 0x001,
  invalidField: 0x002,
  commandIdConflict: 0x003,
  internalError: 0x006,
  abortRequested: 0x007,
  invalidNamespaceOrFormat: 0x00b,
  commandSequenceError: 0x00c,
  invalidSglSegment: 0x00d,
  dataSglLengthInvalid: 0x00f,
  sglTypeInvalid: 0x011,
  sglOffsetInvalid: 0x016,
  keepAliveTimeoutInvalid: 0x019,
  namespaceWriteProtected: 0x020,
  transientTransportError: 0x022,
  lbaOutOfRange: 0x080,
  capacityExceeded: 0x081,
  namespaceNotReady: 0x082,
  // Command specific status.
  eventRequestLimitExceeded: 0x105,
  invalidLogPage: 0x109,
  featureNotSaveable: 0x10d,
  featureNotChangeable: 0x10e,
  featureNotNamespaceSpecific: 0x10f,
  ioCommandSetNotSupported: 0x129,
  commandSizeLimitExceeded: 0x183,
  // Fabrics command specific status, shared with other commands' numbers.
  connectIncompatibleFormat: 0x180,
  connectControllerBusy: 0x181,
  connectInvalidParameters: 0x182,
  connectInvalidHost: 0x184,
  authenticationRequired: 0x191,
  // Zoned Namespace command set.
  zoneBoundaryError: 0x1b8,
  zoneIsFull: 0x1b9,
  zoneIsReadOnly: 0x1ba,
  zoneIsOffline: 0x1bb,
  zoneInvalidWrite: 0x1bc,
  tooManyActiveZones: 0x1bd,
  tooManyOpenZones: 0x1be,
  invalidZoneStateTransition: 0x1bf,
  // Media and data integrity errors.
  writeFault: 0x280,
  unrecoveredReadError: 0x281,
  compareFailure: 0x285,
} as const;

const DO_NOT_RETRY = 1 << 15;

/** What another try may well not meet again. Everything else is final, and says so: Linux would try five times. */
const TRANSIENT: ReadonlySet<number> = new Set([
  STATUS.abortRequested,
  STATUS.transientTransportError,
  STATUS.namespaceNotReady,
]);

/** SC and SCT. */
const CODE_MASK = 0x7ff;
const MAY_RETRY = 0x800;

/** `status` for a case that another try may well not meet again, though others with this status are final. */
export function retryable(status: number): number {
  return status | MAY_RETRY;
}

/** The status field of a completion queue entry, phase tag 0. */
export function statusField(status: number): number {
  const code = status & CODE_MASK;
  if (code === STATUS.success) return 0;
  return (code << 1) | (TRANSIENT.has(code) || (status & MAY_RETRY) !== 0 ? 0 : DO_NOT_RETRY);
}
