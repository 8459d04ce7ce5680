import type { ZoneDescriptor } from "../../src/zoned/zone-state.js";
import { equalBytes, FlushLog, isAllZero, SECTOR, type Span } from "./sector-history.js";

/**
 * What each sequential zone may look like after a crash (positions as in `sector-history.ts`).
 *
 * The life of a zone is a row of generations, one more with every reset. Within a generation bytes are only
 * added at the pointer, so the pointer after a crash names the prefix that must be there, exactly.
 */
interface ZoneEvent {
  readonly kind: "write" | "finish" | "reset";
  /** The operation failed and the zone goes on as if it had not been; a crash may still show its effect. */
  readonly abandoned: boolean;
  readonly start: number;
  readonly end: number;
  readonly durable: boolean;
  readonly generation: number;
  /** Pointer after the event, relative to the zone's start. */
  readonly pointer: number;
}

interface ZoneLife {
  readonly events: ZoneEvent[];
  /** Bytes of each generation, zeros where nothing was written. */
  readonly contents: Uint8Array[];
}

export interface ZoneHistoryLayout {
  readonly zoneSize: number;
  readonly zoneCapacity: number;
  readonly conventionalZones: number;
  readonly size: number;
}

interface Allowed {
  readonly generation: number;
  readonly lowest: number;
  readonly highest: number;
  /** The zone was finished: its end is allowed beside [lowest, highest]. */
  readonly finished: boolean;
}

export class ZoneHistory {
  readonly layout: ZoneHistoryLayout;
  readonly #zones = new Map<number, ZoneLife>();
  readonly #flushes: FlushLog;

  constructor(layout: ZoneHistoryLayout, flushes = new FlushLog()) {
    this.layout = layout;
    this.#flushes = flushes;
  }

  /** Bytes that can be written in the zone. */
  capacityOf(zone: number): number {
    const start = zone * this.layout.zoneSize;
    return Math.min(this.layout.zoneCapacity, this.layout.size - start);
  }

  /** Pointer relative to the start, as acknowledged. */
  pointerOf(zone: number): number {
    return this.#life(zone).events.at(-1)?.pointer ?? 0;
  }

  /** What a reader sees of the current generation. */
  contentsOf(zone: number): Uint8Array {
    return this.#life(zone).contents.at(-1) as Uint8Array;
  }

