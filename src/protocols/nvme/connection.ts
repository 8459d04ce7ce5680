/**
 * One connection, which is one queue: from the first byte to the last.
 *
 * Order of life: ICReq, then Connect, then commands. A breach of the transport's rules ends the connection with a
 * termination request; a breach of a command's rules ends the command with a status.
 *
 * Bounds on what a peer can make it hold: commands in flight (queue entries), write data (budget of
 * `DataTransfers`), replies (backlog and replies being filled: above the limit no command is started and the transport
 * is paused), one partial capsule, and one chunk that came in after the pause.
 */
import { Command, type CommandQueue, type ReplyRoom } from "./command.js";
import { DataTransfers } from "./data-transfers.js";
import { ADMIN_IN_CAPSULE_BYTES, DEFERRED_BYTES, TERMINATION_MILLISECONDS, UNCONNECTED_COMMANDS } from "./limits.js";
import { encodeIcResp, parseIcReq } from "./pdu/initialize.js";
import { Outbox } from "./pdu/outbox.js";
import { FATAL, PduError } from "./pdu/pdu-format.js";
import { type Capsule, type PduHandler, PduReceiver } from "./pdu/pdu-receiver.js";
import { encodeC2HTermReq, fatalErrorStatusOf } from "./pdu/terminate.js";
import { type QueueRole, statusOfHostData } from "./queue-role.js";
import { STATUS } from "./status.js";
import type { TargetContext } from "./target-context.js";
import type { PeerInfo, Transport, TransportListener } from "./transport.js";

/** What a queue becomes by its Connect command. */
export interface QueueAssignment {
  readonly role: QueueRole;
  readonly queueId: number;
  readonly entries: number;
  readonly flowControl: boolean;
  /** Bytes of in-capsule data. */
  readonly capsuleDataBytes: number;
}

export class Connection implements TransportListener, PduHandler, CommandQueue {
  readonly peer: PeerInfo;
  readonly #context: TargetContext;
  readonly #transport: Transport;
  readonly #receiver: PduReceiver;
  readonly #outbox: Outbox;
  readonly #transfers: DataTransfers;
  readonly #pending = new Map<number, Command>();
  #role: QueueRole;
  #entries = UNCONNECTED_COMMANDS;
  /** The next command is decoded into this one; commands that end at once leave it for the next. */
  #spare: Command;
  /** The command that is being started. */
  #starting: Command | undefined = undefined;
  #receiving = false;
  /** Bytes that came in while the connection could not take them. */
  #deferred: Uint8Array[] = [];
  #deferredBytes = 0;
  #paused = false;
  /** Bytes of replies that the device is filling, and of other memory that commands need while they run. */
  #filling = 0;
  #dataLength = 0;
  #ended = false;
  #cancelTimer: (() => void) | undefined;

