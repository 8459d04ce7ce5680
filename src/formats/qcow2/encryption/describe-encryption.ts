import type { LuksHeader } from "../../../codec/luks/luks-header.js";
import type { Storage } from "../../../storage/storage.js";
import type { Qcow2Header } from "../header.js";
import { LuksArea } from "./luks-area.js";

/** A key slot, as the header has it. Offsets in bytes from the start of the LUKS header. */
export interface KeySlotInfo {
  readonly active: boolean;
  readonly iterations: number;
  readonly keyOffset: number;
  readonly stripes: number;
}

/** What an encrypted image tells without its passphrase. */
export type EncryptionInfo =
  | { readonly format: "aes" }
  | {
      readonly format: "luks";
      /** "aes-256". */
      readonly cipherAlg: string;
      /** "xts". */
      readonly cipherMode: string;
      /** "plain64". */
      readonly ivgenAlg: string;
      /** Hash of the IV generator `essiv`; undefined with other generators. */
      readonly ivgenHashAlg: string | undefined;
      readonly hashAlg: string;
      readonly uuid: string;
      /** Iterations of the digest of the volume key. */
      readonly masterKeyIterations: number;
      readonly payloadOffset: number;
      readonly slots: readonly KeySlotInfo[];
    };

/** Reads what an encrypted image says about its encryption; undefined when it is not encrypted. Throws the `LUKS_*` codes. */
export async function describeEncryption(storage: Storage, header: Qcow2Header): Promise<EncryptionInfo | undefined> {
  if (header.cryptMethod === 0) return undefined;
  if (header.cryptHeader === undefined) return { format: "aes" };
  return describeLuks((await LuksArea.load(storage, header.cryptHeader)).header);
}

function describeLuks(header: LuksHeader): EncryptionInfo {
  const [mode = "", iv = "", ivHash] = header.cipherMode.split(/[-:]/);
  const keyBits = (header.keyBytes * 8) / (mode === "xts" ? 2 : 1);
  return {
    format: "luks",
    cipherAlg: `${header.cipherName}-${keyBits}`,
    cipherMode: mode,
    ivgenAlg: iv,
    ivgenHashAlg: iv === "essiv" ? ivHash : undefined,
    hashAlg: header.hash,
    uuid: header.uuid,
    masterKeyIterations: header.digestIterations,
    payloadOffset: header.payloadOffset,
    slots: header.slots.map(({ active, iterations, offset, stripes }) => ({
      active,
      iterations,
      keyOffset: offset,
      stripes,
    })),
  };
}
