import { ZcowError } from "../../../base/errors.js";
import { type PassphraseSource, withPassphrase } from "../../../block/passphrase.js";
import { AesCbc } from "../../../codec/cipher/aes-cbc.js";
import type { SectorCipher } from "../../../codec/cipher/sector-cipher.js";
import { plain64Iv } from "../../../codec/cipher/sector-iv.js";
import { cipherSpecOf, luksCipher } from "../../../codec/luks/luks-cipher.js";
import { type UnlockedKey, unlock } from "../../../codec/luks/luks-volume.js";
import type { Storage } from "../../../storage/storage.js";
import type { GuestData } from "../guest-data.js";
import type { Qcow2Header } from "../header.js";
import { EncryptedData } from "./encrypted-data.js";
import { LuksArea } from "./luks-area.js";

/** Bytes of the key of the old encryption, AES-128: longer passphrases are cut, shorter ones filled up with zeros. */
const LEGACY_KEY_BYTES = 16;

/**
 * The guest data of an encrypted image over `inner`, where its bytes live. Fails with `PASSPHRASE_REQUIRED`, `PASSPHRASE_WRONG`, and
 * the `LUKS_*` codes. The key is cleared when the cipher has it. The old method tells nothing about the passphrase: a wrong
 * one opens the image and gives noise.
 */
export async function openEncryptedData(
  storage: Storage,
  header: Qcow2Header,
  passphrase: PassphraseSource | undefined,
  inner: GuestData,
): Promise<GuestData> {
  if (header.cryptHeader === undefined) {
    const cipher = await withPassphrase(passphrase, { image: storage.name, encryption: "aes" }, legacyCipher);
    return new EncryptedData(inner, cipher, "guest");
  }
  const area = await LuksArea.load(storage, header.cryptHeader);
  const spec = cipherSpecOf(area.header);
  const { key } = await unlockArea(storage, area, passphrase);
  const cipher = luksCipher(spec, key);
  key.fill(0);
  return new EncryptedData(inner, cipher, "host");
}

async function legacyCipher(passphrase: Uint8Array): Promise<SectorCipher> {
  const key = new Uint8Array(LEGACY_KEY_BYTES);
  key.set(passphrase.subarray(0, LEGACY_KEY_BYTES));
  const cipher = new AesCbc(key, plain64Iv());
  key.fill(0);
  return cipher;
}

/** The volume key of a LUKS area. The caller clears it. */
export async function unlockArea(
  storage: Storage,
  area: LuksArea,
  passphrase: PassphraseSource | undefined,
): Promise<UnlockedKey> {
  const request = { image: storage.name, encryption: "luks" } as const;
  const unlocked = await withPassphrase(passphrase, request, (bytes) => unlock(area.header, bytes, area.read));
  if (unlocked !== undefined) return unlocked;
  const active = area.header.slots.filter((slot) => slot.active).length;
  throw new ZcowError(
    "PASSPHRASE_WRONG",
    `The passphrase opens none of the ${active} active key slots of ${storage.name}`,
    {
      data: { path: storage.name, structure: "LUKS header", value: active },
      stockText: "Invalid password, cannot unlock any keyslot",
    },
  );
}
