import { ZcowError } from "../../base/errors.js";
import { ERROR_NUMBER, type NbdErrorName } from "../../codec/nbd/wire.js";

/** Errno names that the protocol lacks, by the nearest it has. */
const NEAREST: Readonly<Record<string, NbdErrorName>> = {
  EACCES: "EPERM",
  EROFS: "EPERM",
  EBADF: "ESHUTDOWN",
  EDQUOT: "ENOSPC",
  EFBIG: "ENOSPC",
  ETOOMANYREFS: "ENOSPC",
  EDOM: "EINVAL",
};

/** The number by which the protocol reports `error`. */
export function errorNumberOf(error: unknown): number {
  if (!(error instanceof ZcowError)) return ERROR_NUMBER.EIO;
  // A zone that refuses a request refuses it every time: that is the request's fault, not the disk's.
  if (error.category === "zone" && error.errno === "EIO") return ERROR_NUMBER.EINVAL;
  const name = error.errno;
  if (Object.hasOwn(ERROR_NUMBER, name)) return ERROR_NUMBER[name as NbdErrorName];
  return ERROR_NUMBER[NEAREST[name] ?? "EIO"];
}
