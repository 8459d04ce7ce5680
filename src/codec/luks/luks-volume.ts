import { randomBytes, randomUUID, timingSafeEqual } from "node:crypto";
import { alignUp } from "../../base/integers.js";
import type { MaybePromise } from "../../base/maybe-promise.js";
import { mergeStripes, splitStripes } from "./af-splitter.js";
import { deriveKey, iterationsFor, iterationsPerSecond } from "./key-derivation.js";
import { cipherModeText, cipherSpecOf, type LuksCipherSpec, luksCipher, volumeKeyBytes } from "./luks-cipher.js";
import { keyMaterialBytes, type LuksHeader, type LuksKeySlot } from "./luks-header.js";
import { LUKS_ALIGNMENT, LUKS_DIGEST_BYTES, LUKS_KEY_SLOTS, LUKS_SALT_BYTES, LUKS_STRIPES } from "./luks-limits.js";

/** Reads a key slot's material: `into` from byte `offset` of the LUKS area. */
export type MaterialReader = (offset: number, into: Uint8Array) => MaybePromise<void>;

/** A volume key, and the slot that gave it. The owner clears it when it has served. */
export interface UnlockedKey {
  readonly key: Uint8Array;
  readonly slot: number;
}

/** A key slot as it is to be stored: its entry in the header and its material. */
export interface FilledSlot {
  readonly slot: LuksKeySlot;
  readonly material: Uint8Array;
}

/** Tries `passphrase` on every active slot, in order; undefined when it opens none. Takes the time the slots ask for. */
export async function unlock(
  header: LuksHeader,
  passphrase: Uint8Array,
  read: MaterialReader,
): Promise<UnlockedKey | undefined> {
  for (let slot = 0; slot < header.slots.length; slot++) {
    const key = await unlockSlot(header, slot, passphrase, read);
    if (key !== undefined) return { key, slot };
  }
  return undefined;
}

/** The volume key when `passphrase` opens slot `index`; undefined when not, or when the slot is not active. */
export async function unlockSlot(
  header: LuksHeader,
  index: number,
  passphrase: Uint8Array,
  read: MaterialReader,
): Promise<Uint8Array | undefined> {
  const slot = header.slots[index];
  if (slot?.active !== true) return undefined;
  const { hash, keyBytes } = header;
  const { salt, iterations, stripes } = slot;
  const material = new Uint8Array(keyMaterialBytes(keyBytes));
  await read(slot.offset, material);
  const slotKey = await deriveKey({ passphrase, salt, iterations, length: keyBytes, hash });
  luksCipher(cipherSpecOf(header), slotKey).decrypt(0, material);
  slotKey.fill(0);
  const key = mergeStripes(material, keyBytes, stripes, hash);
  material.fill(0);
  if (await isVolumeKey(header, key)) return key;
  key.fill(0);
  return undefined;
}

async function isVolumeKey(
  { digest, digestSalt, digestIterations, hash }: LuksHeader,
  key: Uint8Array,
): Promise<boolean> {
  const found = await deriveKey({
    passphrase: key,
    salt: digestSalt,
    iterations: digestIterations,
    length: LUKS_DIGEST_BYTES,
    hash,
  });
  return timingSafeEqual(found, digest);
}

/** The slot `slot`, filled with the volume key under `passphrase`: the derivation takes about `milliseconds`. */
export async function fillSlot(
  header: LuksHeader,
  slot: LuksKeySlot,
  key: Uint8Array,
  passphrase: Uint8Array,
  milliseconds: number,
): Promise<FilledSlot> {
  const { hash, keyBytes } = header;
  const iterations = iterationsFor(await iterationsPerSecond(hash, keyBytes), milliseconds);
  const salt = randomBytes(LUKS_SALT_BYTES);
  const slotKey = await deriveKey({ passphrase, salt, iterations, length: keyBytes, hash });
  const plain = new Uint8Array(keyMaterialBytes(keyBytes));
  splitStripes(key, plain, LUKS_STRIPES, hash);
  const material = luksCipher(cipherSpecOf(header), slotKey).encrypt(0, plain);
  plain.fill(0);
  slotKey.fill(0);
  return { slot: { ...slot, active: true, iterations, salt, stripes: LUKS_STRIPES }, material };
}

/** A new volume: its header without active slots, and its key. */
export interface NewVolume {
  readonly header: LuksHeader;
  readonly key: Uint8Array;
}

/** Part of the time of a key slot that checking the volume key's digest may take. */
const DIGEST_SHARE = 1 / 8;

/** Makes a volume key and a header for it, laid out as QEMU lays it out. `milliseconds`: time that one key slot will take. */
export async function newVolume(spec: LuksCipherSpec, milliseconds: number): Promise<NewVolume> {
  const keyBytes = volumeKeyBytes(spec);
  const key = randomBytes(keyBytes);
  const digestSalt = randomBytes(LUKS_SALT_BYTES);
  const perSecond = await iterationsPerSecond(spec.hash, LUKS_DIGEST_BYTES);
  const digestIterations = iterationsFor(perSecond, milliseconds * DIGEST_SHARE);
  const digest = await deriveKey({
    passphrase: key,
    salt: digestSalt,
    iterations: digestIterations,
    length: LUKS_DIGEST_BYTES,
    hash: spec.hash,
  });
  const header = {
    cipherName: "aes",
    cipherMode: cipherModeText(spec),
    hash: spec.hash,
    payloadOffset: luksAreaBytes(keyBytes),
    keyBytes,
    digest,
    digestSalt,
    digestIterations,
    uuid: randomUUID(),
    slots: Array.from({ length: LUKS_KEY_SLOTS }, (_, index) => emptySlot(keyBytes, index)),
  };
  return { header, key };
}

/** Bytes of header and key material together: where the payload begins. */
export function luksAreaBytes(keyBytes: number): number {
  return materialOffset(keyBytes, LUKS_KEY_SLOTS);
}

function materialOffset(keyBytes: number, slot: number): number {
  return LUKS_ALIGNMENT + slot * alignUp(keyMaterialBytes(keyBytes), LUKS_ALIGNMENT);
}

function emptySlot(keyBytes: number, index: number): LuksKeySlot {
  return {
    active: false,
    iterations: 0,
    salt: new Uint8Array(LUKS_SALT_BYTES),
    offset: materialOffset(keyBytes, index),
    stripes: LUKS_STRIPES,
  };
}
