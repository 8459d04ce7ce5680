import { MiB } from "../../base/units.js";
import { COMMAND } from "../../codec/nbd/wire.js";
import type { Request } from "./client-session.js";

/** Bytes of writes that are remembered until a flush. */
const REMEMBERED_BYTES = 32 * MiB;
/** Bytes that an entry without data counts for. */
const ENTRY_BYTES = 64;

/**
 * The changes that a server has acknowledged and may still lose, since no flush has come behind them. When the server was
 * gone, they are made again. Too many are forgotten: then nobody can tell what is there, and the next flush must fail.
 */
export class UnflushedWrites {
  #changes: Request[] = [];
  #bytes = 0;
  /** Some of the changes since the last flush are not remembered. */
  #incomplete = false;
  /** Changes so far, by which a flush knows which it covers. */
  #count = 0;
  #first = 0;

  /** A change was acknowledged. Copies its data. */
  add(request: Request): void {
    this.#count += 1;
    if (this.#incomplete) return;
    this.#bytes += (request.from?.length ?? 0) + ENTRY_BYTES;
    if (this.#bytes > REMEMBERED_BYTES) {
      this.#forget();
      this.#incomplete = true;
      return;
    }
    this.#changes.push(request.from === undefined ? request : { ...request, from: new Uint8Array(request.from) });
  }

  /** A flush begins; give the result to {@link flushed} when it has succeeded. */
  mark(): number {
    return this.#count;
  }

  flushed(mark: number): void {
    const covered = mark - this.#first;
    if (covered <= 0) return;
    if (this.#incomplete) {
      // Only a flush that covers everything makes up for what was forgotten.
      if (mark === this.#count) this.#incomplete = false;
      this.#first = this.#count;
      return;
    }
    for (const { from } of this.#changes.splice(0, covered)) this.#bytes -= (from?.length ?? 0) + ENTRY_BYTES;
    this.#first = mark;
  }

  /** What is to be made again, in this order; undefined when not all of it is remembered. */
  changes(): readonly Request[] | undefined {
    return this.#incomplete ? undefined : this.#changes;
  }

  /** The loss was told. */
  reset(): void {
    this.#forget();
    this.#incomplete = false;
    this.#first = this.#count;
  }

  #forget(): void {
    this.#changes = [];
    this.#bytes = 0;
    this.#first = this.#count;
  }
}

/** True for requests that change what the export holds. */
export function isChange({ type }: Request): boolean {
  return type === COMMAND.write || type === COMMAND.writeZeroes || type === COMMAND.trim;
}
