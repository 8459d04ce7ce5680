/** Counts calls that are under way, so that closing can wait for them. */
export class InFlight {
  #count = 0;
  #wake: (() => void) | undefined;

  /** Each call is matched by one of {@link end}. */
  begin(): void {
    this.#count++;
  }

  end(): void {
    this.#count--;
    if (this.#count === 0) this.#wake?.();
  }

  /** The same promise, counted until it settles. */
  async track(work: Promise<void>): Promise<void> {
    this.begin();
    try {
      await work;
    } finally {
      this.end();
    }
  }

  /** Resolves when nothing is under way. For one waiter. */
  async idle(): Promise<void> {
    if (this.#count === 0) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }
}
