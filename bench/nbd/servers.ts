import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { connect } from "node:net";

/** Where a server's disks lie. */
export interface Disks {
  /** Two images with the same contents: two programs that write to one would lock each other out. */
  readonly ours: string;
  readonly peer: string;
  /** The same disk, raw. */
  readonly raw: string;
}

/** Where a server listens: at a port of the loopback, or at a Unix socket of this path. */
export type ListenAt = { readonly port: number } | { readonly path: string };

/** The options that say so: `unix` takes the path, `loopback` is what the port needs besides. */
function listens(at: ListenAt, unix: string, loopback: readonly string[] = []): string[] {
  return "path" in at ? [unix, at.path] : [...loopback, "-p", String(at.port)];
}

export interface ServerKind {
  readonly name: string;
  command(disks: Disks, at: ListenAt, direct: boolean): readonly [program: string, ...args: string[]];
}

const ZCOW = new URL("../cli/zcow.js", import.meta.url).pathname;
const CONNECTIONS = "16";

export const OURS: ServerKind = {
  name: "zcow",
  command: ({ ours }, at, direct) => [
    ...([process.execPath, ZCOW, "nbd", "-f", "qcow2"] as const),
    ...listens(at, "-k"),
    ...(direct ? ["--cache", "none"] : []),
    ours,
  ],
};

function qemuNbd(name: string, aio: "threads" | "io_uring"): ServerKind {
  return {
    name,
    command: ({ peer }, at, direct) => {
      // Both kinds of it work on one image, in turns.
      const file = `driver=qcow2,file.driver=file,file.locking=off,file.filename=${peer},file.aio=${aio}`;
      return [
        ...(["qemu-nbd", "-t", "-e", CONNECTIONS, `--aio=${aio}`] as const),
        ...listens(at, "-k", ["-b", "127.0.0.1"]),
        `--cache=${direct ? "none" : "writeback"}`,
        "--image-opts",
        direct ? `${file},file.cache.direct=on,cache.direct=on` : file,
      ];
    },
  };
}

export const QEMU_THREADS = qemuNbd("qemu-nbd", "threads");
export const QEMU_RING = qemuNbd("qemu-nbd io_uring", "io_uring");
export const NBDKIT: ServerKind = {
  name: "nbdkit raw",
  command: ({ raw }, at) => ["nbdkit", "-f", ...listens(at, "-U", ["-i", "127.0.0.1"]), "file", raw],
};

/** Reads nothing and stores nothing: how fast the client can be. Takes part when it is named. */
export const CEILING: ServerKind = {
  name: "nbdkit null",
  command: ({ raw }, at) => [
    "nbdkit",
    "-f",
    ...listens(at, "-U", ["-i", "127.0.0.1"]),
    "null",
    String(statSync(raw).size),
  ],
};

/** Clock ticks of the kernel in /proc, per second: the same on every architecture that Linux still has. */
const TICKS = 100;

/** A server that runs until `stop`. */
export class RunningServer {
  readonly kind: ServerKind;
  readonly uri: string;
  readonly #child: ChildProcess;

  private constructor(kind: ServerKind, uri: string, child: ChildProcess) {
    this.kind = kind;
    this.uri = uri;
    this.#child = child;
  }

  static async start(kind: ServerKind, disks: Disks, at: ListenAt, direct = false): Promise<RunningServer> {
    const [program, ...args] = kind.command(disks, at, direct);
    const { NODE_EXTRA_CA_CERTS: _dropped, ...env } = process.env;
    const child = spawn(program, args, { env, stdio: ["ignore", "ignore", "inherit"] });
    const uri = "path" in at ? `nbd+unix:///?socket=${at.path}` : `nbd://127.0.0.1:${at.port}/`;
    const server = new RunningServer(kind, uri, child);
    try {
      await reachable(at, child);
    } catch (error) {
      await server.stop();
      throw error;
    }
    return server;
  }

  /** Processor time of all its threads so far. */
  get cpuSeconds(): number {
    const fields = readFileSync(`/proc/${this.#pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
    return (Number(fields[11]) + Number(fields[12])) / TICKS;
  }

  get peakMiB(): number {
    return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${this.#pid}/status`, "utf8"))?.[1]) / 1024;
  }

  /** Lets its threads run on these processors only, as in `0` or `0-3`. */
  pin(processors: string): void {
    const { status } = spawnSync("taskset", ["-a", "-p", "-c", processors, String(this.#pid)]);
    if (status !== 0) throw new Error("taskset failed");
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.kill("SIGTERM");
    await gone;
  }

  get #pid(): number {
    return this.#child.pid as number;
  }
}

const START_MILLISECONDS = 10_000;

async function reachable(at: ListenAt, child: ChildProcess): Promise<void> {
  const end = Date.now() + START_MILLISECONDS;
  for (;;) {
    const there = await new Promise<boolean>((resolve) => {
      const socket = connect("path" in at ? at : { ...at, host: "127.0.0.1" }, () => {
        socket.destroy();
        resolve(true);
      });
      socket.once("error", () => resolve(false));
    });
    if (there) return;
    if (child.exitCode !== null || Date.now() > end) {
      throw new Error(`no server at ${"path" in at ? at.path : at.port}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
