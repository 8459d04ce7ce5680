/** Fields of the data of options, taken one after the other. Each reader refuses what does not lie inside the data. */
import { viewOf } from "../../base/bytes.js";
import { STRING_BYTES } from "../../codec/nbd/wire.js";

/** The data of an option breaks the rules; the message is for the client. */
export class OptionError extends Error {}

const decoder = new TextDecoder("utf-8", { fatal: true });

export class OptionReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = viewOf(bytes);
  }

  /** Bytes that are left. */
  get left(): number {
    return this.#bytes.length - this.#at;
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2));
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4));
  }

  /** A string behind its length. */
  string(): string {
    const length = this.u32();
    if (length > STRING_BYTES) throw new OptionError(`a string of ${length} bytes is longer than ${STRING_BYTES}`);
    return text(this.#bytes.subarray(this.#take(length), this.#at));
  }

  /** Everything that is left, as a string. */
  rest(): string {
    if (this.left > STRING_BYTES) throw new OptionError(`a name of ${this.left} bytes is longer than ${STRING_BYTES}`);
    return text(this.#bytes.subarray(this.#take(this.left)));
  }

  end(): void {
    if (this.left > 0) throw new OptionError(`${this.left} bytes follow the last field of the option`);
  }

  #take(length: number): number {
    if (length > this.left) throw new OptionError("the option ends inside a field");
    const at = this.#at;
    this.#at += length;
    return at;
  }
}

function text(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new OptionError("a string is not UTF-8");
  }
}
