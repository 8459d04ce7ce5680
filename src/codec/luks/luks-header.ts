import { viewOf } from "../../base/bytes.js";
import { ZcowError } from "../../base/errors.js";
import {
  LUKS_DIGEST_BYTES,
  LUKS_HEADER_BYTES,
  LUKS_KEY_SLOTS,
  LUKS_SALT_BYTES,
  LUKS_SECTOR_BYTES,
  LUKS_STRIPES,
  MAX_LUKS_ITERATIONS,
  MAX_LUKS_KEY_BYTES,
  MAX_LUKS_TOTAL_ITERATIONS,
} from "./luks-limits.js";

/** One of the eight places that may hold the volume key, encrypted under a passphrase. */
export interface LuksKeySlot {
  readonly active: boolean;
  readonly iterations: number;
  readonly salt: Uint8Array;
  /** Where the key material lies, in bytes from the start of the header. */
  readonly offset: number;
  readonly stripes: number;
}

/** A LUKS header of version 1 (LUKS On-Disk Format 1.2.3, section 2), checked. Offsets in bytes from the start of the header. */
export interface LuksHeader {
  /** "aes". */
  readonly cipherName: string;
  /** "xts-plain64", "cbc-essiv:sha256". */
  readonly cipherMode: string;
  /** "sha256". */
  readonly hash: string;
  readonly payloadOffset: number;
  /** Bytes of the volume key. */
  readonly keyBytes: number;
  readonly digest: Uint8Array;
  readonly digestSalt: Uint8Array;
  readonly digestIterations: number;
  readonly uuid: string;
  readonly slots: readonly LuksKeySlot[];
}

const MAGIC = Uint8Array.of(0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe);
const VERSION = 1;
const NAME_BYTES = 32;
const UUID_BYTES = 40;
const ACTIVE = 0x00ac71f3;
const INACTIVE = 0x0000dead;
const SLOT_BYTES = 48;

const FIELD = {
  version: 6,
  cipherName: 8,
  cipherMode: 40,
  hash: 72,
  payloadOffset: 104,
  keyBytes: 108,
  digest: 112,
  digestSalt: 132,
  digestIterations: 164,
  uuid: 168,
  slots: 208,
} as const;

/** Bytes of the key material of a volume key of `keyBytes` bytes: whole sectors. */
export function keyMaterialBytes(keyBytes: number): number {
  return Math.ceil((keyBytes * LUKS_STRIPES) / LUKS_SECTOR_BYTES) * LUKS_SECTOR_BYTES;
}

/**
 * Decodes and checks the first 592 bytes of a LUKS area of `areaBytes` bytes: everything that key slots say lies inside the
 * area, behind the header, and apart from each other. Throws `LUKS_HEADER`, and `LUKS_LIMIT` for work no sound header asks for.
 */
export function decodeLuksHeader(bytes: Uint8Array, areaBytes: number): LuksHeader {
  if (bytes.length < LUKS_HEADER_BYTES) {
    throw fault(
      "length",
      bytes.length,
      LUKS_HEADER_BYTES,
      `the header has ${bytes.length} bytes of ${LUKS_HEADER_BYTES}`,
    );
  }
  if (MAGIC.some((byte, at) => bytes[at] !== byte)) {
    throw fault("magic", bytes[0] ?? 0, "LUKS", "the mark of LUKS is missing", "Volume is not in LUKS format");
  }
  const view = viewOf(bytes);
  const version = view.getUint16(FIELD.version);
  if (version !== VERSION) {
    const stockText = `LUKS version ${version} is not supported`;
    throw fault("version", version, VERSION, `version ${version} is not ${VERSION}, the one that qcow2 has`, stockText);
  }
  const keyBytes = view.getUint32(FIELD.keyBytes);
  if (keyBytes === 0 || keyBytes > MAX_LUKS_KEY_BYTES) {
    throw fault(
      "key-bytes",
      keyBytes,
      MAX_LUKS_KEY_BYTES,
      `the volume key has ${keyBytes} bytes, not 1 to ${MAX_LUKS_KEY_BYTES}`,
    );
  }
  const payloadOffset = view.getUint32(FIELD.payloadOffset) * LUKS_SECTOR_BYTES;
  const header = {
    cipherName: textAt(bytes, FIELD.cipherName, NAME_BYTES, "cipher-name", "cipher name"),
    cipherMode: textAt(bytes, FIELD.cipherMode, NAME_BYTES, "cipher-mode", "cipher mode"),
    hash: textAt(bytes, FIELD.hash, NAME_BYTES, "hash-spec", "hash spec"),
    payloadOffset,
    keyBytes,
    digest: bytes.slice(FIELD.digest, FIELD.digest + LUKS_DIGEST_BYTES),
    digestSalt: bytes.slice(FIELD.digestSalt, FIELD.digestSalt + LUKS_SALT_BYTES),
    digestIterations: checkIterations(view.getUint32(FIELD.digestIterations), "mk-digest-iter", true),
    uuid: uuidAt(bytes),
    slots: Array.from({ length: LUKS_KEY_SLOTS }, (_, index) => decodeSlot(bytes, index)),
  };
  checkPlaces(header, areaBytes);
  checkTotal(header);
  return header;
}

