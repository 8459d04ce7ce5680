import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BuiltCommand } from "../e2e/built-command.js";

const PROJECT_ROOT = join(import.meta.dirname, "../..");
const START_MILLISECONDS = 30_000;
/** Exit status of `zcow check`. */
const LEAKS_ONLY = 3;

/** Built once per run of a test file: all its servers are of one state of the source. */
const PROGRAM_FOLDER = join(PROJECT_ROOT, ".cache/guest/command");
let builtCommand: Promise<BuiltCommand> | undefined;

export interface ImageWish {
  /** Name of the file in the folder of the images. */
  readonly name: string;
  /** As `zcow create` takes it: `1G`. */
  readonly size: string;
  /** After `-o`. Left out: an ordinary image. */
  readonly options?: string;
}

/** How images are served: by `zcow nvme` or `zcow nbd`. */
type ServingCommand = "nvme" | "nbd";

/** Where the port is in what each command says when it serves. */
const ANNOUNCED: Readonly<Record<ServingCommand, RegExp>> = {
  nvme: / -s (\d+) /,
  nbd: /^serving nbds?:\/\/127\.0\.0\.1:(\d+)\//,
};

/** Images in a folder of their own, served by the command as it is shipped, in a process that can be killed. */
export class ServedImages {
  /** Name of the subsystem. */
  readonly nqn = "nqn.2026-01.io.zcow:guest-test";
  readonly #command: BuiltCommand;
  readonly #folder: string;
  readonly #images: readonly ImageWish[];
  readonly #serverOptions: readonly string[];
  readonly #how: ServingCommand;
  #server: ChildProcess | undefined;
  #port = 0;
  #log = "";

  private constructor(
    command: BuiltCommand,
    folder: string,
    images: readonly ImageWish[],
    serverOptions: readonly string[],
    how: ServingCommand,
  ) {
    this.#command = command;
    this.#folder = folder;
    this.#images = images;
    this.#serverOptions = serverOptions;
    this.#how = how;
  }

  /** Makes the images and serves them with these further options of the command. */
  static async start(
    images: readonly ImageWish[],
    serverOptions: readonly string[] = [],
    how: ServingCommand = "nvme",
  ): Promise<ServedImages> {
    builtCommand ??= BuiltCommand.build(PROGRAM_FOLDER);
    const folder = mkdtempSync(join(tmpdir(), "zcow-served-"));
    const served = new ServedImages(await builtCommand, folder, images, serverOptions, how);
    for (const { name, size, options } of images) {
      const choice = options === undefined ? [] : ["-o", options];
      await served.#zcow([0], "create", "-q", "-f", "qcow2", ...choice, name, size);
    }
    await served.startServer();
    return served;
  }

  /** TCP port on the loopback; the same over all restarts. */
  get port(): number {
    return this.#port;
  }

  /** What the server has said on standard error since the first start. */
  get log(): string {
    return this.#log;
  }

  async startServer(): Promise<void> {
    const images = this.#images.map(({ name }) => join(this.#folder, name));
    const program = join(PROGRAM_FOLDER, "zcow.cjs");
    const where = {
      nvme: ["--nqn", this.nqn, "--listen", `127.0.0.1:${this.#port}`],
      nbd: ["-b", "127.0.0.1", "-p", `${this.#port}`],
    }[this.#how];
    const server = spawn(process.execPath, [program, this.#how, ...where, ...this.#serverOptions, ...images], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NODE_PATH: join(PROJECT_ROOT, "node_modules") },
    });
    this.#server = server;
    server.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#log += text;
    });
    this.#port = await announcedPort(server, ANNOUNCED[this.#how], () => this.#log);
  }

  /** SIGKILL: the process has no chance to write anything more. */
  async killServer(): Promise<void> {
    await this.#endServer("SIGKILL");
  }

  /** SIGTERM, and waits for the clean end. Throws when the exit status is not 0. */
  async stopServer(): Promise<void> {
    const status = await this.#endServer("SIGTERM");
    if (status !== 0) throw new Error(`the server exited with ${status}:\n${this.#log}`);
  }

  /** SIGSTOP and SIGCONT: a server that hangs for a while. */
  pauseServer(): void {
    this.#server?.kill("SIGSTOP");
  }

  resumeServer(): void {
    this.#server?.kill("SIGCONT");
  }

  /** What a crash of the whole machine would do to writes that were not flushed. The server must have been killed. */
  loseJournals(): void {
    for (const { name } of this.#images) rmSync(join(this.#folder, `${name}.zcow-journal`));
  }

  /** Throws unless `zcow check` finds every image clean. The server must not be running. */
  async expectClean(): Promise<void> {
    for (const { name } of this.#images) await this.#zcow([0], "check", "-f", "qcow2", name);
  }

  /**
   * Throws unless `zcow check` finds every image sound: a server that was killed may have taken clusters for which there was no
   * entry yet; the next one gives them back.
   */
  async expectSound(): Promise<void> {
    for (const { name } of this.#images) await this.#zcow([0, LEAKS_ONLY], "check", "-f", "qcow2", name);
  }

  /** Stops what runs and removes the images. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.killServer();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #endServer(signal: NodeJS.Signals): Promise<number | null> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return null;
    if (server.exitCode === null && server.signalCode === null) {
      server.kill(signal);
      await once(server, "exit");
    }
    return server.exitCode;
  }

  async #zcow(accepted: readonly (number | null)[], ...args: string[]): Promise<void> {
    const { code, stdout, stderr } = await this.#command.zcow(this.#folder, args);
    if (!accepted.includes(code)) throw new Error(`zcow ${args.join(" ")} exited with ${code}:\n${stdout}${stderr}`);
  }
}

/** The port that the server says it listens on, once it does. */
function announcedPort(server: ChildProcess, announced: RegExp, log: () => string): Promise<number> {
  return new Promise((resolve, reject) => {
    let said = "";
    const timer = setTimeout(() => reject(new Error(`the server says nothing: ${said}${log()}`)), START_MILLISECONDS);
    server.stdout?.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      const port = announced.exec(said)?.[1];
      if (port === undefined) return;
      clearTimeout(timer);
      resolve(Number(port));
    });
    server.on("exit", (status) => {
      clearTimeout(timer);
      reject(new Error(`the server exited with ${status} before it served:\n${log()}`));
    });
  });
}
