/** Lets a fixed number of steps run at a time; the others wait in the order of their calls. */
export class Permits {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  /** `count`: at least 1. */
  constructor(count: number) {
    this.#free = count;
  }

  /** Runs `step` when its turn comes. What the step needs memory for is best made inside it. */
  async run<T>(step: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await step();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}
