import { ZcowError } from "../../../base/errors.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { decodeLuksHeader, type LuksHeader } from "../../../codec/luks/luks-header.js";
import { LUKS_HEADER_BYTES } from "../../../codec/luks/luks-limits.js";
import type { MaterialReader } from "../../../codec/luks/luks-volume.js";
import type { Storage } from "../../../storage/storage.js";
import type { CryptHeader } from "../header.js";

/**
 * The LUKS area of an image: the header and the key material in the clusters that the encryption header extension names. Reads
 * and writes stay inside it: `decodeLuksHeader` has checked every offset against its length.
 */
export class LuksArea {
  readonly header: LuksHeader;
  readonly #storage: Storage;
  readonly #at: number;

  private constructor(storage: Storage, at: number, header: LuksHeader) {
    this.#storage = storage;
    this.#at = at;
    this.header = header;
  }

  /** Reads and checks the header: `LUKS_HEADER`, `LUKS_LIMIT`, and `QCOW2_TRUNCATED` when the file ends before it does. */
  static async load(storage: Storage, { offset, length }: CryptHeader): Promise<LuksArea> {
    const bytes = new Uint8Array(Math.min(LUKS_HEADER_BYTES, length));
    if (offset + bytes.length > storage.size()) throw truncated(storage, offset);
    const wait = storage.read(offset, bytes);
    if (isPromise(wait)) await wait;
    return new LuksArea(storage, offset, decodeLuksHeader(bytes, length));
  }

  /** Reads key material. */
  readonly read: MaterialReader = (offset, into) => this.#storage.read(this.#at + offset, into);

  /** Writes header or key material, durable when it resolves. */
  async write(offset: number, from: Uint8Array): Promise<void> {
    await this.#storage.write(this.#at + offset, from);
    await this.#storage.flush();
  }
}

function truncated(storage: Storage, offset: number): ZcowError {
  const size = storage.size();
  return new ZcowError(
    "QCOW2_TRUNCATED",
    `${storage.name}: the LUKS header at file offset ${offset} reaches past the end of the file at ${size}`,
    { data: { structure: "LUKS header", path: storage.name, offset, length: LUKS_HEADER_BYTES, limit: size } },
  );
}
