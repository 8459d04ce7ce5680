/** Smallest number of slots; grows by doubling, so a lookup stays a probe or two. */
const MIN_SLOTS = 64;
const EMPTY = -1;

/**
 * Host cluster -> small number, 1..255. An open-addressing table in two typed arrays: nine bytes a slot, no
 * object per entry, because an image can have millions of L2 tables and every write asks.
 */
export class ClusterMap {
  #keys = new Float64Array(MIN_SLOTS).fill(EMPTY);
  #values = new Uint8Array(MIN_SLOTS);
  #mask = MIN_SLOTS - 1;
  #used = 0;

  get size(): number {
    return this.#used;
  }

  /** The value of `cluster`, 0 when it has none. */
  get(cluster: number): number {
    const keys = this.#keys;
    for (let slot = hash(cluster) & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const key = keys[slot];
      if (key === cluster) return this.#values[slot] as number;
      if (key === EMPTY) return 0;
    }
  }

  set(cluster: number, value: number): void {
    if ((this.#used + 1) * 2 > this.#keys.length) this.#grow();
    let slot = hash(cluster) & this.#mask;
    while (this.#keys[slot] !== EMPTY && this.#keys[slot] !== cluster) slot = (slot + 1) & this.#mask;
    if (this.#keys[slot] === EMPTY) this.#used += 1;
    this.#keys[slot] = cluster;
    this.#values[slot] = value;
  }

  /** Closes the gap by moving later entries of the same probe run back, so no tombstones pile up. */
  delete(cluster: number): void {
    let gap = hash(cluster) & this.#mask;
    while (this.#keys[gap] !== cluster) {
      if (this.#keys[gap] === EMPTY) return;
      gap = (gap + 1) & this.#mask;
    }
    this.#used -= 1;
    for (let slot = (gap + 1) & this.#mask; this.#keys[slot] !== EMPTY; slot = (slot + 1) & this.#mask) {
      const home = hash(this.#keys[slot] as number) & this.#mask;
      const staysReachable = ((slot - home) & this.#mask) < ((slot - gap) & this.#mask);
      if (staysReachable) continue;
      this.#keys[gap] = this.#keys[slot] as number;
      this.#values[gap] = this.#values[slot] as number;
      gap = slot;
    }
    this.#keys[gap] = EMPTY;
  }

  #grow(): void {
    const keys = this.#keys;
    const values = this.#values;
    this.#keys = new Float64Array(keys.length * 2).fill(EMPTY);
    this.#values = new Uint8Array(keys.length * 2);
    this.#mask = this.#keys.length - 1;
    this.#used = 0;
    for (let slot = 0; slot < keys.length; slot++) {
      if (keys[slot] !== EMPTY) this.set(keys[slot] as number, values[slot] as number);
    }
  }
}

function hash(cluster: number): number {
  const mixed = Math.imul((cluster ^ (cluster / 0x1_0000_0000)) | 0, 0x9e37_79b1);
  return mixed ^ (mixed >>> 15);
}
