/** Runs asynchronous steps one after the other, in the order of the calls. A failed step does not stop the next. */
export class Mutex {
  #last: Promise<unknown> | undefined;

  /** A step is running or waiting. */
  get isBusy(): boolean {
    return this.#last !== undefined;
  }

  run<T>(step: () => Promise<T>): Promise<T> {
    const turn = this.#last === undefined ? step() : this.#last.then(step, step);
    this.#last = turn;
    const done = (): void => {
      if (this.#last === turn) this.#last = undefined;
    };
    turn.then(done, done);
    return turn;
  }
}
