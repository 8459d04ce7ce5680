import { readFileSync, statSync } from "node:fs";
import { ZcowError } from "../../base/errors.js";
import { storageError } from "../storage-error.js";
import { parseDebugConfig } from "./config.js";
import type { DebugRules } from "./rules.js";

/** Largest configuration file: thousands of rules. */
const MAX_CONFIG_BYTES = 1 << 20;

/** The rules in the configuration file at `path`. Fails with `NOT_FOUND`, `ACCESS_DENIED`, `INVALID_ARGUMENT`. */
export function readDebugConfig(path: string): DebugRules {
  let text: string;
  try {
    const { size } = statSync(path);
    if (size > MAX_CONFIG_BYTES) throw tooLarge(path, size);
    text = readFileSync(path, "utf8");
  } catch (cause) {
    if (cause instanceof ZcowError) throw cause;
    const { code, message, data } = storageError(cause, { verb: "read", name: path });
    const reason = code === "NOT_FOUND" ? "No such file or directory" : "Permission denied";
    throw new ZcowError(code, message, { data, cause, stockText: `Could not read blkdebug config file: ${reason}` });
  }
  return parseDebugConfig(text, path);
}

function tooLarge(path: string, size: number): ZcowError {
  const text = `${path} has ${size} bytes, and a configuration has at most ${MAX_CONFIG_BYTES}`;
  return new ZcowError("INVALID_ARGUMENT", text, { data: { path, value: size, limit: MAX_CONFIG_BYTES } });
}
