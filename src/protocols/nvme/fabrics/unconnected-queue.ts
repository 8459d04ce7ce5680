/** A connection before its Connect command, and that command. */
import type { Command } from "../command.js";
import type { Connection } from "../connection.js";
import { FABRICS, FABRICS_TYPE } from "../opcodes.js";
import type { QueueRole } from "../queue-role.js";
import { refusal } from "../queue-role.js";
import { retryable, STATUS } from "../status.js";
import { CONNECT_DATA_LENGTH, ConnectRefusal, type ConnectRequest, parseConnect } from "./connect.js";

/** What an accepted Connect command is answered with. */
export interface Admission {
  readonly controllerId: number;
  readonly mustAuthenticate: boolean;
}

/** Decides on a request and makes the connection the queue that was asked for. */
export type Admit = (request: ConnectRequest, connection: Connection) => Admission | ConnectRefusal;

/** AUTHREQ bit ATR: authentication is required before anything else. */
const AUTHENTICATION_REQUIRED = 1 << 17;

export class UnconnectedQueue implements QueueRole {
  readonly #connection: Connection;
  readonly #admit: Admit;
  readonly #refused: (refusal: ConnectRefusal) => void;

  constructor(connection: Connection, admit: Admit, refused: (refusal: ConnectRefusal) => void) {
    this.#connection = connection;
    this.#admit = admit;
    this.#refused = refused;
  }

  prepare(command: Command): number {
    if (command.opcode !== FABRICS || command.fabricsType !== FABRICS_TYPE.connect) {
      return refusal(STATUS.commandSequenceError);
    }
    return CONNECT_DATA_LENGTH;
  }

  execute(command: Command): void {
    const request = parseConnect(command, command.data as Uint8Array);
    const outcome = request instanceof ConnectRefusal ? request : this.#admit(request, this.#connection);
    if (outcome instanceof ConnectRefusal) {
      this.#refused(outcome);
      const status = outcome.mayRetry ? retryable(outcome.status) : outcome.status;
      command.queue.complete(command, status, outcome.result);
      return;
    }
    const authentication = outcome.mustAuthenticate ? AUTHENTICATION_REQUIRED : 0;
    if (!outcome.mustAuthenticate) this.#connection.established();
    command.queue.complete(command, STATUS.success, outcome.controllerId | authentication);
  }

  disconnected(): void {}
}
