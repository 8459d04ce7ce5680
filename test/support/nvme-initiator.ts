/**
 * A small NVMe/TCP host for tests and load. Written from the specification alone: it shares no encoder, constant or
 * checksum with the target, so that a mistake there cannot hide here. Works over any `HostStream`: a pipe in memory or a socket.
 */

/** The host's end of a connection. */
export interface HostStream {
  write(bytes: Uint8Array): void;
  onData(listener: (bytes: Uint8Array) => void): void;
  onClose(listener: () => void): void;
  close(): void;
}

/** CRC32C one bit at a time, eight entries of a table at once: slow and plain. */
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value;
});

export function referenceCrc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (CRC_TABLE[(crc ^ byte) & 0xff] as number) ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

export interface QueueOptions {
  readonly headerDigest?: boolean;
  readonly dataDigest?: boolean;
  /** HPDA as sent: (n + 1) * 4 bytes. */
  readonly hpda?: number;
  /** Write data up to this many bytes goes in the capsule. Default 0. */
  readonly inCapsule?: number;
  /** Connect with CATTR bit 2. */
  readonly disableFlowControl?: boolean;
}

export interface CommandFields {
  readonly opcode: number;
  readonly flags?: number;
  readonly id?: number;
  readonly nsid?: number;
  readonly dword10?: number;
  readonly dword11?: number;
  readonly dword12?: number;
  readonly dword13?: number;
  readonly dword14?: number;
  readonly dword15?: number;
  /** Data for the controller. */
  readonly data?: Uint8Array;
  /** Bytes of room for data from the controller. */
  readonly room?: number;
  /** Overrides the choice of SGL: the 16 bytes of the descriptor. */
  readonly sgl?: Uint8Array;
}

export interface Completion {
  /** SC and SCT: SCT * 256 + SC. */
  readonly status: number;
  readonly doNotRetry: boolean;
  readonly low: number;
  readonly high: number;
  readonly sqHead: number;
  readonly sqId: number;
  readonly data: Uint8Array;
  /** It came as SUCCESS on the data, without a capsule. */
  readonly onData: boolean;
}

export interface Termination {
  readonly fes: number;
  readonly fei: number;
  /** What the target sent back of the PDU. */
  readonly header: Uint8Array;
}

/** A request for data that the host has not answered. */
export interface DataRequest {
  readonly commandId: number;
  readonly tag: number;
  readonly offset: number;
  readonly length: number;
}

interface Waiting {
  readonly fields: CommandFields;
  readonly resolve: (completion: Completion) => void;
  readonly reject: (error: Error) => void;
  readonly room: Uint8Array;
  received: number;
}

export class ConnectionEnded extends Error {
  readonly termination: Termination | undefined;
  constructor(termination: Termination | undefined) {
    super(termination === undefined ? "connection closed" : `terminated with FES ${termination.fes}`);
    this.termination = termination;
  }
}

export class HostQueue {
  readonly stream: HostStream;
  options: QueueOptions;
  /** Answer R2Ts as they come. Off: they are kept in `dataRequests`. */
  answerDataRequests = true;
  readonly dataRequests: DataRequest[] = [];
  maxH2cData = 0;
  termination: Termination | undefined = undefined;
  closed = false;
  /** Largest number of PDUs of write data seen for one R2T, and R2Ts seen. */
  r2tCount = 0;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 0;
  #input = new Uint8Array(0);
  #initialized: ((view: DataView) => void) | undefined;
  readonly #closeListeners: (() => void)[] = [];

