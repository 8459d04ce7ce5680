/** So many times in a row that nothing came end the habit of waiting. */
const FRUITLESS_WAITS = 16;
/** Deliveries after which it is tried again. */
const REST_DELIVERIES = 256;
/** So many deliveries in a row for one connection show that it is the only one at work. */
const SOLO_DELIVERIES = 16;

/** Who sends requests, and whether it pays to wait for them; shared by all connections of a server. */
export class RequestRhythm {
  #latest: object | undefined;
  #inARow = 0;
  #fruitless = 0;
  #resting = 0;

  /** The event loop has delivered something to `reader`. */
  note(reader: object): void {
    if (this.#resting > 0) this.#resting -= 1;
    if (this.#latest === reader) {
      this.#inARow += 1;
      return;
    }
    this.#latest = reader;
    this.#inARow = 0;
  }

  /** Nobody else had anything to do for a while, and waiting is worth while. */
  isSolo(reader: object): boolean {
    return this.#latest === reader && this.#inARow >= SOLO_DELIVERIES && this.#resting === 0;
  }

  /** Something came, without the event loop. */
  fruitful(): void {
    this.#fruitless = 0;
  }

  /** It was waited for something in vain. */
  fruitless(): void {
    this.#fruitless += 1;
    if (this.#fruitless < FRUITLESS_WAITS) return;
    this.#fruitless = 0;
    this.#resting = REST_DELIVERIES;
  }
}
