import { randomFillSync } from "node:crypto";
import type { ErrorCode } from "../../../base/error-codes.js";
import { ZcowError } from "../../../base/errors.js";
import { type PassphraseSource, withPassphrase } from "../../../block/passphrase.js";
import {
  encodeLuksHeader,
  keyMaterialBytes,
  type LuksHeader,
  type LuksKeySlot,
} from "../../../codec/luks/luks-header.js";
import { LUKS_KEY_SLOTS, LUKS_SALT_BYTES } from "../../../codec/luks/luks-limits.js";
import { fillSlot, unlockSlot } from "../../../codec/luks/luks-volume.js";
import type { Storage } from "../../../storage/storage.js";
import { AUTOCLEAR, autoclearBitsToClear } from "../features.js";
import type { Qcow2Header } from "../header.js";
import { encodeHeader } from "../header-encode.js";
import { LuksArea } from "./luks-area.js";
import { unlockArea } from "./open-encryption.js";

/** A change of the key slots of a LUKS image. Only the options of the chosen state may be given. */
export interface KeySlotChange {
  /** `active`: a passphrase is added; `inactive`: key slots are erased. */
  readonly state: "active" | "inactive";
  /** The slot, 0 to 7. Default: the first free one; when erasing, those that `oldPassphrase` opens. */
  readonly keyslot?: number | undefined;
  /** The passphrase to add. */
  readonly newPassphrase?: PassphraseSource | undefined;
  /** Erases the slots that it opens. */
  readonly oldPassphrase?: PassphraseSource | undefined;
  /** Milliseconds that trying the new passphrase takes; default 2000. */
  readonly iterTime?: number | undefined;
  /** Allows what may lose the data: replacing a slot in use, erasing the last one. */
  readonly force?: boolean | undefined;
}

const DEFAULT_ITER_TIME = 2000;

/**
 * Changes the key slots of the image on `storage`, durable when it resolves. `passphrase` opens the image.
 *
 * A crash leaves the slot as it was or as it is to be: a new key's material is durable before the header says that it is
 * there, and the header forgets a slot before its material is overwritten.
 *
 * Fails with `NOT_SUPPORTED` on images without LUKS, `INVALID_ARGUMENT`, `PASSPHRASE_REQUIRED`, `PASSPHRASE_WRONG`, the `KEYSLOT*` codes
 * and the `LUKS_*` codes of a bad header.
 */
export async function changeKeySlots(
  storage: Storage,
  header: Qcow2Header,
  passphrase: PassphraseSource | undefined,
  change: KeySlotChange,
): Promise<void> {
  if (header.cryptHeader === undefined) throw noLuks(storage, header.cryptMethod);
  const area = await LuksArea.load(storage, header.cryptHeader);
  const { key } = await unlockArea(storage, area, passphrase);
  try {
    checkCombination(change);
    // Guest data does not change, so what is known to go with it still does.
    const known = AUTOCLEAR.bitmaps | AUTOCLEAR.rawExternalData;
    const stale = autoclearBitsToClear(header.features) & ~known;
    if (stale !== 0n) await clearAutoclear(storage, header, stale);
    if (change.state === "active") await addKey(storage, area, key, change);
    else await eraseKeys(storage, area, change);
  } finally {
    key.fill(0);
  }
}

function checkCombination({ state, keyslot, newPassphrase, oldPassphrase, iterTime }: KeySlotChange): void {
  if (state === "active") {
    if (newPassphrase === undefined)
      throw invalid("encrypt.new-secret", "'new-secret' is required to activate a keyslot");
    if (oldPassphrase !== undefined) {
      throw invalid("encrypt.old-secret", "'old-secret' must not be given when activating keyslots");
    }
  } else {
    if (newPassphrase !== undefined) {
      throw invalid("encrypt.new-secret", "'new-secret' must not be given when erasing keyslots");
    }
    if (iterTime !== undefined)
      throw invalid("encrypt.iter-time", "'iter-time' must not be given when erasing keyslots");
    if (keyslot === undefined && oldPassphrase === undefined) {
      const text =
        "To erase keyslot(s), either explicit keyslot index or the password currently contained in them must be given";
      throw invalid("encrypt.keyslot", text);
    }
  }
  if (keyslot === undefined || (Number.isInteger(keyslot) && keyslot >= 0 && keyslot < LUKS_KEY_SLOTS)) return;
  throw invalid("encrypt.keyslot", `Invalid keyslot ${keyslot} specified, must be between 0 and ${LUKS_KEY_SLOTS - 1}`);
}

