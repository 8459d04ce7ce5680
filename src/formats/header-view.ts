import { viewOf } from "../base/bytes.js";
import { type ErrorValue, ZcowError } from "../base/errors.js";

const TWO_32 = 0x1_0000_0000;

/** Named fields of a fixed structure in a file; errors name the image, the structure, the field, the value and the limit. */
export class HeaderView {
  readonly view: DataView;
  readonly #bytes: Uint8Array;
  readonly #image: string;
  readonly #structure: string;
  readonly #littleEndian: boolean;

  constructor(image: string, structure: string, bytes: Uint8Array, littleEndian: boolean) {
    this.#image = image;
    this.#structure = structure;
    this.#bytes = bytes;
    this.view = viewOf(bytes);
    this.#littleEndian = littleEndian;
  }

  u16(at: number): number {
    return this.view.getUint16(at, this.#littleEndian);
  }

  u32(at: number): number {
    return this.view.getUint32(at, this.#littleEndian);
  }

  /** A 64-bit count of bytes or sectors; fails with `FORMAT_FIELD` above 2^53 - 1. */
  u64(at: number, field: string): number {
    const first = this.view.getUint32(at, this.#littleEndian);
    const second = this.view.getUint32(at + 4, this.#littleEndian);
    const value = this.#littleEndian ? second * TWO_32 + first : first * TWO_32 + second;
    if (!Number.isSafeInteger(value)) {
      const exact = this.view.getBigUint64(at, this.#littleEndian);
      throw this.invalid(field, exact, Number.MAX_SAFE_INTEGER, `${exact} is above 2^53 - 1`);
    }
    return value;
  }

  /** `length` bytes from `at` as Latin-1 text. */
  text(at: number, length: number): string {
    return String.fromCharCode(...this.#bytes.subarray(at, at + length));
  }

  /** 16 bytes as the hexadecimal digits of a GUID in the order of the file. */
  hex(at: number): string {
    return Array.from(this.#bytes.subarray(at, at + 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  isZero(at: number, length: number): boolean {
    return this.#bytes.subarray(at, at + length).every((byte) => byte === 0);
  }

  /** The error for a field whose value the format does not allow; `problem` follows the field's name. */
  invalid(field: string, value: ErrorValue, limit: ErrorValue, problem: string, stockText?: string): ZcowError {
    const data = { path: this.#image, structure: this.#structure, field, value, limit };
    const message = `${this.#image}: ${this.#structure}, ${field}: ${problem}`;
    return new ZcowError("FORMAT_FIELD", message, stockText === undefined ? { data } : { data, stockText });
  }

  /** The error for a valid image of a kind that is not read. */
  unsupported(field: string, value: ErrorValue, problem: string, stockText?: string): ZcowError {
    const data = { path: this.#image, structure: this.#structure, field, value };
    const message = `${this.#image}: ${this.#structure}, ${field}: ${problem}`;
    return new ZcowError("FORMAT_VARIANT", message, stockText === undefined ? { data } : { data, stockText });
  }
}
