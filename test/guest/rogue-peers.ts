import { setTimeout as sleep } from "node:timers/promises";
import { ConnectionEnded, icReq, ioCommand, NvmeHost } from "../support/nvme-initiator.js";
import { closed, rawSocket, tcpStream } from "../support/nvme-sockets.js";
import { Random } from "../support/random.js";

const ROGUE_NQN = "nqn.2026-01.test:rogue";
const BLOCK = 4096;
/** What a cut write would have put on the disk, blocks from the first one on. */
const CUT_BLOCKS = 8;
/** Between two rounds, milliseconds: the guest is slow, and shall get on. */
const PAUSE = 50;

/** What the peers have done. */
export interface Misdeeds {
  /** Connections that sent garbage. */
  readonly garbage: number;
  /** Writes whose connection was cut in the middle of the data. */
  readonly cutWrites: number;
}

/**
 * Peers on this machine that keep to no rule, for as long as a guest works on another namespace of the same server: some send
 * garbage, before the connection is initialized or after it; others leave in the middle of the data of a write.
 */
export class RoguePeers {
  readonly #port: number;
  readonly #nqn: string;
  readonly #nsid: number;
  readonly #random = new Random(20260102);
  readonly #work: Promise<void>;
  #garbage = 0;
  #cutWrites = 0;
  #stopped = false;

  /** Against the server at `port`, with writes to namespace `nsid` of subsystem `nqn`, which takes several hosts. */
  constructor(port: number, nqn: string, nsid: number) {
    this.#port = port;
    this.#nqn = nqn;
    this.#nsid = nsid;
    this.#work = this.#misbehave();
    // Told by `stop`.
    this.#work.catch(() => undefined);
  }

  /** Waits for the round under way. Fails when the server did something else than to drop the offender. */
  async stop(): Promise<Misdeeds> {
    this.#stopped = true;
    await this.#work;
    return { garbage: this.#garbage, cutWrites: this.#cutWrites };
  }

  async #misbehave(): Promise<void> {
    while (!this.#stopped) {
      await this.#sendGarbage(false);
      await this.#sendGarbage(true);
      await this.#cutWrite();
      await sleep(PAUSE);
    }
  }

  async #sendGarbage(initialized: boolean): Promise<void> {
    const socket = await rawSocket(this.#port);
    const gone = closed(socket);
    if (initialized) socket.write(icReq());
    socket.end(Uint8Array.from({ length: 1 + this.#random.below(600) }, () => this.#random.below(256)));
    await gone;
    this.#garbage += 1;
  }

  async #cutWrite(): Promise<void> {
    const fields = { subsystemNqn: this.#nqn, hostNqn: ROGUE_NQN, hostId: 0x66 };
    const host = await NvmeHost.connect(() => tcpStream(this.#port), fields);
    host.io.answerDataRequests = false;
    const data = new Uint8Array(CUT_BLOCKS * BLOCK).fill(0x66);
    const write = host.io.command(ioCommand.write(this.#nsid, 0, CUT_BLOCKS, data));
    while (host.io.dataRequests.length === 0 && !host.io.closed) await sleep(1);
    const [request] = host.io.dataRequests;
    if (request !== undefined) {
      const part = data.subarray(0, 1 + this.#random.below(data.length - 1));
      host.io.stream.write(host.io.encodeData(request, 0, part, false).subarray(0, part.length));
    }
    host.close();
    const outcome = await write.catch((error: unknown) => error);
    if (request === undefined || !(outcome instanceof ConnectionEnded)) {
      throw new Error("the server did not ask for the data of a write", { cause: outcome });
    }
    this.#cutWrites += 1;
  }
}
