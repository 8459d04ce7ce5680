import { connect, type Socket } from "node:net";
import { crc32c } from "../../src/codec/crc32c.js";

/**
 * A host that does as little as possible per command, so that the server is what is measured. It checks that commands
 * succeed, not what data they bring: the tests do that.
 */

export interface HostSettings {
  readonly port: number;
  readonly nqn: string;
  readonly headerDigest: boolean;
  readonly dataDigest: boolean;
}

const HOST_NQN = "nqn.2026-01.zcow:bench";
const CAPSULE = 72;
const READ_BUFFER = 512 * 1024;

/** What a command needs. `data`: bytes for the server. */
export interface LoadCommand {
  readonly opcode: number;
  readonly nsid: number;
  readonly lba: number;
  readonly blocks: number;
  readonly data?: Uint8Array;
  readonly dword13?: number;
}

/** One queue. Commands are numbered by slots that the caller owns. */
export class LoadQueue {
  /** Called with the slot of every command that ended. */
  onDone: (slot: number) => void = () => undefined;
  readonly #socket: Socket;
  readonly #digests: { readonly header: number; readonly data: number };
  readonly #inCapsule: number;
  #waiting: { resolve: (result: number) => void; reject: (error: Error) => void } | undefined;
  #data = new Map<number, Uint8Array>();
  #out: Buffer[] = [];
  #rest: Buffer = Buffer.alloc(0);
  #skip = 0;
  #inTurn = false;