function decodeSlot(bytes: Uint8Array, index: number): LuksKeySlot {
  const at = FIELD.slots + index * SLOT_BYTES;
  const view = viewOf(bytes);
  const state = view.getUint32(at);
  if (state !== ACTIVE && state !== INACTIVE) {
    const message = `key slot ${index} is neither active nor inactive: 0x${state.toString(16)}`;
    throw fault(`key slot ${index}`, state, ACTIVE, message, `Keyslot ${index} state (active/disable) is corrupted`);
  }
  const active = state === ACTIVE;
  const stripes = view.getUint32(at + 44);
  if (stripes !== LUKS_STRIPES) {
    const stockText = `Keyslot ${index} is corrupted (stripes count ${stripes} != ${LUKS_STRIPES})`;
    throw fault(
      `key slot ${index}`,
      stripes,
      LUKS_STRIPES,
      `key slot ${index} has ${stripes} stripes, not ${LUKS_STRIPES}`,
      stockText,
    );
  }
  return {
    active,
    iterations: checkIterations(view.getUint32(at + 4), `key slot ${index}`, active),
    salt: bytes.slice(at + 8, at + 8 + LUKS_SALT_BYTES),
    offset: view.getUint32(at + 40) * LUKS_SECTOR_BYTES,
    stripes,
  };
}

/** A count that is used must be one, and not a way to keep this machine busy for hours. */
function checkIterations(count: number, field: string, used: boolean): number {
  if (!used) return count;
  if (count === 0) {
    throw fault(field, 0, 1, `${field} asks for no iterations at all`);
  }
  if (count > MAX_LUKS_ITERATIONS) throw tooMany(field, count, MAX_LUKS_ITERATIONS);
  return count;
}

/** A passphrase that opens no slot is tried on each, and what each gives is held against the digest. */
function checkTotal({ slots, digestIterations }: LuksHeader): void {
  const total = slots.reduce((sum, { active, iterations }) => sum + (active ? iterations + digestIterations : 0), 0);
  if (total > MAX_LUKS_TOTAL_ITERATIONS) throw tooMany("key slots", total, MAX_LUKS_TOTAL_ITERATIONS);
}

function tooMany(field: string, value: number, limit: number): ZcowError {
  return new ZcowError("LUKS_LIMIT", `LUKS header: ${field}: ${value} iterations asked for, above the limit ${limit}`, {
    data: { structure: "LUKS header", field, value, limit },
  });
}

