/** Lets a fixed number of steps run at a time; the others wait in the order of their calls. */
export class Permits {
  #free: number | undefined;
  readonly #count: () => number;
  readonly #waiting: (() => void)[] = [];

  /** `count` gives at least 1, and is asked at the first step. */
  constructor(count: () => number) {
    this.#count = count;
  }

  /** Runs `step` when its turn comes. What the step needs memory for is best made inside it. */
  async run<T>(step: () => Promise<T>): Promise<T> {
    this.#free ??= this.#count();
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
