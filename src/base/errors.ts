import { ERROR_CODES, type ErrorCategory, type ErrorCode } from "./error-codes.js";

/** A field value as it appears in an error: bytes and counts are numbers, 64-bit flag words are bigint. */
export type ErrorValue = number | bigint | string | boolean;

/** The facts behind an error, for programs. All offsets and lengths are in bytes unless named otherwise. */
export interface ErrorData {
  /** The structure that is wrong or was asked for: "header", "L1 table", "zone 3". */
  readonly structure?: string;
  /** The field of the structure, by its name in the format. */
  readonly field?: string;
  /** Where: byte offset in the file (format and storage errors) or on the disk (zone and usage errors). */
  readonly offset?: number;
  readonly length?: number;
  /** The offending value. */
  readonly value?: ErrorValue;
  /** The bound that `value` broke. */
  readonly limit?: ErrorValue;
  /** The file or device concerned. */
  readonly path?: string;
  /** What the operating system called it. */
  readonly errno?: string;
  /** The option concerned, as the user writes it. */
  readonly option?: string;
  /** Further findings, one line each (for example why each candidate layout failed). */
  readonly reasons?: readonly string[];
}

/** What a {@link ZcowError} carries beside its code and message. */
export interface ErrorExtras {
  readonly data?: ErrorData;
  readonly cause?: unknown;
  /**
   * The text that the stock tool prints for the same cause, when scripts may match it.
   * The commands print it in place of `message` when they stand in for a stock tool.
   */
  readonly stockText?: string;
}

/**
 * The one error class of zcow. Branch on `code` (stable literal) or `category`; never on `message`.
 *
 * `message` names the subject, the state found and the numbers; `data` carries the same as values.
 */
export class ZcowError extends Error {
  override readonly name = "ZcowError";
  readonly code: ErrorCode;
  readonly category: ErrorCategory;
  /** POSIX errno name, as stock tools would report the cause. */
  readonly errno: string;
  readonly data: ErrorData;
  readonly stockText: string | undefined;

  constructor(code: ErrorCode, message: string, extras: ErrorExtras = {}) {
    super(message, extras.cause === undefined ? undefined : { cause: extras.cause });
    const info = ERROR_CODES[code];
    this.code = code;
    this.category = info.category;
    this.data = extras.data ?? {};
    this.errno = this.data.errno ?? info.errno;
    this.stockText = extras.stockText;
  }
}

/** True when `error` is a {@link ZcowError}, and has `code` when one is given. */
export function isZcowError(error: unknown, code?: ErrorCode): error is ZcowError {
  return error instanceof ZcowError && (code === undefined || error.code === code);
}

/** A condition that is worth telling but does not stop the work, such as a clamped limit. */
export interface Warning {
  /** Stable literal, same naming rules as error codes. */
  readonly code: string;
  readonly message: string;
  readonly data?: ErrorData;
}

/** Receives warnings as they arise. The library never prints. */
export type WarningSink = (warning: Warning) => void;