  constructor(stream: HostStream, options: QueueOptions = {}) {
    this.stream = stream;
    this.options = options;
    stream.onData((bytes) => this.#receive(bytes));
    stream.onClose(() => this.#close());
  }

  /** ICReq, and waits for ICResp. Checks what Linux checks. */
  async initialize(): Promise<void> {
    const { headerDigest = false, dataDigest = false, hpda = 0 } = this.options;
    const reply = new Promise<DataView>((resolve, reject) => {
      this.#initialized = resolve;
      this.#closeListeners.push(() => reject(new ConnectionEnded(this.termination)));
    });
    this.stream.write(icReq({ hpda, digests: (headerDigest ? 1 : 0) | (dataDigest ? 2 : 0) }));
    const view = await reply;
    const digests = (headerDigest ? 1 : 0) | (dataDigest ? 2 : 0);
    const fine = view.getUint16(8, true) === 0 && view.getUint8(10) === 0 && view.getUint8(11) === digests;
    this.maxH2cData = view.getUint32(12, true);
    if (!fine || this.maxH2cData < 4096 || this.maxH2cData % 4 !== 0) throw new Error("ICResp is not acceptable");
  }

  /** Sends a command and waits for its completion. */
  command(fields: CommandFields): Promise<Completion> {
    const id = fields.id ?? this.#freeId();
    const promise = new Promise<Completion>((resolve, reject) => {
      const room = new Uint8Array(fields.room ?? 0);
      this.#waiting.set(id, { fields, resolve, reject, room, received: 0 });
    });
    if (this.closed) this.#close();
    else this.stream.write(this.encodeCapsule(id, fields));
    return promise;
  }

  get outstanding(): number {
    return this.#waiting.size;
  }

  /** A command capsule with everything in it that it should have. */
  encodeCapsule(id: number, fields: CommandFields): Uint8Array {
    const { data } = fields;
    const inCapsule = data !== undefined && data.length <= (this.options.inCapsule ?? 0) && fields.sgl === undefined;
    const header = new Uint8Array(72);
    const view = new DataView(header.buffer);
    header[0] = 4;
    header[2] = 72;
    view.setUint8(8, fields.opcode);
    view.setUint8(9, fields.flags ?? 0x40);
    view.setUint16(10, id, true);
    view.setUint32(12, fields.nsid ?? 0, true);
    const moved = data !== undefined || fields.room !== undefined;
    if (fields.sgl !== undefined) header.set(fields.sgl, 32);
    else if (moved) {
      view.setUint32(40, data?.length ?? fields.room ?? 0, true);
      header[47] = inCapsule ? 0x01 : 0x5a;
    }
    const dwords = [fields.dword10, fields.dword11, fields.dword12, fields.dword13, fields.dword14, fields.dword15];
    dwords.forEach((value, index) => {
      view.setUint32(48 + index * 4, (value ?? 0) >>> 0, true);
    });
    return this.frame(header, inCapsule ? data : undefined);
  }

  /** Puts PLEN, PDO, flags and digests to a header, and the data behind it. */
  frame(header: Uint8Array, data?: Uint8Array): Uint8Array {
    const { headerDigest = false, dataDigest = false } = this.options;
    const headerEnd = header.length + (headerDigest ? 4 : 0);
    const total = headerEnd + (data === undefined ? 0 : data.length + (dataDigest ? 4 : 0));
    const bytes = new Uint8Array(total);
    const view = new DataView(bytes.buffer);
    bytes.set(header);
    if (headerDigest) bytes[1] = (bytes[1] as number) | 1;
    if (dataDigest && data !== undefined) bytes[1] = (bytes[1] as number) | 2;
    if (data !== undefined) bytes[3] = headerEnd;
    view.setUint32(4, total, true);
    if (headerDigest) view.setUint32(header.length, referenceCrc32c(bytes.subarray(0, header.length)), true);
    if (data !== undefined) {
      bytes.set(data, headerEnd);
      if (dataDigest) view.setUint32(headerEnd + data.length, referenceCrc32c(data), true);
    }
    return bytes;
  }

  /** An H2CData PDU. */
  encodeData(request: { commandId: number; tag: number }, offset: number, data: Uint8Array, last: boolean): Uint8Array {
    const header = new Uint8Array(24);
    const view = new DataView(header.buffer);
    header[0] = 6;
    header[1] = last ? 4 : 0;
    header[2] = 24;
    view.setUint16(8, request.commandId, true);
    view.setUint16(10, request.tag, true);
    view.setUint32(12, offset, true);
    view.setUint32(16, data.length, true);
    return this.frame(header, data);
  }

  /** Answers a kept R2T. */
  answer(request: DataRequest): void {
    const data = this.#waiting.get(request.commandId)?.fields.data;
    if (data === undefined) throw new Error(`R2T for command ${request.commandId}, which has no data`);
    for (let at = 0; at < request.length; at += this.maxH2cData) {
      const length = Math.min(this.maxH2cData, request.length - at);
      const from = request.offset + at;
      const last = at + length === request.length;
      this.stream.write(this.encodeData(request, from, data.subarray(from, from + length), last));
    }
  }

  /** Resolves when the target has closed the connection. */
  untilClosed(): Promise<void> {
    return this.closed ? Promise.resolve() : new Promise((resolve) => this.#closeListeners.push(resolve));
  }

  close(): void {
    this.stream.close();
    this.#close();
  }

  #freeId(): number {
    while (this.#waiting.has(this.#nextId)) this.#nextId = (this.#nextId + 1) & 0xffff;
    const id = this.#nextId;
    this.#nextId = (this.#nextId + 1) & 0xffff;
    return id;
  }

  #close(): void {
    this.closed = true;
    for (const listener of this.#closeListeners.splice(0)) listener();
    const error = new ConnectionEnded(this.termination);
    for (const [id, waiting] of this.#waiting) {
      this.#waiting.delete(id);
      waiting.reject(error);
    }
  }

  #receive(bytes: Uint8Array): void {
    let input = bytes;
    if (this.#input.length > 0) {
      input = new Uint8Array(this.#input.length + bytes.length);
      input.set(this.#input);
      input.set(bytes, this.#input.length);
    }
    let at = 0;
    while (input.length - at >= 8) {
      const view = new DataView(input.buffer, input.byteOffset + at, input.length - at);
      const length = view.getUint32(4, true);
      if (length < 8) throw new Error(`PDU of ${length} bytes`);
      if (input.length - at < length) break;
      this.#pdu(input.subarray(at, at + length));
      at += length;
    }
    this.#input = input.slice(at);
  }

  #pdu(pdu: Uint8Array): void {
    const view = new DataView(pdu.buffer, pdu.byteOffset, pdu.byteLength);
    const type = pdu[0];
    const headerLength = pdu[2] as number;
    if (type === 1) {
      this.#initialized?.(new DataView(pdu.slice().buffer));
      return;
    }
    if (type === 3) {
      this.termination = { fes: view.getUint16(8, true), fei: view.getUint32(10, true), header: pdu.slice(24) };
      return;
    }
    this.#checkDigests(pdu, view, headerLength);
    if (type === 5) this.#completion(view, 8);
    else if (type === 7) this.#data(pdu, view);
    else if (type === 9) this.#r2t(view);
    else throw new Error(`PDU of type ${type} from the controller`);
  }

  #checkDigests(pdu: Uint8Array, view: DataView, headerLength: number): void {
    const { headerDigest = false, dataDigest = false } = this.options;
    if (headerDigest !== ((pdu[1] as number) & 1) > 0) throw new Error("HDGST flag is wrong");
    if (headerDigest && view.getUint32(headerLength, true) !== referenceCrc32c(pdu.subarray(0, headerLength))) {
      throw new Error("header digest is wrong");
    }
    if (pdu[0] !== 7 || !dataDigest) return;
    const end = pdu.length - 4;
    if (view.getUint32(end, true) !== referenceCrc32c(pdu.subarray(pdu[3], end))) {
      throw new Error("data digest is wrong");
    }
  }

  #completion(view: DataView, at: number): void {
    const id = view.getUint16(at + 12, true);
    const field = view.getUint16(at + 14, true);
    this.#complete(id, {
      status: (field >>> 1) & 0x7ff,
      doNotRetry: field >>> 15 === 1,
      low: view.getUint32(at, true),
      high: view.getUint32(at + 4, true),
      sqHead: view.getUint16(at + 8, true),
      sqId: view.getUint16(at + 10, true),
      onData: false,
    });
  }

