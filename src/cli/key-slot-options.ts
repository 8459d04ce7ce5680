import { ZcowError } from "../base/errors.js";
import type { SecretLookup } from "../formats/qcow2/create-options-parse.js";
import type { KeySlotChange } from "../formats/qcow2/encryption/key-slots.js";

/** The options `encrypt.*` of `amend`: which passphrase goes into which key slot, or out of it. */

const OPTIONS = ["encrypt.iter-time", "encrypt.keyslot", "encrypt.new-secret", "encrypt.old-secret", "encrypt.state"];

/** The change that the options ask for; undefined when they are not among those given. Throws `INVALID_ARGUMENT`. */
export function keySlotChange(
  options: ReadonlyMap<string, string>,
  secretOf: SecretLookup,
  force: boolean,
): KeySlotChange | undefined {
  const values = new Map([...options].filter(([name]) => OPTIONS.includes(name)));
  if (values.size === 0) return undefined;
  const keyslot = numberOf(values, "encrypt.keyslot");
  const iterTime = numberOf(values, "encrypt.iter-time");
  const state = values.get("encrypt.state");
  if (state === undefined) throw invalid("encrypt.state", "Parameter 'state' is missing");
  if (state !== "active" && state !== "inactive") {
    throw invalid("encrypt.state", `Parameter 'state' does not accept value '${state}'`);
  }
  const secret = (name: string): ReturnType<SecretLookup> | undefined => {
    const id = values.get(name);
    return id === undefined ? undefined : secretOf(id);
  };
  return {
    state,
    keyslot,
    iterTime,
    newPassphrase: secret("encrypt.new-secret"),
    oldPassphrase: secret("encrypt.old-secret"),
    force,
  };
}

function numberOf(values: ReadonlyMap<string, string>, name: string): number | undefined {
  const text = values.get(name);
  if (text === undefined) return undefined;
  if (/^\s*[+]?\d+$/.test(text) && Number.isSafeInteger(Number(text))) return Number(text);
  throw invalid(name, `Parameter '${name}' expects a number`);
}

function invalid(option: string, text: string): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", text, { data: { option }, stockText: text });
}
