/** Ranges closer than this become one: each has a header of its own where it is kept. */
const NEAR = 32;
/** Zones that are written in turns change a table in as many places; a piece of a table holds the entries of few. */
const MAX_RANGES = 8;

/** Which bytes changed: a few ranges that cover them, in ascending order, and little besides. */
export class ChangedRanges {
  /** First byte of each range. */
  readonly #froms: number[] = [];
  /** End of each range. */
  readonly #tos: number[] = [];

  get count(): number {
    return this.#froms.length;
  }

  from(index: number): number {
    return this.#froms[index] as number;
  }

  to(index: number): number {
    return this.#tos[index] as number;
  }

  /** Bytes [from, to) changed. */
  add(from: number, to: number): void {
    const froms = this.#froms;
    const tos = this.#tos;
    let first = 0;
    while (first < tos.length && (tos[first] as number) + NEAR < from) first += 1;
    let end = first;
    while (end < froms.length && (froms[end] as number) - NEAR <= to) end += 1;
    if (end === first) {
      froms.splice(first, 0, from);
      tos.splice(first, 0, to);
      if (froms.length > MAX_RANGES) this.#joinNearest();
      return;
    }
    froms[first] = Math.min(from, froms[first] as number);
    tos[first] = Math.max(to, tos[end - 1] as number);
    froms.splice(first + 1, end - first - 1);
    tos.splice(first + 1, end - first - 1);
  }

  addAll(others: ChangedRanges): void {
    for (let i = 0; i < others.count; i++) this.add(others.from(i), others.to(i));
  }

  #joinNearest(): void {
    let at = 1;
    for (let i = 2; i < this.#froms.length; i++) if (this.#gapBefore(i) < this.#gapBefore(at)) at = i;
    this.#tos[at - 1] = this.to(at);
    this.#froms.splice(at, 1);
    this.#tos.splice(at, 1);
  }

  #gapBefore(index: number): number {
    return this.from(index) - this.to(index - 1);
  }
}
