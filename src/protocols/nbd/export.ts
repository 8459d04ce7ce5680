/** A disk as clients see it: a name, a range of a block device, and what may be done to it. */
import type { MaybePromise } from "../../base/maybe-promise.js";
import type { BlockDevice, WriteOptions } from "../../block/block-device.js";
import { EXPORT_FLAG } from "../../codec/nbd/wire.js";
import { REQUEST_BYTES } from "./limits.js";
import type { MetaContext } from "./meta-context.js";

/** What happens to writes of nothing but zeros. */
export type ZeroDetection = "off" | "zeroes" | "unmap";

export interface NbdExportOptions {
  /** At most 4096 bytes of UTF-8; "" is the export that clients get when they name none. */
  readonly name: string;
  readonly device: BlockDevice;
  readonly description?: string;
  /** Bytes of the device in front of the export. A multiple of the device's request alignment. Default 0. */
  readonly offset?: number;
  /** Default: as the device. */
  readonly readOnly?: boolean;
  /** Clients may use several connections at one time: what one has written, all see, and a flush is for all. Default true. */
  readonly multiConnection?: boolean;
  /** Discards give space back; otherwise they, and zeros, leave it taken. Default true. */
  readonly discard?: boolean;
  readonly zeroDetection?: ZeroDetection;
  /** Clients may make the disk larger, where it can grow while it is open. Default false. */
  readonly resizable?: boolean;
  /** Every write is durable before it is acknowledged. Default false. */
  readonly writeThrough?: boolean;
  /** Beside `base:allocation`. */
  readonly contexts?: readonly MetaContext[];
}

const DURABLE: WriteOptions = { fua: true };
/** Requests of a page avoid reading before writing on the host. */
const LEAST_PREFERRED_BYTES = 4096;

export class NbdExport {
  readonly name: string;
  readonly description: string | undefined;
  readonly device: BlockDevice;
  readonly offset: number;
  readonly readOnly: boolean;
  /** Clients may ask for another size. */
  readonly resizable: boolean;
  /** `EXPORT_FLAG` bits, for clients with and without structured replies. */
  readonly flags: number;
  readonly contexts: readonly MetaContext[];
  /** Bytes; see the constraints of block sizes in the protocol. */
  readonly blockSizes: { readonly minimum: number; readonly preferred: number; readonly maximum: number };
  readonly zeroDetection: ZeroDetection;
  readonly #discard: boolean;
  readonly #writeThrough: boolean;

  constructor(options: NbdExportOptions, contexts: readonly MetaContext[]) {
    const { device } = options;
    this.name = options.name;
    this.description = options.description;
    this.device = device;
    this.offset = options.offset ?? 0;
    this.readOnly = options.readOnly === true || device.readOnly;
    this.contexts = contexts;
    this.zeroDetection = options.zeroDetection ?? "off";
    this.#discard = options.discard ?? true;
    this.#writeThrough = options.writeThrough ?? false;
    this.resizable = options.resizable === true && !this.readOnly && device.grow !== undefined;
    this.flags = exportFlags(this.readOnly, options.multiConnection ?? true, device.limits.zoned !== undefined);
    if (this.resizable) this.flags |= EXPORT_FLAG.resize;
    const { requestAlignment, optimalAlignment } = device.limits;
    this.blockSizes = {
      minimum: requestAlignment,
      preferred: Math.min(Math.max(optimalAlignment, LEAST_PREFERRED_BYTES), REQUEST_BYTES),
      maximum: REQUEST_BYTES,
    };
  }

  /** Bytes. */
  get size(): number {
    return this.device.size - this.offset;
  }

  /** Makes the export `size` bytes long, for all its clients. See `BlockDevice.grow`. */
  async resize(size: number, durable: boolean): Promise<void> {
    await this.device.grow?.(this.offset + size);
    if (durable || this.#writeThrough) await this.device.flush();
  }

  read(offset: number, into: Uint8Array): MaybePromise<void> {
    return this.device.read(this.offset + offset, into);
  }

  write(offset: number, from: Uint8Array, durable: boolean): MaybePromise<void> {
    const fua = durable || this.#writeThrough;
    if (this.zeroDetection !== "off" && isZero(from)) {
      return this.device.writeZeroes(this.offset + offset, from.length, {
        fua,
        unmap: this.zeroDetection === "unmap" && this.#discard,
      });
    }
    return this.device.write(this.offset + offset, from, fua ? DURABLE : undefined);
  }

  writeZeroes(offset: number, length: number, durable: boolean, keepSpace: boolean): MaybePromise<void> {
    return this.device.writeZeroes(this.offset + offset, length, {
      fua: durable || this.#writeThrough,
      unmap: this.#discard && !keepSpace,
    });
  }

  /** A hint, which a device with zones cannot take, and an export may be told to ignore. */
  discard(offset: number, length: number): MaybePromise<void> {
    if (!this.#discard || this.device.limits.zoned !== undefined) return undefined;
    return this.device.discard(this.offset + offset, length);
  }
}

function exportFlags(readOnly: boolean, multiConnection: boolean, zoned: boolean): number {
  const { hasFlags, flush, fua, trim, writeZeroes, dontFragment, cache, fastZero } = EXPORT_FLAG;
  let flags = hasFlags | flush | fua | dontFragment | cache;
  flags |= readOnly ? EXPORT_FLAG.readOnly : trim | writeZeroes | fastZero;
  // The order of writes to a zone is the order on one connection.
  if (multiConnection && (readOnly || !zoned)) flags |= EXPORT_FLAG.multiConnection;
  return flags;
}

const ZEROES = new Uint8Array(64 * 1024);

/** True when nothing in `bytes` is set. */
export function isZero(bytes: Uint8Array): boolean {
  const { length } = bytes;
  // Data shows itself early, most of the time.
  if (length === 0 || bytes[0] !== 0 || bytes[length >>> 1] !== 0 || bytes[length - 1] !== 0) return length === 0;
  for (let at = 0; at < length; at += ZEROES.length) {
    const piece = Math.min(ZEROES.length, length - at);
    if (Buffer.compare(bytes.subarray(at, at + piece), ZEROES.subarray(0, piece)) !== 0) return false;
  }
  return true;
}