async function addKey(storage: Storage, area: LuksArea, key: Uint8Array, change: KeySlotChange): Promise<void> {
  const { header } = area;
  const index = change.keyslot ?? header.slots.findIndex((slot) => !slot.active);
  if (index === -1) {
    throw refused("KEYSLOTS_FULL", index, "Can't add a keyslot - all keyslots are in use");
  }
  const old = slotAt(header, index);
  if (old.active && change.force !== true) {
    throw refused("KEYSLOT_ACTIVE", index, `Refusing to overwrite active keyslot ${index} - please erase it first`);
  }
  const request = { image: storage.name, encryption: "luks" } as const;
  const { slot, material } = await withPassphrase(change.newPassphrase, request, (bytes) =>
    fillSlot(header, old, key, bytes, change.iterTime ?? DEFAULT_ITER_TIME),
  );
  await area.write(slot.offset, material);
  await area.write(0, encodeLuksHeader(withSlots(header, new Map([[index, slot]]))));
}

async function eraseKeys(storage: Storage, area: LuksArea, change: KeySlotChange): Promise<void> {
  const { header } = area;
  const slots = await slotsToErase(storage, area, change);
  const erased = new Map(slots.map((index) => [index, emptied(slotAt(header, index))]));
  await area.write(0, encodeLuksHeader(withSlots(header, erased)));
  const noise = new Uint8Array(keyMaterialBytes(header.keyBytes));
  for (const { offset } of erased.values()) await area.write(offset, randomFillSync(noise));
}

async function slotsToErase(storage: Storage, area: LuksArea, change: KeySlotChange): Promise<number[]> {
  const { slots } = area.header;
  const { keyslot, force = false } = change;
  const active = slots.filter((slot) => slot.active).length;
  if (keyslot === undefined) {
    const matching = await matchingSlots(
      storage,
      area,
      change,
      slots.map((_, index) => index),
    );
    if (matching.length === 0) {
      throw refused("KEYSLOT_INACTIVE", undefined, "No keyslots match given (old) password for erase operation");
    }
    if (matching.length === active && !force) {
      const text =
        "All the active keyslots match the (old) password that was given and erasing them will erase all the data in the image irreversibly - refusing operation";
      throw refused("KEYSLOT_LAST", undefined, text);
    }
    return matching;
  }
  if (change.oldPassphrase !== undefined && (await matchingSlots(storage, area, change, [keyslot])).length === 0) {
    const text = `Given keyslot ${keyslot} doesn't contain the given old password for erase operation`;
    throw refused("KEYSLOT_INACTIVE", keyslot, text);
  }
  const isActive = slotAt(area.header, keyslot).active;
  if (!isActive && !force) {
    throw refused("KEYSLOT_INACTIVE", keyslot, `Given keyslot ${keyslot} is already erased (inactive) `);
  }
  if (isActive && active === 1 && !force) {
    const text = `Attempt to erase the only active keyslot ${keyslot} which will erase all the data in the image irreversibly - refusing operation`;
    throw refused("KEYSLOT_LAST", keyslot, text);
  }
  return [keyslot];
}

/** Those of `candidates` that the old passphrase opens. */
async function matchingSlots(
  storage: Storage,
  area: LuksArea,
  { oldPassphrase }: KeySlotChange,
  candidates: readonly number[],
): Promise<number[]> {
  const request = { image: storage.name, encryption: "luks" } as const;
  return withPassphrase(oldPassphrase, request, async (bytes) => {
    const matching: number[] = [];
    for (const index of candidates) {
      const key = await unlockSlot(area.header, index, bytes, area.read);
      if (key === undefined) continue;
      key.fill(0);
      matching.push(index);
    }
    return matching;
  });
}

function slotAt({ slots }: LuksHeader, index: number): LuksKeySlot {
  const slot = slots[index];
  if (slot === undefined) throw new Error(`a LUKS header has no key slot ${index}`);
  return slot;
}

function withSlots(header: LuksHeader, changed: ReadonlyMap<number, LuksKeySlot>): LuksHeader {
  return { ...header, slots: header.slots.map((slot, index) => changed.get(index) ?? slot) };
}

function emptied(slot: LuksKeySlot): LuksKeySlot {
  return { ...slot, active: false, iterations: 0, salt: new Uint8Array(LUKS_SALT_BYTES) };
}

async function clearAutoclear(storage: Storage, header: Qcow2Header, stale: bigint): Promise<void> {
  const features = { ...header.features, autoclear: header.features.autoclear & ~stale };
  await storage.write(0, encodeHeader({ ...header, features }));
  await storage.flush();
}

function noLuks(storage: Storage, method: number): ZcowError {
  const stockText =
    method === 0
      ? "Can't amend encryption options - encryption not present"
      : "Only LUKS encryption options can be amended";
  const what = method === 0 ? "is not encrypted" : "is encrypted with the old method, which has no key slots";
  return new ZcowError("NOT_SUPPORTED", `${storage.name} ${what}`, { data: { path: storage.name }, stockText });
}

function invalid(option: string, text: string): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", text, { data: { option }, stockText: text });
}

function refused(code: ErrorCode, keyslot: number | undefined, text: string): ZcowError {
  return new ZcowError(code, text.trimEnd(), {
    data: { structure: "LUKS header", ...(keyslot === undefined ? {} : { value: keyslot }) },
    stockText: text,
  });
}
