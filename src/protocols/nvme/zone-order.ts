/**
 * Keeps commands that change a zone in the order in which they arrived on their queue.
 *
 * NVMe lets a controller run commands in any order, but a zone does not forgive it: a write whose data came in
 * its capsule would overtake an earlier write that waits for H2CData, and miss the write pointer. So a command takes its
 * place in line when it arrives and is carried out when its data is there and all before it have been *started*; the
 * device keeps the order from there on, without waiting for earlier ones to end.
 *
 * Each queue has its own lines: nothing orders commands of different queues, and a host that never sends its data
 * holds up nobody else. Operations on all zones at once take no place in line.
 */
import type { Command } from "./command.js";

interface Turn {
  readonly command: Command;
  ready: boolean;
  /** Started, and still to be waited for. */
  running: boolean;
  next: Turn | undefined;
}

interface Line {
  first: Turn | undefined;
  last: Turn | undefined;
}

export class ZoneOrder {
  /** By zone key; only zones with commands that wait. */
  readonly #lines = new Map<number, Line>();
  readonly #turns = new Map<Command, { readonly key: number; readonly turn: Turn }>();
  readonly #start: (command: Command) => boolean;

  /** `start`: begins a command whose turn has come; true when those behind it must wait until it has left the line. */
  constructor(start: (command: Command) => boolean) {
    this.#start = start;
  }

  /** Nothing waits for the zone: a command whose data is there need not take a place. */
  isClear(key: number): boolean {
    return this.#lines.size === 0 || !this.#lines.has(key);
  }

  /** Takes a place in the line of a zone. */
  join(key: number, command: Command): void {
    const turn: Turn = { command, ready: false, running: false, next: undefined };
    const line = this.#lines.get(key);
    if (line?.last === undefined) this.#lines.set(key, { first: turn, last: turn });
    else {
      line.last.next = turn;
      line.last = turn;
    }
    this.#turns.set(command, { key, turn });
  }

  /** True when the command is in a line. */
  holds(command: Command): boolean {
    return this.#turns.size > 0 && this.#turns.has(command);
  }

  /** The command is in a line and was not started. */
  isWaiting(command: Command): boolean {
    return this.#turns.get(command)?.turn.running === false;
  }

  /** The data of a command in line is there: starts it, and those that waited for it only, when its turn has come. */
  ready(command: Command): void {
    const place = this.#turns.get(command);
    if (place === undefined) return;
    place.turn.ready = true;
    this.#advance(place.key);
  }

  /** The command will not be carried out, or those behind it need not wait for it any more. */
  leave(command: Command): void {
    const place = this.#turns.get(command);
    if (place === undefined) return;
    this.#turns.delete(command);
    const line = this.#lines.get(place.key);
    if (line === undefined) return;
    unlink(line, place.turn);
    this.#advance(place.key);
  }

  #advance(key: number): void {
    const line = this.#lines.get(key);
    if (line === undefined) return;
    for (let turn = line.first; turn?.ready === true && !turn.running; turn = line.first) {
      turn.running = true;
      const stays = this.#start(turn.command);
      // It may have left on its own while it was started.
      if (stays && line.first === turn) break;
      if (line.first === turn) line.first = turn.next;
      this.#turns.delete(turn.command);
    }
    if (line.first === undefined) this.#lines.delete(key);
  }
}

function unlink(line: Line, turn: Turn): void {
  if (line.first === turn) {
    line.first = turn.next;
    return;
  }
  let before = line.first;
  while (before !== undefined && before.next !== turn) before = before.next;
  if (before === undefined) return;
  before.next = turn.next;
  if (line.last === turn) line.last = before;
}
