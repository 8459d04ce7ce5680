import { createDecipheriv } from "node:crypto";
import { readFileSync } from "node:fs";
import { ZcowError } from "../base/errors.js";
import { splitOptionList } from "../base/option-list.js";
import type { PassphraseSource } from "../block/passphrase.js";
import type { SecretLookup } from "../formats/qcow2/create-options-parse.js";

/**
 * `--object secret,...`: passphrases that stay out of the list of processes when they come from a file, or are encrypted with
 * the key in another secret. The options, and the words for what is wrong with them, are those of the stock tools.
 */

const KNOWN = ["qom-type", "id", "data", "file", "format", "keyid", "iv"];
const TYPE = "secret";
const KEY_BYTES = 32;
const BLOCK_BYTES = 16;
/** Largest file of a secret: nobody's passphrase, and few key files, are longer. */
const MAX_SECRET_BYTES = 1 << 20;

/** Reads the secrets of the `--object` options in order; one may name one before it as its key. Throws `SECRET`. */
export function readSecrets(objects: readonly string[]): SecretLookup {
  const secrets = new Map<string, Uint8Array>();
  for (const object of objects) {
    const options = optionsOf(object);
    const id = identifier(options);
    const bytes = secretBytes(options, secrets);
    if (secrets.has(id)) throw bad("id", `attempt to add duplicate property '${id}' to object (type 'container')`);
    secrets.set(id, bytes);
  }
  return (id) => lookup(secrets, id);
}

/** The secret is looked for when it is used, as the stock tools do. */
function lookup(secrets: ReadonlyMap<string, Uint8Array>, id: string): PassphraseSource {
  return () => {
    const bytes = find(secrets, id);
    try {
      new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch {
      throw bad("data", `Data from secret ${id} is not valid UTF-8`);
    }
    return bytes.slice();
  };
}

function find(secrets: ReadonlyMap<string, Uint8Array>, id: string): Uint8Array {
  const bytes = secrets.get(id);
  if (bytes === undefined) throw bad("id", `No secret with id '${id}'`);
  return bytes;
}

type Options = ReadonlyMap<string, string>;

function optionsOf(object: string): Options {
  const options = object.startsWith("{") ? jsonOptions(object) : listOptions(object);
  const type = options.get("qom-type");
  if (type === undefined) throw bad("qom-type", "Parameter 'qom-type' is missing");
  if (type !== TYPE) throw bad("qom-type", `Parameter 'qom-type' does not accept value '${type}'`);
  for (const name of options.keys()) if (!KNOWN.includes(name)) throw bad(name, `Parameter '${name}' is unexpected`);
  return options;
}

function jsonOptions(object: string): Options {
  let value: unknown;
  try {
    value = JSON.parse(object);
  } catch {
    throw bad("--object", "JSON parse error, invalid object");
  }
  if (typeof value !== "object" || value === null) throw bad("--object", "JSON parse error, expecting an object");
  return new Map(Object.entries(value).map(([name, item]) => [name, String(item)]));
}

/** The type comes first, and may stand without its name. */
function listOptions(object: string): Options {
  const [first = "", ...rest] = object.split(",");
  const list = first.includes("=") ? object : [`qom-type=${first}`, ...rest].join(",");
  const options = splitOptionList(list);
  if (options === undefined) throw bad("--object", "Invalid object description");
  return new Map(options);
}

function identifier(options: Options): string {
  const id = options.get("id");
  if (id === undefined) throw bad("id", "Parameter 'id' is missing");
  if (/^[A-Za-z][A-Za-z0-9\-._]*$/.test(id)) return id;
  const hint = "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.";
  throw bad("id", `Parameter 'id' expects an identifier\n${hint}`);
}

function secretBytes(options: Options, secrets: ReadonlyMap<string, Uint8Array>): Uint8Array {
  const format = options.get("format") ?? "raw";
  if (format !== "raw" && format !== "base64") {
    throw bad("format", `Parameter 'format' does not accept value '${format}'`);
  }
  const stored = storedBytes(options);
  const keyId = options.get("keyid");
  if (keyId !== undefined) return decrypt(stored, format, find(secrets, keyId), options.get("iv"));
  return format === "base64" ? fromBase64(stored) : stored;
}

function storedBytes(options: Options): Uint8Array {
  const data = options.get("data");
  const file = options.get("file");
  if (data !== undefined && file !== undefined) throw bad("file", "'file' and 'data' are mutually exclusive");
  if (data !== undefined) return new TextEncoder().encode(data);
  if (file === undefined) throw bad("data", "Either 'file' or 'data' must be provided");
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    const missing = error instanceof Error && "code" in error && error.code === "ENOENT";
    const reason = missing ? "No such file or directory" : "it cannot be read";
    throw bad("file", `Unable to read ${file}: Failed to open file \u201c${file}\u201d: ${reason}`);
  }
  if (bytes.length <= MAX_SECRET_BYTES) return bytes;
  throw bad("file", `Unable to read ${file}: ${bytes.length} bytes are more than the limit ${MAX_SECRET_BYTES}`);
}

function fromBase64(text: Uint8Array): Uint8Array {
  const characters = new TextDecoder("latin1").decode(text);
  if (!/^[A-Za-z0-9+/=\n]*$/.test(characters)) throw bad("data", "Base64 data contains invalid characters");
  return new Uint8Array(Buffer.from(characters, "base64"));
}

/** AES-256-CBC with padding; key and IV as for the stock tools. */
function decrypt(stored: Uint8Array, format: string, key: Uint8Array, iv: string | undefined): Uint8Array {
  if (key.length !== KEY_BYTES) throw bad("keyid", `Key should be ${KEY_BYTES} bytes in length`);
  if (iv === undefined) throw bad("iv", "IV is required to decrypt secret");
  const start = fromBase64(new TextEncoder().encode(iv));
  if (start.length !== BLOCK_BYTES) {
    throw bad("iv", `IV should be ${BLOCK_BYTES} bytes in length not ${start.length}`);
  }
  const encrypted = format === "base64" ? fromBase64(stored) : stored;
  if (encrypted.length % BLOCK_BYTES !== 0) {
    throw bad("data", `Length ${encrypted.length} must be a multiple of block size ${BLOCK_BYTES}`);
  }
  const cipher = createDecipheriv("aes-256-cbc", key, start).setAutoPadding(false);
  const plain = new Uint8Array(Buffer.concat([cipher.update(encrypted), cipher.final()]));
  const padding = plain.at(-1) ?? 0;
  if (padding === 0 || padding > BLOCK_BYTES) {
    throw bad("data", `Incorrect number of padding bytes (${padding}) found on decrypted data`);
  }
  return plain.slice(0, plain.length - padding);
}

function bad(option: string, text: string): ZcowError {
  return new ZcowError("SECRET", text, { data: { option }, stockText: text });
}