  wrote(zone: number, at: number, bytes: Uint8Array, span: Span): void {
    const life = this.#life(zone);
    if (at !== this.pointerOf(zone)) {
      throw new Error(
        `zone ${zone}: ${bytes.length} bytes were acknowledged at +${at}, expected +${this.pointerOf(zone)}`,
      );
    }
    this.contentsOf(zone).set(bytes, at);
    life.events.push(this.#event(life, "write", at + bytes.length, span, span.fua ?? false));
  }

  finished(zone: number, span: Span): void {
    const life = this.#life(zone);
    if (this.pointerOf(zone) === this.capacityOf(zone)) return;
    life.events.push(this.#event(life, "finish", this.capacityOf(zone), span, true));
  }

  reset(zone: number, span: Span): void {
    const life = this.#life(zone);
    life.contents.push(new Uint8Array(this.capacityOf(zone)));
    life.events.push(this.#event(life, "reset", 0, span, true));
  }

  /** A reset that failed; `pointer` is where the device says the zone is now. */
  resetFailed(zone: number, span: Span, pointer: number): void {
    const failed = { start: span.start, end: Number.POSITIVE_INFINITY };
    if (pointer === 0) this.reset(zone, failed);
    else this.#abandon(zone, "reset", failed);
  }

  /** A finish that failed; `pointer` is where the device says the zone is now. */
  finishFailed(zone: number, span: Span, pointer: number): void {
    const failed = { start: span.start, end: Number.POSITIVE_INFINITY };
    if (pointer === this.capacityOf(zone)) this.finished(zone, failed);
    else this.#abandon(zone, "finish", failed);
  }

  flushed(span: Span): void {
    this.#flushes.add(span);
  }

  /** When resets of zones that held something were acknowledged. */
  resetMoments(): number[] {
    return [...this.#zones.values()].flatMap(({ events }) =>
      events.flatMap((event, index) => {
        const before = events[index - 1]?.pointer ?? 0;
        return event.kind === "reset" && before > 0 && Number.isFinite(event.end) ? [event.end] : [];
      }),
    );
  }

  /** Judges one zone read back after a crash at `position`: its report line and all bytes of its zone size. */
  judge(zone: number, report: ZoneDescriptor, bytes: Uint8Array, position: number): string[] {
    const pointer = report.writePointer - report.start;
    const who = `zone ${zone} after a crash at ${position}: pointer ${pointer}, state ${report.state}`;
    const problems: string[] = [];
    if (pointer < 0 || pointer > this.capacityOf(zone) || pointer % SECTOR !== 0)
      return [`${who}: pointer out of range`];
    const expectedState = pointer === 0 ? "empty" : pointer === this.capacityOf(zone) ? "full" : "closed";
    if (report.state !== expectedState) problems.push(`${who}: expected ${expectedState}`);
    if (!isAllZero(bytes.subarray(pointer))) problems.push(`${who}: data at or past the pointer`);
    const allowed = this.allowedAt(zone, position);
    if (!allowed.some((state) => this.#matches(zone, state, pointer, bytes))) {
      problems.push(
        `${who}: not one of ${JSON.stringify(allowed)}, first bytes ${[...bytes.subarray(0, 8)].join(" ")}`,
      );
    }
    return problems;
  }

  /** The generations and pointers that may be found after a crash at `position`. */
  allowedAt(zone: number, position: number): Allowed[] {
    const { events } = this.#life(zone);
    const durableUpTo = this.#flushes.durableUpTo(position);
    let durable = -1;
    for (let i = 0; i < events.length; i++) {
      const event = events[i] as ZoneEvent;
      if (event.end <= durableUpTo || (event.durable && event.end <= position)) durable = i;
    }
    const base = events[durable];
    const first: ZoneEvent = base ?? {
      kind: "reset",
      start: 0,
      end: 0,
      abandoned: false,
      durable: true,
      generation: 0,
      pointer: 0,
    };
    let current: Allowed = {
      generation: first.generation,
      lowest: first.pointer,
      highest: first.pointer,
      finished: false,
    };
    const result: Allowed[] = [];
    for (const event of events.slice(durable + 1)) {
      if (event.start >= position || (event.abandoned && event.start < durableUpTo)) continue;
      if (event.abandoned && event.kind === "reset") {
        result.push({ generation: event.generation, lowest: 0, highest: 0, finished: false });
      } else if (event.kind === "reset") {
        result.push(current);
        current = { generation: event.generation, lowest: 0, highest: 0, finished: false };
      } else if (event.kind === "finish") {
        current = { ...current, finished: true };
      } else {
        current = { ...current, highest: Math.max(current.highest, event.pointer) };
      }
    }
    result.push(current);
    return result;
  }

  #matches(zone: number, state: Allowed, pointer: number, bytes: Uint8Array): boolean {
    const atEnd = state.finished && pointer === this.capacityOf(zone);
    if (!atEnd && (pointer < state.lowest || pointer > state.highest)) return false;
    const contents = this.#life(zone).contents[state.generation] as Uint8Array;
    return equalBytes(bytes.subarray(0, pointer), contents.subarray(0, pointer));
  }

  #event(life: ZoneLife, kind: ZoneEvent["kind"], pointer: number, span: Span, durable: boolean): ZoneEvent {
    const generation = life.contents.length - 1;
    return { kind, abandoned: false, start: span.start, end: span.end, durable, generation, pointer };
  }

  #abandon(zone: number, kind: "finish" | "reset", span: Span): void {
    const life = this.#life(zone);
    life.events.push({ ...this.#event(life, kind, this.pointerOf(zone), span, false), abandoned: true });
  }

  #life(zone: number): ZoneLife {
    let life = this.#zones.get(zone);
    if (life === undefined) {
      life = { events: [], contents: [new Uint8Array(this.capacityOf(zone))] };
      this.#zones.set(zone, life);
    }
    return life;
  }
}