function checkPlaces({ slots, keyBytes, payloadOffset }: LuksHeader, areaBytes: number): void {
  const length = keyMaterialBytes(keyBytes);
  if (payloadOffset < Math.ceil(LUKS_HEADER_BYTES / LUKS_SECTOR_BYTES) * LUKS_SECTOR_BYTES) {
    const stockText = "LUKS payload is overlapping with the header";
    throw fault(
      "payload-offset",
      payloadOffset,
      LUKS_HEADER_BYTES,
      `the payload at byte ${payloadOffset} overlaps the header`,
      stockText,
    );
  }
  slots.forEach((slot, index) => {
    const field = `key slot ${index}`;
    if (slot.offset < LUKS_HEADER_BYTES) {
      const stockText = `Keyslot ${index} is overlapping with the LUKS header`;
      throw fault(
        field,
        slot.offset,
        LUKS_HEADER_BYTES,
        `${field} at byte ${slot.offset} overlaps the header`,
        stockText,
      );
    }
    const end = slot.offset + length;
    if (end > payloadOffset) {
      const stockText = `Keyslot ${index} is overlapping with the encrypted payload`;
      throw fault(
        field,
        end,
        payloadOffset,
        `${field} ends at byte ${end}, behind the start of the payload at ${payloadOffset}`,
        stockText,
      );
    }
    if (end > areaBytes) {
      const stockText = "Request for data outside of extension header";
      throw fault(
        field,
        end,
        areaBytes,
        `${field} ends at byte ${end} of an encryption header of ${areaBytes}`,
        stockText,
      );
    }
    const other = slots.findIndex((candidate, at) => at > index && Math.abs(candidate.offset - slot.offset) < length);
    if (other !== -1) {
      const stockText = `Keyslots ${index} and ${other} are overlapping in the header`;
      throw fault(field, slot.offset, length, `${field} and key slot ${other} share bytes`, stockText);
    }
  });
}

function textAt(bytes: Uint8Array, at: number, length: number, field: string, stockName: string): string {
  const end = bytes.subarray(at, at + length).indexOf(0);
  if (end === -1) {
    const stockText = `LUKS header ${stockName} is not NUL terminated`;
    throw fault(field, length, length - 1, `${field} is not ended by a zero byte within ${length} bytes`, stockText);
  }
  return new TextDecoder("latin1").decode(bytes.subarray(at, at + end));
}

function uuidAt(bytes: Uint8Array): string {
  const field = bytes.subarray(FIELD.uuid, FIELD.uuid + UUID_BYTES);
  const end = field.indexOf(0);
  return new TextDecoder("latin1").decode(end === -1 ? field : field.subarray(0, end));
}

/** The 592 bytes of `header`. */
export function encodeLuksHeader(header: LuksHeader): Uint8Array {
  const bytes = new Uint8Array(LUKS_HEADER_BYTES);
  const view = viewOf(bytes);
  const putText = (at: number, text: string): void => bytes.set(new TextEncoder().encode(text), at);
  bytes.set(MAGIC);
  view.setUint16(FIELD.version, VERSION);
  putText(FIELD.cipherName, header.cipherName);
  putText(FIELD.cipherMode, header.cipherMode);
  putText(FIELD.hash, header.hash);
  view.setUint32(FIELD.payloadOffset, header.payloadOffset / LUKS_SECTOR_BYTES);
  view.setUint32(FIELD.keyBytes, header.keyBytes);
  bytes.set(header.digest, FIELD.digest);
  bytes.set(header.digestSalt, FIELD.digestSalt);
  view.setUint32(FIELD.digestIterations, header.digestIterations);
  putText(FIELD.uuid, header.uuid);
  header.slots.forEach((slot, index) => {
    const at = FIELD.slots + index * SLOT_BYTES;
    view.setUint32(at, slot.active ? ACTIVE : INACTIVE);
    view.setUint32(at + 4, slot.iterations);
    bytes.set(slot.salt, at + 8);
    view.setUint32(at + 40, slot.offset / LUKS_SECTOR_BYTES);
    view.setUint32(at + 44, slot.stripes);
  });
  return bytes;
}

function fault(field: string, value: number, limit: number | string, message: string, stockText?: string): ZcowError {
  return new ZcowError("LUKS_HEADER", `LUKS header: ${message}`, {
    data: { structure: "LUKS header", field, value, limit },
    ...(stockText === undefined ? {} : { stockText }),
  });
}
