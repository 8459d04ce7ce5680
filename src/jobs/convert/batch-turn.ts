/**
 * One of several batches that are copied side by side. What decides where data goes in the target happens at the same points whoever is
 * quick or slow, so that the same copy gives the same file: places are found in the order of the batches, and what a batch gives back, or
 * has copied otherwise, comes when it ends, which is always the same number of batches later.
 */
export class BatchTurn {
  /** Resolves when the places of the batch are decided on. */
  readonly placed: Promise<void>;
  /** Resolves when the batch may change what places others find. */
  readonly ending: Promise<void>;
  readonly #work: Promise<void>;
  #place: () => void = () => undefined;
  #letEnd: () => void = () => undefined;

  /** Starts `work`, which is done when the batch is copied and never fails. */
  constructor(work: (turn: BatchTurn) => Promise<void>) {
    const placed = new Promise<void>((resolve) => {
      this.#place = resolve;
    });
    this.ending = new Promise((resolve) => {
      this.#letEnd = resolve;
    });
    this.#work = work(this);
    this.placed = Promise.race([placed, this.#work]);
  }

  place(): void {
    this.#place();
  }

  /** Lets the batch end, and resolves when it has. */
  end(): Promise<void> {
    this.#letEnd();
    return this.#work;
  }
}
