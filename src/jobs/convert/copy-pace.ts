import { setTimeout as delay } from "node:timers/promises";

/** Keeps a copy to so many bytes per second, counted from its start. */
export class CopyPace {
  readonly #rate: number;
  readonly #started = performance.now();
  #spent = 0;

  /** `rate`: bytes per second; 0 or undefined: no limit. */
  constructor(rate: number | undefined) {
    this.#rate = rate ?? 0;
  }

  /** Counts `bytes`; a promise that resolves when more may follow, undefined when that is now. */
  spend(bytes: number): Promise<void> | undefined {
    if (this.#rate <= 0) return undefined;
    this.#spent += bytes;
    const early = (this.#spent / this.#rate) * 1000 - (performance.now() - this.#started);
    return early <= 0 ? undefined : delay(early);
  }
}