  #complete(id: number, completion: Omit<Completion, "data">): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) throw new Error(`completion of command ${id}, which is not in flight`);
    this.#waiting.delete(id);
    waiting.resolve({ ...completion, data: waiting.room.subarray(0, waiting.received) });
  }

  #data(pdu: Uint8Array, view: DataView): void {
    const id = view.getUint16(8, true);
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) throw new Error(`data for command ${id}, which is not in flight`);
    const dataOffset = pdu[3] as number;
    const alignment = ((this.options.hpda ?? 0) + 1) * 4;
    if (dataOffset % alignment !== 0) throw new Error(`PDO ${dataOffset} breaks HPDA`);
    const length = view.getUint32(16, true);
    waiting.room.set(pdu.subarray(dataOffset, dataOffset + length), view.getUint32(12, true));
    waiting.received += length;
    const flags = pdu[1] as number;
    if ((flags & 8) !== 0) {
      if ((flags & 4) === 0) throw new Error("SUCCESS without LAST");
      const plain = { status: 0, doNotRetry: false, low: 0, high: 0, sqHead: 0, sqId: 0 };
      this.#complete(id, { ...plain, onData: true });
    }
  }

  #r2t(view: DataView): void {
    this.r2tCount += 1;
    const request = {
      commandId: view.getUint16(8, true),
      tag: view.getUint16(10, true),
      offset: view.getUint32(12, true),
      length: view.getUint32(16, true),
    };
    if (this.answerDataRequests) this.answer(request);
    else this.dataRequests.push(request);
  }
}

