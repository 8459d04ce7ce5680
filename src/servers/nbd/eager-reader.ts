import { type BusyPoll, POLL_MILLISECONDS } from "../busy-poll.js";
import { type DirectSocket, NOTHING_YET, PEER_ENDED } from "../direct-socket.js";
import type { RequestRhythm } from "./request-rhythm.js";
import type { SocketStream } from "./socket-stream.js";

/** The event loop, with all other connections in it, has its turn after so long at the latest. */
const TURN_MILLISECONDS = 0.5;

/** Answers above this cost so much more than the event loop that there is nothing to gain. */
const SMALL_ANSWER_BYTES = 16 * 1024;

/** Memory that all connections of a thread receive into, one after the other. */
const CHUNK = new Uint8Array(new ArrayBuffer(96 * 1024));
/** For what follows the data of a large write: the next request, as a rule. */
const BEHIND = new Uint8Array(new ArrayBuffer(4 * 1024));

/**
 * Takes what follows a request without going through the event loop, which costs more than a small request itself, and waits
 * a moment for it when nobody else wants to be served: to be woken costs even more. It gives the processor to who waits for it
 * meanwhile, who may be the client.
 */
export class EagerReader {
  readonly #direct: DirectSocket;
  readonly #stream: SocketStream;
  readonly #rhythm: RequestRhythm;
  readonly #poll: BusyPoll;
  /** What the stream had seen when this was asked last. */
  #requests = 0;
  #bytesSent = 0;
  #scheduled = false;

  /** `poll`: what to do while several requests are under way, which come together when they are left some time. */
  constructor(direct: DirectSocket, stream: SocketStream, rhythm: RequestRhythm, poll: BusyPoll) {
    this.#direct = direct;
    this.#stream = stream;
    this.#rhythm = rhythm;
    this.#poll = poll;
  }

  /** The event loop has delivered something, and all of it was handled. */
  follow(): void {
    this.#rhythm.note(this);
    const lone = this.#wasLone();
    if (this.#scheduled) return;
    if (lone || this.#stream.room !== undefined) this.#read();
    else this.#poll.noteRequest();
  }

  readonly #resume = (): void => {
    this.#scheduled = false;
    this.#read();
  };

  #read(): void {
    const rhythm = this.#rhythm;
    const start = performance.now();
    let last = start;
    let now = start;
    while (this.#stream.awaitsPeer) {
      const count = this.#receive();
      if (count === PEER_ENDED) return;
      now = performance.now();
      if (count !== NOTHING_YET) {
        last = now;
        rhythm.fruitful();
        if (!this.#wasLone() && this.#stream.room === undefined) return this.#poll.noteRequest();
      } else if (!rhythm.isSolo(this)) {
        return;
      } else if (now - last > POLL_MILLISECONDS) {
        rhythm.fruitless();
        return;
      } else {
        this.#direct.yieldProcessor();
      }
      if (now - start > TURN_MILLISECONDS) return this.#goOnLater();
    }
  }

  /** What came last was a small request by itself, as from a client that waits for every answer. */
  #wasLone(): boolean {
    const { requests, bytesSent } = this.#stream;
    const lone = requests - this.#requests === 1 && bytesSent - this.#bytesSent <= SMALL_ANSWER_BYTES;
    this.#requests = requests;
    this.#bytesSent = bytesSent;
    return lone;
  }

  #receive(): number {
    const room = this.#stream.room;
    const into = room ?? CHUNK;
    const count = this.#direct.receive(into, room && BEHIND);
    if (count <= 0) return count;
    if (room === undefined) {
      this.#stream.receive(CHUNK.subarray(0, count));
    } else {
      this.#stream.filled(Math.min(count, room.length));
      if (count > room.length) this.#stream.receive(BEHIND.subarray(0, count - room.length));
    }
    return count;
  }

  #goOnLater(): void {
    this.#scheduled = true;
    setImmediate(this.#resume);
  }
}
