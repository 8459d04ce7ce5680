/** Share of a walk that counts references; the rest compares the stored counts. */
const COUNTING_SHARE = 0.9;
/** Least change that is told: a table of a million entries is not worth a million calls. */
const LEAST_STEP = 0.001;

/**
 * How far a check is, from 0 to 1 and never backwards. How many walks a repair takes is not known before, so each gets half of what is
 * left; the last one of a check without repair gets all of it.
 */
export class CheckProgress {
  readonly #tell: (done: number) => void;
  #told = 0;
  #from = 0;
  #to = 0;
  #entries = 0;
  #passed = 0;

  constructor(tell: (done: number) => void) {
    this.#tell = tell;
    tell(0);
  }

  /** A walk begins. `isLast`: no other can follow. */
  startWalk(isLast: boolean): void {
    this.#from = this.#to;
    this.#to = isLast ? 1 : (1 + this.#from) / 2;
    this.#passed = 0;
  }

  /** So many entries of L1 tables are to be followed in this walk, those of snapshots included. */
  expectEntries(entries: number): void {
    this.#entries = entries;
  }

  /** The next of them is followed. */
  passEntry(): void {
    this.#passed++;
    this.#reach(COUNTING_SHARE * share(this.#passed, this.#entries));
  }

  /** The counts of the first `done` of `total` clusters have been compared. */
  compare(done: number, total: number): void {
    this.#reach(COUNTING_SHARE + (1 - COUNTING_SHARE) * share(done, total));
  }

  /** The check has come to its end. */
  finish(): void {
    if (this.#told < 1) this.#tell(1);
    this.#told = 1;
  }

  #reach(part: number): void {
    const done = this.#from + (this.#to - this.#from) * part;
    if (done < this.#told + LEAST_STEP || done >= 1) return;
    this.#told = done;
    this.#tell(done);
  }
}

function share(done: number, total: number): number {
  return total === 0 ? 1 : Math.min(1, done / total);
}
