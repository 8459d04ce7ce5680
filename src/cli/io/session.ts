import { isZcowError, ZcowError } from "../../base/errors.js";
import type { BlockDevice } from "../../block/block-device.js";
import { isZonedDevice, type ZonedDevice } from "../../block/zoned-device.js";
import type { SecretLookup } from "../../formats/qcow2/create-options-parse.js";
import type { CommandContext } from "../context.js";
import { errnoText, explain, printError, withSubject } from "../failure.js";
import { requireAio, withDriverOptions } from "./choices.js";
import { BadArguments, type IoCommand, splitLetters, usageLine } from "./command.js";
import { type IoChoice, IoImage } from "./image.js";

/** How a request ended, in words. */
export interface Outcome {
  readonly ok: boolean;
  /** For standard output. */
  readonly text: string;
  /** What standard output cannot say without departing from the stock tool: for standard error. */
  readonly details?: string;
}

/** A request that was started and has not been reported. */
interface PendingRequest {
  /** Never rejects. */
  readonly done: Promise<Outcome>;
  /** Set when `done` has resolved. */
  outcome: Outcome | undefined;
}

/** One run of the exerciser: the image in use, requests in flight, and where to print. */
export class IoSession {
  readonly context: CommandContext;
  /** Passphrases that `open -o encrypt.key-secret=ID` may name. */
  readonly secretOf: SecretLookup | undefined;
  readonly #commands: ReadonlyMap<string, IoCommand>;
  #image: IoImage | undefined;
  #pending: PendingRequest[] = [];
  finished = false;

  constructor(context: CommandContext, commands: ReadonlyMap<string, IoCommand>, secretOf?: SecretLookup) {
    this.context = context;
    this.secretOf = secretOf;
    this.#commands = commands;
  }

  print(text: string): void {
    this.context.output.out(text);
  }

  complain(text: string): void {
    this.context.output.err(text);
  }

  get isOpen(): boolean {
    return this.#image !== undefined;
  }

  /** The open image; commands that need one run only when there is one. */
  get image(): IoImage {
    if (this.#image === undefined) throw new ZcowError("CLOSED", "no image is open");
    return this.#image;
  }

  get device(): BlockDevice {
    return this.image.device;
  }

  get zonedDevice(): ZonedDevice {
    const device = this.device;
    if (isZonedDevice(device)) return device;
    throw new ZcowError("NOT_SUPPORTED", `${device.name} is not a zoned image`);
  }

  /** Refuses a range outside the disk before a buffer of its length is made; `OUT_OF_RANGE`. */
  assertInside(offset: number, length: number): void {
    const { size, name } = this.device;
    if (offset + length <= size) return;
    throw new ZcowError(
      "OUT_OF_RANGE",
      `${length} bytes at offset ${offset} do not fit ${name}, a disk of ${size} bytes`,
      {
        data: { path: name, offset, length, limit: size },
      },
    );
  }

  /** Writes go through to the disk when the cache mode says so. */
  get writeThrough(): boolean {
    return this.#image?.choice.cache.writeThrough ?? false;
  }

  /** `aio`: how the disk is to be reached; checked, and of no other consequence. */
  async open(choice: IoChoice, aio?: string): Promise<void> {
    try {
      requireAio(aio, choice);
      this.use(await IoImage.open(withDriverOptions(choice), this));
    } catch (error) {
      throw withSubject(choice.path === undefined ? "can't open" : `can't open device ${choice.path}`, error);
    }
  }

  /** Works on an image that is open already. */
  use(image: IoImage): void {
    this.#image = image;
  }

  async close(): Promise<void> {
    await this.drain();
    const image = this.#image;
    this.#image = undefined;
    await image?.close();
  }

  /** The outcome of an operation that failed: the words of qemu-io and, under our own name, the whole story. */
  failure(operation: string, error: unknown): Outcome {
    const text = `${operation} failed: ${errnoText(error)}\n`;
    const known = error instanceof ZcowError;
    // The stock tool ends at once, with these words.
    if (isZcowError(error, "CONTENTS_DIFFER")) {
      this.finished = true;
      return { ok: false, text: "", details: `${error.stockText}\n` };
    }
    if (known && this.context.standIn) return { ok: false, text };
    return { ok: false, text, details: `${this.context.program}: ${explain(error, this.context)}\n` };
  }

  /** Prints an outcome; returns whether it was a success. */
  show(outcome: Outcome): boolean {
    this.print(outcome.text);
    if (outcome.details !== undefined) this.complain(outcome.details);
    return outcome.ok;
  }

  /** Takes charge of a request in flight; its outcome is printed by the next command that waits. */
  addPending(done: Promise<Outcome>): void {
    const request: PendingRequest = { done, outcome: undefined };
    this.#pending.push(request);
    void done.then((outcome) => {
      request.outcome = outcome;
    });
  }

  /** Waits for all requests in flight and prints how they ended, in the order they were started. */
  async drain(): Promise<void> {
    const waiting = this.#pending;
    this.#pending = [];
    for (const request of waiting) this.show(await request.done);
  }

  #showFinished(): void {
    const running: PendingRequest[] = [];
    for (const request of this.#pending) {
      if (request.outcome === undefined) running.push(request);
      else this.show(request.outcome);
    }
    this.#pending = running;
  }

  findCommand(name: string): IoCommand | undefined {
    return this.#commands.get(name);
  }

  /** All commands, each once, by name. */
  commandList(): IoCommand[] {
    return [...new Set(this.#commands.values())].toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Runs lines until there are no more or one ends the session; resolves to false when any failed. */
  async executeAll(lines: AsyncIterable<string> | Iterable<string>): Promise<boolean> {
    let ok = true;
    for await (const line of lines) {
      ok = (await this.execute(line)) && ok;
      if (this.finished) break;
    }
    return ok;
  }

  /** Runs one line; resolves to false when it failed. */
  async execute(line: string): Promise<boolean> {
    const [name, ...words] = line.split(" ").filter((word) => word !== "");
    if (name === undefined) return true;
    const command = this.findCommand(name);
    if (command === undefined) {
      this.complain(`command "${name}" not found\n`);
      return false;
    }
    if (!this.#mayRun(command, words)) return false;
    try {
      const split = splitLetters(command, words);
      if ("answer" in split) {
        this.print(split.answer);
        return true;
      }
      if ("complaint" in split) {
        this.complain(split.complaint);
        this.print(usageLine(command));
        return false;
      }
      if (command.asynchronous !== true) this.#showFinished();
      return await command.run(this, split.args);
    } catch (error) {
      if (error instanceof BadArguments) this.print(error.text ?? usageLine(command));
      else printError(this.context, explain(error, this.context));
      return false;
    }
  }

  #mayRun(command: IoCommand, words: readonly string[]): boolean {
    if (command.withoutImage !== true && this.#image === undefined) {
      this.complain("no file open, try 'help open'\n");
      return false;
    }
    const { minimum, maximum } = command;
    if (words.length < minimum || (maximum !== undefined && words.length > maximum)) {
      this.complain(
        `bad argument count ${words.length} to ${command.name}, expected ${countText(minimum, maximum)} arguments\n`,
      );
      return false;
    }
    if (command.writes === true && this.#image?.device.readOnly === true) {
      printError(this.context, "Block node is read-only");
      return false;
    }
    return true;
  }
}

function countText(minimum: number, maximum: number | undefined): string {
  if (maximum === undefined) return `at least ${minimum}`;
  return minimum === maximum ? `${minimum}` : `between ${minimum} and ${maximum}`;
}
