/** A queue whose host must authenticate before it may do anything, and may do so again later. */
import { isPromise } from "../../../base/maybe-promise.js";
import type { Authenticator } from "../authenticator.js";
import type { Command } from "../command.js";
import type { Connection } from "../connection.js";
import { AUTHENTICATION_MESSAGE_BYTES } from "../limits.js";
import { FABRICS, FABRICS_TYPE } from "../opcodes.js";
import { type QueueRole, refusal, statusOfHostRoom } from "../queue-role.js";
import { STATUS } from "../status.js";

/** SPSP0 = 1, SPSP1 = 1, SECP = E9h in bytes 41 to 43: the NVMe security protocol, the only one there is here. */
const PROTOCOL_MASK = 0xffff_ff00;
const PROTOCOL = 0xe901_0100;

export interface AuthenticatedQueueOptions {
  readonly connection: Connection;
  /** Takes over the commands of an authenticated host. */
  readonly inner: QueueRole;
  readonly begin: () => Authenticator;
  readonly failed: () => void;
}

export class AuthenticatedQueue implements QueueRole {
  readonly #options: AuthenticatedQueueOptions;
  #authenticator: Authenticator;
  #authenticated = false;
  #failureTold = false;
  /** The answer is being made; an Authentication Receive waits for it. */
  #working = false;
  #receive: Command | undefined = undefined;

  constructor(options: AuthenticatedQueueOptions) {
    this.#options = options;
    this.#authenticator = options.begin();
  }

  prepare(command: Command): number {
    if (command.opcode === FABRICS) {
      if (command.fabricsType === FABRICS_TYPE.authenticationSend) return this.#prepareSend(command);
      if (command.fabricsType === FABRICS_TYPE.authenticationReceive) return this.#prepareReceive(command);
    }
    return this.#authenticated ? this.#options.inner.prepare(command) : refusal(STATUS.authenticationRequired);
  }

  execute(command: Command): void {
    if (command.opcode === FABRICS) {
      if (command.fabricsType === FABRICS_TYPE.authenticationSend) return this.#send(command);
      if (command.fabricsType === FABRICS_TYPE.authenticationReceive) return this.#answer(command);
    }
    return this.#options.inner.execute(command);
  }

  disconnected(reason: string): void {
    this.#options.inner.disconnected(reason);
  }

  #prepareSend(command: Command): number {
    const length = command.dword11;
    if ((command.dword10 & PROTOCOL_MASK) >>> 0 !== PROTOCOL) return refusal(STATUS.invalidField);
    if (length === 0 || length > AUTHENTICATION_MESSAGE_BYTES) return refusal(STATUS.invalidField);
    return this.#working ? refusal(STATUS.commandSequenceError) : length;
  }

  #prepareReceive(command: Command): number {
    const length = command.dword11;
    if ((command.dword10 & PROTOCOL_MASK) >>> 0 !== PROTOCOL || length === 0) return refusal(STATUS.invalidField);
    const status = statusOfHostRoom(command, Math.min(length, AUTHENTICATION_MESSAGE_BYTES));
    if (status !== STATUS.success) return refusal(status);
    return this.#receive === undefined ? 0 : refusal(STATUS.commandSequenceError);
  }

  #send(command: Command): void {
    // Negotiation after the end of one exchange starts another.
    if (this.#authenticator.state !== "pending") this.#authenticator = this.#options.begin();
    const message = (command.data as Uint8Array).slice();
    const wait = this.#authenticator.receive(message);
    if (isPromise(wait)) {
      this.#working = true;
      void wait.catch(() => undefined).then(() => this.#received(command));
    } else {
      this.#received(command);
    }
  }

  #received(command: Command): void {
    this.#working = false;
    this.#noteOutcome();
    command.queue.complete(command, STATUS.success);
    const waiting = this.#receive;
    this.#receive = undefined;
    if (waiting !== undefined) this.#answer(waiting);
  }

  #answer(command: Command): void {
    if (this.#working) {
      this.#receive = command;
      return;
    }
    const message = this.#authenticator.next();
    const room = Math.min(command.dword11, AUTHENTICATION_MESSAGE_BYTES);
    if (message === undefined || message.length > room) {
      command.queue.complete(command, message === undefined ? STATUS.commandSequenceError : STATUS.invalidField);
    } else {
      const reply = command.queue.reply(command, room);
      reply.fill(0);
      reply.set(message);
      command.queue.completeWithReply(command);
    }
    this.#noteOutcome();
    if (this.#authenticator.state === "failed") this.#options.connection.end("authentication failed");
  }

  #noteOutcome(): void {
    const { state } = this.#authenticator;
    if (state === "authenticated") {
      this.#authenticated = true;
      this.#options.connection.established();
    } else if (state === "failed") {
      if (!this.#failureTold) this.#options.failed();
      this.#failureTold = true;
      this.#authenticated = false;
    }
  }
}
