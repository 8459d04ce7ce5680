import type { ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import type { BuiltCommand } from "../e2e/built-command.js";
import { NvmeHost, type QueueOptions } from "./nvme-initiator.js";
import { tcpStream } from "./nvme-sockets.js";

/** `zcow nvme` as a process of its own. */
export class NvmeServerProcess {
  readonly port: number;
  readonly nqn: string;
  /** Everything on standard output before it was ready. */
  readonly banner: string;
  readonly #child: ChildProcess;
  readonly #exited: Promise<number | null>;
  readonly #errors: string[];

  private constructor(child: ChildProcess, exited: Promise<number | null>, banner: string, errors: string[]) {
    this.#child = child;
    this.#exited = exited;
    this.#errors = errors;
    this.banner = banner;
    const line = /-s (\d+) -n (\S+)/.exec(banner);
    this.port = Number(line?.[1]);
    this.nqn = line?.[2] ?? "";
  }

  /** Resolves when the line to connect with was printed. */
  static start(command: BuiltCommand, args: readonly string[]): Promise<NvmeServerProcess> {
    const child = command.spawn(["nvme", "--listen", "127.0.0.1:0", ...args]);
    const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
    const errors: string[] = [];
    child.stderr?.on("data", (chunk: Buffer) => errors.push(chunk.toString()));
    return new Promise((resolve, reject) => {
      let banner = "";
      createInterface({ input: child.stdout as NonNullable<typeof child.stdout> }).on("line", (line) => {
        banner += `${line}\n`;
        if (line.includes("nvme connect")) resolve(new NvmeServerProcess(child, exited, banner, errors));
      });
      void exited.then((code) => reject(new Error(`zcow nvme ended with ${code}: ${errors.join("")}`)));
    });
  }

  /** Bytes of memory that the process occupies now. */
  residentBytes(): number {
    const status = readFileSync(`/proc/${this.#child.pid}/status`, "utf8");
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
  }

  get log(): string {
    return this.#errors.join("");
  }

  host(options: QueueOptions = {}, queues = 1): Promise<NvmeHost> {
    return NvmeHost.connect(() => tcpStream(this.port), { subsystemNqn: this.nqn }, options, queues);
  }

  /** Ends it by a signal; resolves to the exit status, null when the signal itself ended it. */
  stop(signal: NodeJS.Signals = "SIGTERM"): Promise<number | null> {
    this.#child.kill(signal);
    return this.#exited;
  }
}
