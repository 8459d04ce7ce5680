/** The one map from error codes to NVMe status. */
import type { ErrorCode } from "../../base/error-codes.js";
import { isZcowError } from "../../base/errors.js";
import { STATUS } from "./status.js";

/** Codes with a status of their own. The rest are the target's own trouble. */
const BY_CODE: Partial<Record<ErrorCode, number>> = {
  OUT_OF_RANGE: STATUS.lbaOutOfRange,
  MISALIGNED: STATUS.invalidField,
  INVALID_ARGUMENT: STATUS.invalidField,
  NOT_SUPPORTED: STATUS.invalidField,
  CLOSED: STATUS.namespaceNotReady,
  READ_ONLY: STATUS.namespaceWriteProtected,
  NO_SPACE: STATUS.capacityExceeded,
  FILE_TOO_LARGE: STATUS.capacityExceeded,
  ZONE_INVALID_WRITE: STATUS.zoneInvalidWrite,
  ZONE_BOUNDARY: STATUS.zoneBoundaryError,
  ZONE_FULL: STATUS.zoneIsFull,
  ZONE_READ_ONLY: STATUS.zoneIsReadOnly,
  ZONE_OFFLINE: STATUS.zoneIsOffline,
  ZONE_TOO_MANY_OPEN: STATUS.tooManyOpenZones,
  ZONE_TOO_MANY_ACTIVE: STATUS.tooManyActiveZones,
  ZONE_INVALID_TRANSITION: STATUS.invalidZoneStateTransition,
  ZONE_NOT_SEQUENTIAL: STATUS.invalidField,
  ZONE_MISALIGNED: STATUS.invalidField,
  ZONE_APPEND_TOO_LARGE: STATUS.invalidField,
};

/** Errors of other categories that are media errors to a host. */
const MEDIA_ERRORS: readonly ErrorCode[] = ["ZONE_ABORTED", "IMAGE_CORRUPT", "COMPRESSED_DATA"];

/** What the failed command did with the media. */
export type MediaAccess = "read" | "write";

/**
 * The status that tells a host about `error`. What the storage refused, for want of a better name, is a media error of
 * the direction; anything unforeseen is an internal error.
 */
export function statusFromError(error: unknown, access: MediaAccess): number {
  if (!isZcowError(error)) return STATUS.internalError;
  const own = BY_CODE[error.code];
  if (own !== undefined) return own;
  // An abandoned write did not happen because an earlier one of its zone failed.
  const media = error.category === "storage" || MEDIA_ERRORS.includes(error.code);
  if (!media) return STATUS.internalError;
  return access === "read" ? STATUS.unrecoveredReadError : STATUS.writeFault;
}

/** True when the cause lies in the target and an administrator should hear of it. */
export function isTargetFault(status: number): boolean {
  return (
    status === STATUS.internalError ||
    status === STATUS.writeFault ||
    status === STATUS.unrecoveredReadError ||
    status === STATUS.capacityExceeded
  );
}
