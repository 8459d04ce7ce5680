/** Guest subclusters whose mapping is about to change: their data is being written, the table not yet updated. */
export interface Reservation {
  /** First guest subcluster. */
  readonly first: number;
  /** Subclusters. */
  readonly count: number;
  /** Resolves when the mapping has changed, or the attempt has failed. Never rejects. */
  readonly finished: Promise<void>;
}

/**
 * Allocating writes in flight. Whoever wants to change the mapping of a reserved subcluster waits for the
 * reservation to end, then looks again; requests for others never wait.
 */
export class Reservations {
  readonly #active = new Set<ActiveReservation>();

  /** A reservation that touches [first, first + count): the one that starts lowest. */
  find(first: number, count: number): Reservation | undefined {
    let lowest: Reservation | undefined;
    for (const active of this.#active) {
      if (active.first >= first + count || active.first + active.count <= first) continue;
      if (lowest === undefined || active.first < lowest.first) lowest = active;
    }
    return lowest;
  }

  /** Reserves subclusters that no reservation touches. */
  add(first: number, count: number): Reservation {
    const active = new ActiveReservation(first, count);
    this.#active.add(active);
    return active;
  }

  end(reservation: Reservation): void {
    if (reservation instanceof ActiveReservation && this.#active.delete(reservation)) reservation.finish();
  }

  /** Resolves when nothing is reserved. */
  async drained(): Promise<void> {
    while (this.#active.size > 0) await Promise.all([...this.#active].map((active) => active.finished));
  }
}

class ActiveReservation implements Reservation {
  readonly first: number;
  readonly count: number;
  readonly finished: Promise<void>;
  finish: () => void = () => undefined;

  constructor(first: number, count: number) {
    this.first = first;
    this.count = count;
    this.finished = new Promise((resolve) => {
      this.finish = resolve;
    });
  }
}