export function icReq(fields: { pfv?: number; hpda?: number; digests?: number; maxR2t?: number } = {}): Uint8Array {
  const bytes = new Uint8Array(128);
  const view = new DataView(bytes.buffer);
  bytes[2] = 128;
  view.setUint32(4, 128, true);
  view.setUint16(8, fields.pfv ?? 0, true);
  bytes[10] = fields.hpda ?? 0;
  bytes[11] = fields.digests ?? 0;
  view.setUint32(12, fields.maxR2t ?? 0, true);
  return bytes;
}

export interface ConnectFields {
  readonly subsystemNqn: string;
  readonly hostNqn?: string;
  /** One byte, repeated. */
  readonly hostId?: number;
  readonly queueId?: number;
  /** SQSIZE as sent, from 0. */
  readonly queueSize?: number;
  readonly controllerId?: number;
  /** Milliseconds. */
  readonly keepAlive?: number;
  readonly recordFormat?: number;
}

export const HOST_NQN = "nqn.2014-08.org.nvmexpress:uuid:6f1a2b3c-0000-4000-8000-000000000001";

/** The Connect command of a queue. */
export function connectCommand(fields: ConnectFields, options: QueueOptions = {}): CommandFields {
  const data = new Uint8Array(1024);
  const text = new TextEncoder();
  data.fill(fields.hostId ?? 0x11, 0, 16);
  new DataView(data.buffer).setUint16(16, fields.controllerId ?? 0xffff, true);
  data.set(text.encode(fields.subsystemNqn), 256);
  data.set(text.encode(fields.hostNqn ?? HOST_NQN), 512);
  const attributes = options.disableFlowControl === true ? 4 : 0;
  return {
    opcode: 0x7f,
    nsid: 0x01,
    dword10: ((fields.queueId ?? 0) << 16) | (fields.recordFormat ?? 0),
    dword11: (fields.queueSize ?? 31) | (attributes << 16),
    dword12: fields.keepAlive ?? 0,
    data,
  };
}

/** Opens the streams of a host's connections. */
export type OpenStream = () => HostStream | Promise<HostStream>;

