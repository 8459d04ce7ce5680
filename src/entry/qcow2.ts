/**
 * `zcow/qcow2`: what only qcow2 has: options of new images, the zoned extension, the check and its findings.
 *
 * @module
 */
export type { CheckOptions } from "../formats/qcow2/check/check.js";
export { checkQcow2 } from "../formats/qcow2/check/check.js";
export type { CheckFinding, CheckResult, FindingKind, FindingSeverity } from "../formats/qcow2/check/check-result.js";
export { checkExitCode } from "../formats/qcow2/check/check-result.js";
export type { CreateQcow2Hooks } from "../formats/qcow2/create.js";
export { createQcow2 } from "../formats/qcow2/create.js";
export type { CreateQcow2Options, CreateZoneOptions } from "../formats/qcow2/create-options.js";
export { CREATE_OPTIONS } from "../formats/qcow2/create-options.js";
export { parseCreateOptions } from "../formats/qcow2/create-options-parse.js";
export type { Qcow2Features, Qcow2Header } from "../formats/qcow2/header.js";
export { openQcow2 } from "../formats/qcow2/open.js";
export type { ZonedExtension, ZonedLayout } from "../formats/qcow2/zoned-extension.js";
export { ZONED_LAYOUTS } from "../formats/qcow2/zoned-extension.js";