  private constructor(settings: HostSettings, inCapsule: number, onReady: () => void) {
    this.#digests = { header: settings.headerDigest ? 4 : 0, data: settings.dataDigest ? 4 : 0 };
    this.#inCapsule = inCapsule;
    this.#socket = connect(
      {
        port: settings.port,
        host: "127.0.0.1",
        noDelay: true,
        onread: {
          buffer: Buffer.allocUnsafeSlow(READ_BUFFER),
          callback: (bytes, buffer) => {
            this.#receive(Buffer.from(buffer.buffer, buffer.byteOffset, bytes));
            return true;
          },
        },
      },
      onReady,
    );
    this.#socket.on("error", (error) => this.#waiting?.reject(error));
    this.#socket.on("close", () => this.#waiting?.reject(new Error("the server closed the connection")));
  }

  /** Connects queue `queueId`; an admin queue (0) gets the number of its controller as `controllerId`. */
  static async open(
    settings: HostSettings,
    queueId: number,
    entries: number,
    controller = 0xffff,
  ): Promise<{ queue: LoadQueue; controllerId: number }> {
    const queue = await new Promise<LoadQueue>((resolve) => {
      const made: LoadQueue = new LoadQueue(settings, queueId === 0 ? 8192 : 8192, () => resolve(made));
    });
    const request = Buffer.alloc(128);
    request[2] = 128;
    request[4] = 128;
    request[11] = (settings.headerDigest ? 1 : 0) | (settings.dataDigest ? 2 : 0);
    await queue.#exchange(request);
    const data = Buffer.alloc(1024);
    data.fill(0x5a, 0, 16);
    data.writeUInt16LE(controller, 16);
    data.write(settings.nqn, 256);
    data.write(HOST_NQN, 512);
    const entry = Buffer.alloc(64);
    entry[0] = 0x7f;
    entry[1] = 0x40;
    entry[4] = 0x01;
    entry.writeUInt16LE(queueId, 42);
    entry.writeUInt16LE(entries - 1, 44);
    const result = await queue.#exchange(queue.#capsule(entry, data));
    return { queue, controllerId: result & 0xffff };
  }

  /** Enables the controller of an admin queue. */
  async enable(): Promise<void> {
    const entry = Buffer.alloc(64);
    entry[0] = 0x7f;
    entry[1] = 0x40;
    entry.writeUInt32LE(0x14, 44);
    entry.writeUInt32LE(0x0046_0061, 48);
    await this.#exchange(this.#capsule(entry, undefined));
  }

  /** Sends when the turn ends, or with everything else that a read from the socket gives rise to. */
  submit(slot: number, command: LoadCommand): void {
    const { opcode, nsid, lba, blocks, data } = command;
    const entry = Buffer.alloc(64);
    entry[0] = opcode;
    entry[1] = 0x40;
    entry.writeUInt16LE(slot, 2);
    entry.writeUInt32LE(nsid, 4);
    entry.writeUInt32LE(lba, 40);
    entry.writeUInt32LE(blocks === 0 ? 0 : blocks - 1, 48);
    entry.writeUInt32LE(command.dword13 ?? 0, 52);
    const inCapsule = data !== undefined && data.length <= this.#inCapsule;
    if (data !== undefined && !inCapsule) this.#data.set(slot, data);
    const length = data?.length ?? blocks * 4096;
    if (!inCapsule) {
      entry.writeUInt32LE(length, 32);
      entry[39] = 0x5a;
    }
    this.#out.push(this.#capsule(entry, inCapsule ? data : undefined));
    if (!this.#inTurn) this.#flush();
  }

  close(): void {
    this.#waiting = undefined;
    this.#socket.destroy();
  }

  #exchange(bytes: Buffer): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#socket.write(bytes);
    });
  }

  #capsule(entry: Buffer, data: Uint8Array | undefined): Buffer {
    const { header, data: dataDigest } = this.#digests;
    const dataLength = data === undefined ? 0 : data.length + dataDigest;
    const pdu = Buffer.allocUnsafe(CAPSULE + header + dataLength);
    pdu[0] = 0x04;
    pdu[1] = (header > 0 ? 1 : 0) | (data !== undefined && dataDigest > 0 ? 2 : 0);
    pdu[2] = CAPSULE;
    pdu[3] = data === undefined ? 0 : CAPSULE + header;
    pdu.writeUInt32LE(pdu.length, 4);
    pdu.set(entry, 8);
    if (data !== undefined) {
      pdu.fill(0, 32, 40);
      pdu.writeUInt32LE(data.length, 8 + 32);
      pdu[8 + 39] = 0x01;
      pdu.set(data, CAPSULE + header);
      if (dataDigest > 0) pdu.writeUInt32LE(crc32c(data, 0, data.length), CAPSULE + header + data.length);
    }
    if (header > 0) pdu.writeUInt32LE(crc32c(pdu, 0, CAPSULE), CAPSULE);
    return pdu;
  }

  #flush(): void {
    const out = this.#out;
    if (out.length === 0) return;
    this.#out = [];
    this.#socket.write(out.length === 1 ? (out[0] as Buffer) : Buffer.concat(out));
  }

  #receive(chunk: Buffer): void {
    this.#inTurn = true;
    let at = 0;
    if (this.#skip > 0) {
      at = Math.min(this.#skip, chunk.length);
      this.#skip -= at;
    }
    let bytes = chunk;
    if (this.#rest.length > 0 && at < chunk.length) {
      bytes = Buffer.concat([this.#rest, chunk.subarray(at)]);
      this.#rest = Buffer.alloc(0);
      at = 0;
    }
    while (at < bytes.length) {
      const left = bytes.length - at;
      if (left < 24 && (left < 8 || left < bytes.readUInt32LE(at + 4))) break;
      const type = bytes[at] as number;
      const length = bytes.readUInt32LE(at + 4);
      if (type === 0x07) {
        if (left >= length) at += length;
        else {
          this.#skip = length - left;
          at = bytes.length;
        }
        continue;
      }
      if (left < length) break;
      this.#act(type, bytes, at);
      at += length;
    }
    if (at < bytes.length) this.#rest = Buffer.from(bytes.subarray(at));
    this.#inTurn = false;
    this.#flush();
  }

  #act(type: number, bytes: Buffer, at: number): void {
    if (type === 0x05) this.#completed(bytes, at + 8);
    else if (type === 0x09) this.#sendData(bytes, at);
    else if (type === 0x01) this.#answered(0);
    else throw new Error(`PDU of type ${type}`);
  }

  #completed(bytes: Buffer, entry: number): void {
    const status = bytes.readUInt16LE(entry + 14) >>> 1;
    if (status !== 0) throw new Error(`command ended with status 0x${status.toString(16)}`);
    if (this.#waiting !== undefined) this.#answered(bytes.readUInt32LE(entry));
    else this.onDone(bytes.readUInt16LE(entry + 12));
  }

  #answered(result: number): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.resolve(result);
  }

  #sendData(bytes: Buffer, at: number): void {
    const slot = bytes.readUInt16LE(at + 8);
    const offset = bytes.readUInt32LE(at + 12);
    const length = bytes.readUInt32LE(at + 16);
    const { header, data: digest } = this.#digests;
    const all = this.#data.get(slot) as Uint8Array;
    const data = all.subarray(offset, offset + length);
    const pdu = Buffer.allocUnsafe(24 + header);
    pdu.fill(0);
    pdu[0] = 0x06;
    pdu[1] = 4 | (header > 0 ? 1 : 0) | (digest > 0 ? 2 : 0);
    pdu[2] = 24;
    pdu[3] = 24 + header;
    pdu.writeUInt32LE(24 + header + length + digest, 4);
    pdu.writeUInt16LE(slot, 8);
    pdu.writeUInt16LE(bytes.readUInt16LE(at + 10), 10);
    pdu.writeUInt32LE(offset, 12);
    pdu.writeUInt32LE(length, 16);
    if (header > 0) pdu.writeUInt32LE(crc32c(pdu, 0, 24), 24);
    this.#flush();
    this.#socket.cork();
    this.#socket.write(pdu);
    this.#socket.write(data);
    if (digest > 0) {
      const tail = Buffer.alloc(4);
      tail.writeUInt32LE(crc32c(data, 0, length));
      this.#socket.write(tail);
    }
    this.#socket.uncork();
  }
}
