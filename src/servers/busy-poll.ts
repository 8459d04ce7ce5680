import { availableParallelism } from "node:os";

/** Longer than most clients need to think between an answer and the next request, and too short to be felt as load. */
export const POLL_MILLISECONDS = 0.06;
/** So many polls in a row that nothing came of end the habit. */
const FRUITLESS_POLLS = 16;
/** Requests after which it is tried again. */
const REST_REQUESTS = 256;

/**
 * Keeps the event loop from sleeping for a moment after a request that came alone: waking up from the sleep costs more than
 * the whole request. Clients with many requests in flight keep the loop awake themselves. On a single processor the client
 * could not run meanwhile, so there it does nothing. For connections whose sockets cannot be read past the event loop.
 */
export class BusyPoll {
  readonly #useful: boolean;
  #lastRequest = 0;
  #polling = false;
  #fruitless = 0;
  #resting = 0;

  constructor(processors = availableParallelism()) {
    this.#useful = processors > 1;
  }

  /** Something came in. */
  noteRequest(): void {
    if (!this.#useful) return;
    if (this.#resting > 0) {
      this.#resting -= 1;
      return;
    }
    this.#lastRequest = performance.now();
    if (this.#polling) {
      this.#fruitless = 0;
      return;
    }
    this.#polling = true;
    setImmediate(this.#poll);
  }

  readonly #poll = (): void => {
    if (performance.now() - this.#lastRequest < POLL_MILLISECONDS) {
      setImmediate(this.#poll);
      return;
    }
    this.#polling = false;
    this.#fruitless += 1;
    if (this.#fruitless < FRUITLESS_POLLS) return;
    this.#fruitless = 0;
    this.#resting = REST_REQUESTS;
  };
}