  /** `role`: takes the Connect command, and no other. */
  constructor(context: TargetContext, transport: Transport, peer: PeerInfo, role: (self: Connection) => QueueRole) {
    const { limits, crc, allocate, clock } = context;
    this.peer = peer;
    this.#context = context;
    this.#transport = transport;
    this.#receiver = new PduReceiver(this, {
      crc,
      h2cDataBytes: limits.h2cDataBytes,
      capsuleDataBytes: ADMIN_IN_CAPSULE_BYTES,
    });
    this.#outbox = new Outbox({ transport, crc, allocate });
    this.#transfers = new DataTransfers(context.buffers, limits.writeBytesInFlight, {
      request: (commandId, tag, length) => this.#outbox.requestData(commandId, tag, 0, length),
      complete: (command) => this.#execute(command),
    });
    this.#spare = new Command(this);
    this.#role = role(this);
    this.#cancelTimer = clock.after(limits.handshakeMilliseconds, () =>
      this.end(`no queue was connected within ${limits.handshakeMilliseconds} ms`),
    );
  }

  /** Nothing more is received or sent. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Commands that were not completed. */
  get outstanding(): number {
    return this.#pending.size;
  }

  // --- what the transport tells ------------------------------------------------------------------

  receive(chunk: Uint8Array): void {
    if (this.#ended) return;
    if (this.#deferred.length > 0) this.#defer(chunk);
    else this.#process(chunk);
  }

  drained(): void {
    this.#resumeIfPossible();
  }

  disconnected(reason?: Error): void {
    this.#cancelTimer?.();
    this.#finish(reason?.message ?? "the host closed the connection");
  }

  // --- what the owner of the queue does -----------------------------------------------------------

  /** The Connect command was accepted: from its completion on, the queue is this one. */
  assign(assignment: QueueAssignment): void {
    this.#role = assignment.role;
    this.#entries = assignment.entries;
    this.#receiver.capsuleDataBytes = assignment.capsuleDataBytes;
    this.#outbox.connectQueue(assignment.queueId, assignment.entries, assignment.flowControl);
  }

  /** The host has shown who it is: the time limit for that is lifted. */
  established(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  /** Ends the connection after what was sent has left. Idempotent. */
  end(reason: string): void {
    if (this.#ended) return;
    this.#outbox.flush();
    this.#transport.end();
    this.#linger(reason);
    this.#finish(reason);
  }

  /**
   * Aborts command `id`: one that waits for an event, for its R2T, for its turn or for the end of an injected delay. True
   * when it is completed as aborted; one that has begun ends by itself, soon.
   */
  abort(id: number): boolean {
    const command = this.#pending.get(id);
    if (command === undefined || this.#ended) return false;
    if (this.#transfers.withdraw(command)) {
      this.#role.abandon?.(command);
      this.complete(command, STATUS.abortRequested);
      return true;
    }
    return !this.#transfers.awaits(command) && this.#role.abort?.(command) === true;
  }

  // --- completions ---------------------------------------------------------------------------------

  complete(command: Command, status: number, low = 0, high = 0): void {
    if (this.#retire(command)) return;
    if (command.room !== undefined) this.#dropRoom(command, command.room);
    this.#outbox.respond(command.id, status, low, high);
    this.#afterCompletion();
  }

  reply(command: Command, length: number): Uint8Array {
    const room = this.#outbox.reserve(length);
    command.room = room;
    if (this.#starting !== command) this.#setAside(room);
    return room.block.subarray(room.dataStart, room.dataStart + room.dataLength);
  }

  hold(command: Command, bytes: number): void {
    command.held += bytes;
    this.#filling += bytes;
  }

  completeWithReply(command: Command): void {
    if (this.#retire(command)) return;
    const room = command.room as ReplyRoom;
    if (command.pending) this.#filling -= room.length;
    this.#outbox.finish(command, room);
    this.#afterCompletion();
  }

  // --- PDUs ------------------------------------------------------------------------------------------

  initialize(view: DataView, at: number): void {
    const parameters = parseIcReq(view, at);
    this.#receiver.parameters = parameters;
    this.#outbox.parameters = parameters;
    this.#transport.send(encodeIcResp(parameters, this.#context.limits.h2cDataBytes));
  }

  capsule(capsule: Capsule): void {
    const command = this.#spare;
    command.decode(capsule.view, capsule.entry);
    if (this.#pending.size >= this.#entries) {
      throw new PduError(FATAL.sequence, 0, `more than ${this.#entries} commands in flight`);
    }
    this.#starting = command;
    this.#start(command, capsule);
    this.#starting = undefined;
    if (command.done) return;
    command.pending = true;
    this.#pending.set(command.id, command);
    this.#spare = new Command(this);
    if (command.room !== undefined) this.#setAside(command.room);
  }

  dataBegins(commandId: number, transferTag: number, offset: number, length: number, last: boolean): Uint8Array {
    this.#dataLength = length;
    return this.#transfers.dataBegins(commandId, transferTag, offset, length, last);
  }

  dataEnds(intact: boolean): void {
    this.#transfers.dataEnds(this.#dataLength, intact);
  }

  terminated(view: DataView, at: number): void {
    const fes = fatalErrorStatusOf(view, at);
    this.#context.report({ kind: "terminated-by-host", peer: this.peer.address, fes });
    this.end(`the host ended the connection with fatal error ${fes}`);
  }

  // --- commands --------------------------------------------------------------------------------------

  #start(command: Command, capsule: Capsule): void {
    if (this.#pending.has(command.id)) {
      this.complete(command, STATUS.commandIdConflict);
      return;
    }
    const wanted = this.#role.prepare(command);
    if (wanted < 0) this.complete(command, -wanted);
    else if (wanted > 0) this.#gather(command, capsule, wanted);
    else if (capsule.dataLength > 0) this.#refuseData(command);
    else this.#role.execute(command);
  }

  #gather(command: Command, capsule: Capsule, wanted: number): void {
    const status = statusOfHostData(command, wanted, capsule.dataLength);
    if (status !== STATUS.success) {
      this.#role.abandon?.(command);
      this.complete(command, status);
      return;
    }
    if (capsule.dataLength === 0) {
      this.#transfers.begin(command, wanted);
      return;
    }
    command.damaged = !capsule.intact;
    const { bytes, dataStart, dataLength } = capsule;
    command.data = this.#transfers.copyOf(bytes.subarray(dataStart, dataStart + dataLength));
    this.#execute(command);
  }

  /** Data in the capsule of a command that takes none. */
  #refuseData(command: Command): void {
    this.#role.abandon?.(command);
    this.complete(command, STATUS.invalidField);
  }

  /** The data of the command is there. */
  #execute(command: Command): void {
    if (!command.damaged) {
      this.#role.execute(command);
      return;
    }
    this.#role.abandon?.(command);
    this.complete(command, STATUS.transientTransportError);
  }

  /** True when the connection has ended, so that nothing can be sent. */
  #retire(command: Command): boolean {
    command.done = true;
    this.#filling -= command.held;
    if (command.pending) this.#pending.delete(command.id);
    const { data } = command;
    if (data !== undefined) {
      command.data = undefined;
      this.#transfers.release(data);
    }
    return this.#ended;
  }

  #dropRoom(command: Command, room: ReplyRoom): void {
    if (command.pending) this.#filling -= room.length;
    this.#outbox.drop(room);
  }

  #setAside(room: ReplyRoom): void {
    this.#filling += room.length;
    this.#outbox.setAside(room);
  }

  #afterCompletion(): void {
    if (this.#receiving) return;
    this.#outbox.flush();
    if (this.#paused) this.#resumeIfPossible();
  }

  // --- bytes in ------------------------------------------------------------------------------------

  readonly #halted = (): boolean =>
    this.#ended || this.#transport.backlog + this.#filling > this.#context.limits.backlogBytes;

  #process(chunk: Uint8Array): void {
    this.#receiving = true;
    let taken = chunk.length;
    try {
      const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength);
      taken = this.#receiver.push(chunk, view, 0, this.#halted);
    } catch (error) {
      if (error instanceof PduError) this.#terminate(error);
      else this.#abandonAfter(error);
    } finally {
      this.#receiving = false;
      this.#starting = undefined;
    }
    if (this.#ended) return;
    this.#outbox.flush();
    if (taken < chunk.length) this.#defer(chunk.subarray(taken));
    if (!this.#paused && this.#halted()) this.#pause();
  }

  #defer(rest: Uint8Array): void {
    this.#deferred.push(rest.slice());
    this.#deferredBytes += rest.length;
    if (!this.#paused) this.#pause();
    if (this.#deferredBytes <= DEFERRED_BYTES) return;
    this.#transport.destroy(new Error(`the transport delivered ${this.#deferredBytes} bytes to a paused connection`));
    this.#finish("the transport did not pause");
  }

  #pause(): void {
    this.#paused = true;
    this.#transport.pause();
  }

  #resumeIfPossible(): void {
    if (!this.#paused || this.#receiving || this.#halted()) return;
    while (this.#deferred.length > 0) {
      const waiting = this.#deferred.splice(0);
      this.#deferredBytes = 0;
      for (const chunk of waiting) this.receive(chunk);
      if (this.#halted()) return;
    }
    this.#paused = false;
    this.#transport.resume();
  }

  // --- the end ---------------------------------------------------------------------------------------

  #terminate(error: PduError): void {
    this.#outbox.flush();
    this.#transport.send(encodeC2HTermReq(error, this.#receiver.offender));
    this.#transport.end();
    this.#context.report({
      kind: "protocol-error",
      peer: this.peer.address,
      fes: error.fes,
      reason: error.message,
    });
    this.#linger(error.message);
    this.#finish(error.message);
  }

  /** A mistake of ours must not harm other connections. */
  #abandonAfter(error: unknown): void {
    this.#context.report({ kind: "internal-error", peer: this.peer.address, error });
    this.#transport.destroy(error instanceof Error ? error : new Error(String(error)));
    this.#finish("internal error");
  }

  /** A host that does not close its side in time is cut off. */
  #linger(reason: string): void {
    this.#cancelTimer?.();
    this.#cancelTimer = this.#context.clock.after(TERMINATION_MILLISECONDS, () => {
      this.#transport.destroy(new Error(reason));
    });
  }

  #finish(reason: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#deferred = [];
    for (const command of this.#transfers.abandon()) command.done = true;
    this.#context.connectionEnded(this);
    this.#role.disconnected(reason);
  }
}
