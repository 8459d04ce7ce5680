import type { ErrorCode } from "../base/error-codes.js";
import type { ErrorData } from "../base/errors.js";
import { ZcowError } from "../base/errors.js";

/** What was being done when the operating system refused. */
export interface StorageOperation {
  /** Verb as it reads after "cannot": "read", "write", "open", "create". */
  readonly verb: string;
  /** Path or URL of the storage. */
  readonly name: string;
  /** Byte offset, where the operation has one. */
  readonly offset?: number;
  /** Length in bytes, where the operation has one. */
  readonly length?: number;
}

const CODE_BY_ERRNO: Readonly<Record<string, ErrorCode>> = {
  ENOENT: "NOT_FOUND",
  ENOTDIR: "NOT_FOUND",
  EEXIST: "ALREADY_EXISTS",
  EACCES: "ACCESS_DENIED",
  EPERM: "ACCESS_DENIED",
  EROFS: "ACCESS_DENIED",
  ENOSPC: "NO_SPACE",
  EDQUOT: "NO_SPACE",
  EFBIG: "FILE_TOO_LARGE",
  EAGAIN: "LOCKED",
  EBADF: "CLOSED",
  EISDIR: "NOT_A_DISK",
  EOPNOTSUPP: "STORAGE_UNSUPPORTED",
  ENOTSUP: "STORAGE_UNSUPPORTED",
};

/** The texts that stock tools print for an errno, where scripts may match them. */
const ERRNO_TEXT: Readonly<Record<string, string>> = {
  ENOENT: "No such file or directory",
  ENOTDIR: "Not a directory",
  EEXIST: "File exists",
  EACCES: "Permission denied",
  EPERM: "Operation not permitted",
  EROFS: "Read-only file system",
  ENOSPC: "No space left on device",
  EDQUOT: "Disk quota exceeded",
  EFBIG: "File too large",
  EISDIR: "Is a directory",
  EINVAL: "Invalid argument",
  EIO: "Input/output error",
  EOPNOTSUPP: "Operation not supported",
  ELOOP: "Too many levels of symbolic links",
  ENAMETOOLONG: "File name too long",
  EMFILE: "Too many open files",
};

/** The errno name of a Node.js system error, or undefined for any other value. */
export function errnoOf(cause: unknown): string | undefined {
  if (!(cause instanceof Error) || !("code" in cause)) return undefined;
  return typeof cause.code === "string" && /^E[A-Z0-9]+$/.test(cause.code) ? cause.code : undefined;
}

function rangeText(offset: number | undefined, length: number | undefined): string {
  if (offset === undefined) return length === undefined ? "" : ` to ${length} bytes`;
  return length === undefined ? ` at offset ${offset}` : ` ${length} bytes at offset ${offset}`;
}

/**
 * The `ZcowError` for a failed call of the operating system: the errno decides the code, anything
 * without a cause of its own is `IO_ERROR`. A `ZcowError` passes through unchanged.
 */
export function storageError(cause: unknown, operation: StorageOperation): ZcowError {
  if (cause instanceof ZcowError) return cause;
  const errno = errnoOf(cause);
  const { verb, name, offset, length } = operation;
  const reason = errno === undefined ? String(cause) : `${ERRNO_TEXT[errno] ?? "unexpected error"} (${errno})`;
  const data: ErrorData = {
    path: name,
    ...(offset === undefined ? {} : { offset }),
    ...(length === undefined ? {} : { length }),
    ...(errno === undefined ? {} : { errno }),
  };
  const code = (errno === undefined ? undefined : CODE_BY_ERRNO[errno]) ?? "IO_ERROR";
  const aboutPath = verb === "open" || verb === "create";
  const stockText = aboutPath && errno !== undefined ? stockOpenText(verb, name, errno) : undefined;
  const message = `cannot ${verb}${rangeText(offset, length)}${aboutPath ? "" : " of"} ${name}: ${reason}`;
  return new ZcowError(code, message, { data, cause, ...(stockText === undefined ? {} : { stockText }) });
}

function stockOpenText(verb: string, name: string, errno: string): string | undefined {
  const text = ERRNO_TEXT[errno];
  return text === undefined ? undefined : `Could not ${verb} '${name}': ${text}`;
}

/** The error for a call on a storage that was closed. */
export function closedError(name: string): ZcowError {
  return new ZcowError("CLOSED", `${name} was closed before this call`, { data: { path: name } });
}

/** The error for a changing call on a storage that was opened for reading. */
export function readOnlyError(name: string): ZcowError {
  return new ZcowError("READ_ONLY", `${name} is open for reading only`, { data: { path: name } });
}

/** Refuses ranges that are not made of safe, non-negative integers (`INVALID_ARGUMENT`). */
export function rangeError(name: string, at: number, length: number): ZcowError | undefined {
  if (at >= 0 && length >= 0 && Number.isSafeInteger(at) && Number.isSafeInteger(at + length)) return undefined;
  return new ZcowError(
    "INVALID_ARGUMENT",
    `offset ${at} with length ${length} is not a range of ${name}: both are whole, not negative, and end at most at 2^53-1`,
    {
      data: { path: name, offset: at, length, limit: Number.MAX_SAFE_INTEGER },
    },
  );
}