/** A queue that has gone through ICReq and Connect; `completion` is that of Connect. */
export async function connectQueue(
  open: OpenStream,
  fields: ConnectFields,
  options: QueueOptions = {},
): Promise<{ queue: HostQueue; completion: Completion }> {
  // Connect carries its data in the capsule, whatever later commands do.
  const queue = new HostQueue(await open(), { ...options, inCapsule: Math.max(options.inCapsule ?? 0, 1024) });
  await queue.initialize();
  const completion = await queue.command(connectCommand(fields, options));
  queue.options = options;
  return { queue, completion };
}

/** An association: an admin queue with an enabled controller, and I/O queues. */
export class NvmeHost {
  readonly admin: HostQueue;
  readonly controllerId: number;
  readonly queues: HostQueue[] = [];
  readonly #open: OpenStream;
  readonly #fields: ConnectFields;
  readonly #options: QueueOptions;

  private constructor(open: OpenStream, fields: ConnectFields, options: QueueOptions, admin: HostQueue, id: number) {
    this.#open = open;
    this.#fields = fields;
    this.#options = options;
    this.admin = admin;
    this.controllerId = id;
  }

  /** Connects, enables the controller, and connects `queues` I/O queues. Fails on any error status. */
  static async connect(
    open: OpenStream,
    fields: ConnectFields,
    options: QueueOptions = {},
    queues = 1,
  ): Promise<NvmeHost> {
    const { queue, completion } = await connectQueue(open, fields, options);
    if (completion.status !== 0) throw new Error(`Connect ended with status 0x${completion.status.toString(16)}`);
    const host = new NvmeHost(open, fields, options, queue, completion.low & 0xffff);
    await host.enable();
    for (let index = 0; index < queues; index++) await host.addQueue();
    return host;
  }

  async enable(): Promise<void> {
    await this.setProperty(0x14, 0x0046_0061);
    if (((await this.getProperty(0x1c)) & 1) === 0) throw new Error("the controller is not ready");
  }

