import type { CommandContext } from "./context.js";

/** Hundredths of a percent. */
const WHOLE = 10_000;

/** The progress line of the stock tools, rewritten in place on standard output: `    (12.34/100%)`. Silent unless `shown`. */
export class ProgressLine {
  readonly #context: CommandContext;
  readonly #shown: boolean;
  /** The least change that is printed, in hundredths of a percent. */
  readonly #step: number;
  #last = -1;

  constructor(context: CommandContext, shown: boolean, stepPercent = 1) {
    this.#context = context;
    this.#shown = shown;
    this.#step = stepPercent * 100;
    this.#print(0);
  }

  /** `done` of `total` bytes. */
  report(done: number, total: number): void {
    const now = total === 0 ? WHOLE : Math.floor((done / total) * WHOLE);
    if (now >= this.#last + this.#step || (now === WHOLE && this.#last < WHOLE)) this.#print(now);
  }

  /** Leaves the line, as complete. */
  finish(): void {
    this.#print(WHOLE);
    this.end();
  }

  /** Leaves the line as it is. */
  end(): void {
    if (this.#shown) this.#context.output.out("\n");
  }

  #print(hundredths: number): void {
    this.#last = hundredths;
    if (!this.#shown) return;
    this.#context.output.out(`    (${(hundredths / 100).toFixed(2)}/100%)\r`);
  }
}
