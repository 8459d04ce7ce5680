import { type ZoneIndex, zoneIndex } from "../base/units.js";

const NONE = -1;

/**
 * The implicitly open zones in the order of their last write: a doubly linked list threaded
 * through two arrays, so that a write moves its zone to the end in constant time and without garbage.
 */
export class OpenOrder {
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  #oldest = NONE;
  #newest = NONE;
  #length = 0;

  constructor(zoneCount: number) {
    this.#next = new Int32Array(zoneCount).fill(NONE);
    this.#previous = new Int32Array(zoneCount).fill(NONE);
  }

  get length(): number {
    return this.#length;
  }

  /** The zone written least recently. */
  get oldest(): ZoneIndex | undefined {
    return this.#oldest === NONE ? undefined : zoneIndex(this.#oldest);
  }

  /** Adds a zone that is not in the list, as the newest. */
  add(zone: ZoneIndex): void {
    this.#next[zone] = NONE;
    this.#previous[zone] = this.#newest;
    if (this.#newest === NONE) this.#oldest = zone;
    else this.#next[this.#newest] = zone;
    this.#newest = zone;
    this.#length += 1;
  }

  /** Takes out a zone that is in the list. */
  remove(zone: ZoneIndex): void {
    const next = this.#next[zone] ?? NONE;
    const previous = this.#previous[zone] ?? NONE;
    if (previous === NONE) this.#oldest = next;
    else this.#next[previous] = next;
    if (next === NONE) this.#newest = previous;
    else this.#previous[next] = previous;
    this.#length -= 1;
  }

  /** Makes a zone of the list the newest. */
  touch(zone: ZoneIndex): void {
    if (this.#newest === zone) return;
    this.remove(zone);
    this.add(zone);
  }
}
