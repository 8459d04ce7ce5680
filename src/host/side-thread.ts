import { Worker } from "node:worker_threads";

/** Memory for new objects of a thread, in MiB: it makes few, and what V8 would take otherwise is tens of MiB. */
const YOUNG_MIB = 4;

interface Pending<A> {
  readonly resolve: (answer: A) => void;
  readonly reject: (cause: unknown) => void;
}

/**
 * A function that runs in a thread of its own. Waking a thread takes as long as copying a few hundred KiB, so requests had better be
 * large, and the next one be there before the last is answered.
 *
 * The thread is made from the text of a function, so that it needs no file of its own: the function may use nothing from around it but
 * globals, and gets modules of Node.js by `process.getBuiltinModule`. Called once, in the thread, it gives what answers requests.
 */
export class SideThread<Q, A> {
  readonly #worker: Worker;
  /** In the order of the requests, which is that of the answers. */
  readonly #pending: Pending<A>[] = [];
  #failure: Error | undefined;

  constructor(makeAnswerer: () => (request: Q) => A) {
    // The options of this process may load programs that the thread has no use for.
    this.#worker = new Worker(`(${program.toString()})(${makeAnswerer.toString()})`, {
      eval: true,
      execArgv: [],
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MIB },
    });
    this.#worker.unref();
    this.#worker.on("message", (answer: A) => {
      const pending = this.#pending.shift();
      if (this.#pending.length === 0) this.#worker.unref();
      pending?.resolve(answer);
    });
    this.#worker.on("error", (cause) => this.#end(cause));
    this.#worker.on("exit", () => this.#end(new Error("the thread has ended")));
  }

  /** Requests that have no answer yet. */
  get pending(): number {
    return this.#pending.length;
  }

  /** The answer; rejects when the thread fails or ends before. What the request shares with the thread stays alive until then. */
  ask(request: Q): Promise<A> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#pending.length === 0) this.#worker.ref();
    return new Promise((resolve, reject) => {
      this.#pending.push({ resolve, reject });
      this.#worker.postMessage(request, []);
    });
  }

  /** Ends the thread, whatever it is at. */
  async close(): Promise<void> {
    this.#end(new Error("the thread was ended"));
    await this.#worker.terminate();
  }

  #end(failure: Error): void {
    this.#failure ??= failure;
    for (const { reject } of this.#pending.splice(0)) reject(this.#failure);
  }
}

/** What the thread does. */
function program(makeAnswerer: () => (request: unknown) => unknown): void {
  const { parentPort } = process.getBuiltinModule("node:worker_threads");
  const answer = makeAnswerer();
  parentPort?.on("message", (request: unknown) => parentPort.postMessage(answer(request), []));
}
