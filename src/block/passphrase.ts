import { ZcowError } from "../base/errors.js";
import type { MaybePromise } from "../base/maybe-promise.js";

/** Which image asks for a passphrase. */
export interface PassphraseRequest {
  /** How messages call the image. */
  readonly image: string;
  readonly encryption: "luks" | "aes";
}

/** What opens an encrypted image: text counts as its UTF-8 bytes. */
export type Passphrase = string | Uint8Array;

/**
 * A passphrase, or a function that gives the one of an image when it is needed; undefined from it means that there is none. Bytes
 * that a function returns are cleared once they have served; those given directly stay the caller's.
 */
export type PassphraseSource = Passphrase | ((request: PassphraseRequest) => MaybePromise<Passphrase | undefined>);

/** `source` for an image that is said to be encrypted in one way: another one that is found is refused (`INVALID_ARGUMENT`). */
export function passphraseFor(
  encryption: string | undefined,
  source: PassphraseSource | undefined,
): PassphraseSource | undefined {
  if (encryption === undefined) return source;
  return (request) => {
    if (encryption !== request.encryption) {
      const stockText = `Header reported '${request.encryption}' encryption format but options specify '${encryption}'`;
      throw new ZcowError("INVALID_ARGUMENT", stockText, {
        data: { option: "encrypt.format", value: encryption },
        stockText,
      });
    }
    return typeof source === "function" ? source(request) : source;
  };
}

/**
 * Calls `use` with the bytes of the passphrase and clears them afterwards. Fails with `PASSPHRASE_REQUIRED` when there is none.
 * The bytes are never part of an error.
 */
export async function withPassphrase<T>(
  source: PassphraseSource | undefined,
  request: PassphraseRequest,
  use: (passphrase: Uint8Array) => Promise<T>,
): Promise<T> {
  const given = typeof source === "function" ? await source(request) : source;
  if (given === undefined) throw passphraseRequired(request);
  const bytes = typeof given === "string" ? new TextEncoder().encode(given) : given;
  try {
    return await use(bytes);
  } finally {
    if (typeof given === "string" || typeof source === "function") bytes.fill(0);
  }
}

function passphraseRequired({ image, encryption }: PassphraseRequest): ZcowError {
  return new ZcowError("PASSPHRASE_REQUIRED", `${image} is encrypted (${encryption}), and no passphrase was given`, {
    data: { path: image, option: "encrypt.key-secret", value: encryption },
    stockText: "Parameter 'encrypt.key-secret' is required for cipher",
  });
}
