/**
 * `zcow/errors`: the one error class, its codes, and warnings. All codes with their meaning: docs/errors.md.
 *
 * @module
 */
export type { ErrorCategory, ErrorCode, ErrorCodeInfo } from "../base/error-codes.js";
export { ERROR_CODES } from "../base/error-codes.js";
export type { ErrorData, ErrorExtras, ErrorValue, Warning, WarningSink } from "../base/errors.js";
export { isZcowError, ZcowError } from "../base/errors.js";
