import type { CommandContext } from "./context.js";

/** Hundredths of a percent. */
const WHOLE = 10_000;

/**
 * The progress line of the stock tools, rewritten in place on standard output: `    (12.34/100%)`. Silent unless `shown`: then the signal
 * SIGUSR1 prints how far it is on standard error, until the line is left.
 */
export class ProgressLine {
  readonly #context: CommandContext;
  readonly #shown: boolean;
  /** The least change that is printed, in hundredths of a percent. */
  readonly #step: number;
  readonly #onSignal = (): void => this.#context.output.err(`${percentText(this.#now)}\n`);
  #now = 0;
  #last = -1;

  constructor(context: CommandContext, shown: boolean, stepPercent = 1) {
    this.#context = context;
    this.#shown = shown;
    this.#step = stepPercent * 100;
    if (!shown) process.on("SIGUSR1", this.#onSignal);
  }

  /** Shows that nothing is done yet, before there is anything to report. */
  start(): void {
    this.#print(0);
  }

  /** Waits for `work`, and leaves the line when it fails. */
  async during<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      this.end();
      throw error;
    }
  }

  /** `done` of `total` bytes. */
  report(done: number, total: number): void {
    const now = total === 0 ? WHOLE : Math.floor((done / total) * WHOLE);
    this.#now = now;
    if (now >= this.#last + this.#step || (now === WHOLE && this.#last < WHOLE)) this.#print(now);
  }

  /** Leaves the line, as complete. */
  finish(): void {
    this.#print(WHOLE);
    this.end();
  }

  /** Leaves the line as it is. */
  end(): void {
    process.off("SIGUSR1", this.#onSignal);
    if (this.#shown) this.#context.output.out("\n");
  }

  #print(hundredths: number): void {
    this.#last = hundredths;
    if (!this.#shown) return;
    this.#context.output.out(`${percentText(hundredths)}\r`);
  }
}

function percentText(hundredths: number): string {
  return `    (${(hundredths / 100).toFixed(2)}/100%)`;
}
