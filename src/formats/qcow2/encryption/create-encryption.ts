import { ZcowError } from "../../../base/errors.js";
import { type PassphraseSource, withPassphrase } from "../../../block/passphrase.js";
import { checkEssivHash, type LuksCipherSpec } from "../../../codec/luks/luks-cipher.js";
import { encodeLuksHeader } from "../../../codec/luks/luks-header.js";
import { fillSlot, newVolume } from "../../../codec/luks/luks-volume.js";
import { type CreateEncryptOptions, type CreateQcow2Options, OPTION_SPECS, optionValue } from "../create-options.js";

/** How a new image is to be encrypted, with every default filled in, checked. */
export type EncryptionPlan =
  | { readonly format: "aes"; readonly passphrase: PassphraseSource | undefined }
  | {
      readonly format: "luks";
      readonly passphrase: PassphraseSource | undefined;
      readonly spec: LuksCipherSpec;
      /** Milliseconds. */
      readonly iterTime: number;
    };

/** A piece of the LUKS area, to be written at `offset` of it. */
export interface AreaPiece {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** What a new image gets for its encryption. */
export interface NewEncryption {
  /** crypt_method of the header. */
  readonly method: 1 | 2;
  /** Bytes of the LUKS area, 0 = none. */
  readonly areaBytes: number;
  readonly pieces: readonly AreaPiece[];
}

const DEFAULT_ITER_TIME = 2000;

/** Checks the options; throws `INVALID_ARGUMENT` and `LUKS_CIPHER`, in the words of the stock tool where it refuses the same. */
export function planEncryption(options: CreateQcow2Options): EncryptionPlan | undefined {
  const encrypt = options.encrypt ?? {};
  const { format, passphrase } = encrypt;
  if (options.encryption === true && format !== undefined) {
    const stockText = "'encrypt.format' and its alias 'encryption' can't be used at the same time";
    throw invalid("encryption", "encryption=on and encrypt.format are given both; they mean the same", stockText);
  }
  const given = OPTION_SPECS.filter(
    ({ name, property }) => name.startsWith("encrypt.") && optionValue(options, property) !== undefined,
  ).map(({ name }) => name);
  const chosen = format ?? (options.encryption === true ? "aes" : undefined);
  if (chosen === undefined) {
    if (given.length === 0) return undefined;
    throw invalid(
      "encrypt.format",
      `${given.join(", ")} given without encrypt.format`,
      "Parameter 'encrypt.format' is missing",
    );
  }
  if (chosen === "luks") return planLuks(encrypt);
  const unexpected = given.find((name) => name !== "encrypt.format" && name !== "encrypt.key-secret");
  if (unexpected === undefined) return { format: "aes", passphrase };
  throw invalid(
    unexpected,
    `${unexpected} is an option of LUKS, not of encrypt.format=aes`,
    `Parameter '${unexpected}' is unexpected`,
  );
}

function planLuks(encrypt: CreateEncryptOptions): EncryptionPlan {
  const { passphrase, cipherAlg = "aes-256", cipherMode = "xts", ivgenAlg = "plain64", hashAlg = "sha256" } = encrypt;
  const ivHash = encrypt.ivgenHashAlg ?? (ivgenAlg === "essiv" ? "sha256" : undefined);
  if (ivgenAlg === "essiv") checkEssivHash(ivHash);
  if (cipherAlg === "aes-192" && cipherMode !== "xts") {
    const message = "aes-192 goes with cipher mode xts only: other tools cannot open such a volume in another mode";
    throw invalid("encrypt.cipher-alg", message, undefined);
  }
  const spec = { algorithm: cipherAlg, mode: cipherMode, iv: ivgenAlg, ivHash, hash: hashAlg };
  return { format: "luks", passphrase, spec, iterTime: encrypt.iterTime ?? DEFAULT_ITER_TIME };
}

/**
 * Makes the keys of a new image called `name`: for LUKS its header and the material of key slot 0, which takes about twice the
 * time the slot is to take. Fails with `PASSPHRASE_REQUIRED`.
 */
export async function newEncryption(plan: EncryptionPlan, name: string): Promise<NewEncryption> {
  if (plan.format === "aes") {
    // The key is the passphrase, and nothing of it is stored; but who makes the image should have one.
    await withPassphrase(plan.passphrase, { image: name, encryption: "aes" }, async () => undefined);
    return { method: 1, areaBytes: 0, pieces: [] };
  }
  return withPassphrase(plan.passphrase, { image: name, encryption: "luks" }, async (passphrase) => {
    const { header, key } = await newVolume(plan.spec, plan.iterTime);
    const [first, ...others] = header.slots;
    if (first === undefined) throw new Error("a LUKS header has key slots");
    const { slot, material } = await fillSlot(header, first, key, passphrase, plan.iterTime);
    key.fill(0);
    return {
      method: 2,
      areaBytes: header.payloadOffset,
      pieces: [
        { offset: slot.offset, bytes: material },
        { offset: 0, bytes: encodeLuksHeader({ ...header, slots: [slot, ...others] }) },
      ],
    };
  });
}

function invalid(option: string, message: string, stockText: string | undefined): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", `Option ${message}`, {
    data: { option },
    ...(stockText === undefined ? {} : { stockText }),
  });
}