  async addQueue(queueSize = 127): Promise<HostQueue> {
    const queueId = this.queues.length + 1;
    const fields = { ...this.#fields, queueId, queueSize, controllerId: this.controllerId };
    const { queue, completion } = await connectQueue(this.#open, fields, this.#options);
    if (completion.status !== 0) throw new Error(`I/O Connect ended with status 0x${completion.status.toString(16)}`);
    this.queues.push(queue);
    return queue;
  }

  get io(): HostQueue {
    return this.queues[0] as HostQueue;
  }

  async getProperty(offset: number): Promise<number> {
    const { status, low } = await this.admin.command({ opcode: 0x7f, nsid: 0x04, dword11: offset });
    if (status !== 0) throw new Error(`Property Get ${offset} ended with status 0x${status.toString(16)}`);
    return low;
  }

  async setProperty(offset: number, value: number): Promise<void> {
    const { status } = await this.admin.command({ opcode: 0x7f, nsid: 0x00, dword11: offset, dword12: value });
    if (status !== 0) throw new Error(`Property Set ${offset} ended with status 0x${status.toString(16)}`);
  }

  identify(cns: number, nsid = 0, csi = 0): Promise<Completion> {
    return this.admin.command({ opcode: 0x06, nsid, dword10: cns, dword11: (csi << 24) >>> 0, room: 4096 });
  }

  logPage(page: number, length: number, more: { nsid?: number; offset?: number; csi?: number; retain?: boolean } = {}) {
    const dwords = length / 4 - 1;
    return this.admin.command({
      opcode: 0x02,
      nsid: more.nsid ?? 0xffffffff,
      dword10: page | ((more.retain === true ? 1 : 0) << 15) | ((dwords & 0xffff) << 16),
      dword11: dwords >>> 16,
      dword12: more.offset ?? 0,
      dword14: ((more.csi ?? 0) << 24) >>> 0,
      room: length,
    });
  }

  close(): void {
    for (const queue of this.queues) queue.close();
    this.admin.close();
  }
}

/** Commands of the I/O command sets, as fields. Blocks are those of the namespace. */
export const ioCommand = {
  flush: (nsid: number): CommandFields => ({ opcode: 0x00, nsid }),
  write: (nsid: number, lba: number, blocks: number, data: Uint8Array, fua = false): CommandFields => ({
    ...transfer(0x01, nsid, lba, blocks, fua),
    data,
  }),
  read: (nsid: number, lba: number, blocks: number, blockSize: number, fua = false): CommandFields => ({
    ...transfer(0x02, nsid, lba, blocks, fua),
    room: blocks * blockSize,
  }),
  compare: (nsid: number, lba: number, blocks: number, data: Uint8Array): CommandFields => ({
    ...transfer(0x05, nsid, lba, blocks),
    data,
  }),
  writeZeroes: (nsid: number, lba: number, blocks: number): CommandFields => transfer(0x08, nsid, lba, blocks),
  verify: (nsid: number, lba: number, blocks: number): CommandFields => transfer(0x0c, nsid, lba, blocks),
  append: (nsid: number, lba: number, blocks: number, data: Uint8Array): CommandFields => ({
    ...transfer(0x7d, nsid, lba, blocks),
    data,
  }),
  /** Deallocate. */
  deallocate: (nsid: number, ranges: readonly { lba: number; blocks: number }[]): CommandFields => {
    const data = new Uint8Array(ranges.length * 16);
    const view = new DataView(data.buffer);
    ranges.forEach(({ lba, blocks }, index) => {
      view.setUint32(index * 16 + 4, blocks, true);
      view.setBigUint64(index * 16 + 8, BigInt(lba), true);
    });
    return { opcode: 0x09, nsid, dword10: ranges.length - 1, dword11: 4, data };
  },
  copy: (nsid: number, lba: number, ranges: readonly { lba: number; blocks: number }[]): CommandFields => {
    const data = new Uint8Array(ranges.length * 32);
    const view = new DataView(data.buffer);
    ranges.forEach((range, index) => {
      view.setBigUint64(index * 32 + 8, BigInt(range.lba), true);
      view.setUint16(index * 32 + 16, range.blocks - 1, true);
    });
    return { ...transfer(0x19, nsid, lba, 1), dword12: ranges.length - 1, data };
  },
  zoneSend: (nsid: number, lba: number, action: number, all = false): CommandFields => ({
    ...transfer(0x79, nsid, lba, 1),
    dword12: 0,
    dword13: action | (all ? 0x100 : 0),
  }),
  zoneReport: (nsid: number, lba: number, length: number, filter = 0, partial = false, action = 0): CommandFields => ({
    ...transfer(0x7a, nsid, lba, 1),
    dword12: length / 4 - 1,
    dword13: action | (filter << 8) | (partial ? 0x1_0000 : 0),
    room: length,
  }),
};

function transfer(opcode: number, nsid: number, lba: number, blocks: number, fua = false): CommandFields {
  return {
    opcode,
    nsid,
    dword10: lba % 0x1_0000_0000,
    dword11: Math.floor(lba / 0x1_0000_0000),
    dword12: (blocks - 1) | (fua ? 0x4000_0000 : 0),
  };
}

/** A zone report as fields. Positions and lengths in blocks. */
export interface ReportedZone {
  readonly type: number;
  readonly state: number;
  readonly capacity: number;
  readonly start: number;
  readonly writePointer: number;
}

export function parseZoneReport(data: Uint8Array): { count: number; zones: ReportedZone[] } {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const count = Number(view.getBigUint64(0, true));
  const zones: ReportedZone[] = [];
  for (let at = 64; at + 64 <= data.length && zones.length < count; at += 64) {
    zones.push({
      type: data[at] as number,
      state: (data[at + 1] as number) >>> 4,
      capacity: Number(view.getBigUint64(at + 8, true)),
      start: Number(view.getBigUint64(at + 16, true)),
      writePointer: Number(view.getBigUint64(at + 24, true)),
    });
  }
  return { count, zones };
}
