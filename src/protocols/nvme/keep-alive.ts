/** The keep-alive timer of a controller (NVMe base, "Keep Alive"); any command counts as a sign of life (CTRATT.TBKAS). */
import { KEEP_ALIVE_GRANULARITY } from "./limits.js";
import type { Clock } from "./transport.js";

export class KeepAlive {
  readonly #clock: Clock;
  readonly #expired: () => void;
  #timeout = 0;
  #cancel: (() => void) | undefined = undefined;
  /** Set by every command, looked at by the timer: a command costs no timer. */
  touched = false;

  constructor(clock: Clock, expired: () => void) {
    this.#clock = clock;
    this.#expired = expired;
  }

  /** Milliseconds; 0 = never expires. */
  get timeout(): number {
    return this.#timeout;
  }

  /** Starts anew with a timeout, rounded up to the granularity; 0 stops it. */
  start(timeout: number): void {
    this.stop();
    this.#timeout = Math.ceil(timeout / KEEP_ALIVE_GRANULARITY) * KEEP_ALIVE_GRANULARITY;
    this.touched = false;
    if (this.#timeout > 0) this.#arm();
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  /** Expires between one and two timeouts after the last sign of life. */
  #arm(): void {
    this.#cancel = this.#clock.after(Math.min(this.#timeout, MAX_DELAY), () => {
      this.#cancel = undefined;
      if (this.touched) {
        this.touched = false;
        this.#arm();
      } else {
        this.#expired();
      }
    });
  }
}

/** Longest delay that timers of JavaScript hosts take: 2^31 - 1 ms. */
const MAX_DELAY = 0x7fff_ffff;
