import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createCipheriv } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ensureGuestFiles, type GuestFiles, type GuestKernel } from "./guest-files.js";

const BOOT_MILLISECONDS = 60_000;
/** An oops of the emulated processor at boot says nothing about what is under test; see `Guest.boot`. */
const BOOT_ATTEMPTS = 2;
const JOBS = join(import.meta.dirname, "jobs");

export interface ScriptResult {
  /** Exit status of the script; 124 when it ran out of time. */
  readonly status: number;
  /** What it printed, both streams in order. */
  readonly output: string;
}

/**
 * A running Linux guest under emulation (no KVM: it is not usable everywhere), one processor, user-mode network: the
 * loopback of this machine is 10.0.2.2 inside. It holds the files of `test/guest/jobs` under /job and runs scripts.
 */
export class Guest {
  readonly #machine: ChildProcess;
  readonly #folder: string;
  readonly #agent: Agent;

  private constructor(machine: ChildProcess, folder: string, agent: Agent) {
    this.#machine = machine;
    this.#folder = folder;
    this.#agent = agent;
  }

  /** Boots a guest, with further `devices` as QEMU's command line names them. A boot that fails is tried once more; the second failure is thrown with the console's text. */
  static async boot(kernel: GuestKernel, devices: readonly string[] = []): Promise<Guest> {
    const files = ensureGuestFiles(kernel);
    for (let attempt = 1; ; attempt++) {
      try {
        return await Guest.#bootOnce(files, devices);
      } catch (error) {
        if (attempt === BOOT_ATTEMPTS) throw error;
      }
    }
  }

  static async #bootOnce(files: GuestFiles, devices: readonly string[]): Promise<Guest> {
    const folder = mkdtempSync(join(tmpdir(), "zcow-guest-"));
    const socketPath = join(folder, "agent.sock");
    const server = createServer();
    server.listen(socketPath);
    await once(server, "listening");
    packJobs(folder);
    const machine = spawn("qemu-system-x86_64", [...machineArguments(files, folder), ...devices], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    endWithThisProcess(machine);
    try {
      const agent = await Promise.race([connectedAgent(server), unexpectedEnd(machine)]);
      return new Guest(machine, folder, agent);
    } catch (error) {
      const text = consoleText(folder);
      await end(machine, folder);
      throw new Error(`the guest did not boot:\n${text}`, { cause: error });
    } finally {
      server.close();
    }
  }

  /**
   * Runs a bash script with the functions of /job/library.sh; `onLine` gets what it prints as it comes. Rejects when the
   * guest itself is gone or hangs.
   */
  async run(script: string, seconds = 60, onLine?: (line: string) => void): Promise<ScriptResult> {
    const whole = `cd /tmp; . /job/library.sh\n${script}\n`;
    try {
      // The guest ends the script itself; the margin is for a guest that no longer can.
      return await withTimeout(this.#agent.run(whole, seconds, onLine), (seconds + 30) * 1000, "the script's answer");
    } catch (error) {
      throw new Error(`the guest is lost; its console:\n${this.consoleText()}`, { cause: error });
    }
  }

  /** Like `run`, but a script that fails throws with its output and the kernel's last messages. Returns the output. */
  async expect(script: string, seconds = 60): Promise<string> {
    const result = await this.run(script, seconds);
    if (result.status === 0) return result.output;
    const messages = await this.run("dmesg | tail -n 15");
    const status = result.status === 124 ? `was not done after ${seconds} s` : `exited with ${result.status}`;
    throw new Error(`in the guest, "${script}" ${status}:\n${result.output}\nkernel messages:\n${messages.output}`);
  }

  /** The kernel's console since boot. */
  consoleText(): string {
    return consoleText(this.#folder);
  }

  /** Ends the guest between two instructions, as a power cut does: nothing is flushed, no connection is closed. */
  async powerCut(): Promise<void> {
    this.#agent.close();
    await end(this.#machine, this.#folder);
  }
}

interface RunningScript {
  readonly id: number;
  readonly lines: string[];
  readonly onLine: ((line: string) => void) | undefined;
  readonly resolve: (result: ScriptResult) => void;
  readonly reject: (error: Error) => void;
}

/** Speaks with kit/agent.sh over the guest's second serial port. */
class Agent {
  readonly ready: Promise<void>;
  readonly #socket: Socket;
  #becomeReady: () => void = () => undefined;
  #received = "";
  #lastId = 0;
  #running: RunningScript | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    this.ready = new Promise((resolve) => {
      this.#becomeReady = resolve;
    });
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => this.#receive(text));
    socket.on("error", () => socket.destroy());
  }

  run(script: string, seconds: number, onLine?: (line: string) => void): Promise<ScriptResult> {
    if (this.#running !== undefined) throw new Error("the guest runs one script at a time");
    this.#lastId++;
    const id = this.#lastId;
    const result = new Promise<ScriptResult>((resolve, reject) => {
      this.#running = { id, lines: [], onLine, resolve, reject };
    });
    this.#socket.write(`run ${id} ${seconds} ${Buffer.from(script).toString("base64")}\n`);
    return result;
  }

  close(): void {
    this.#socket.destroy();
    this.#running?.reject(new Error("the guest was ended"));
    this.#running = undefined;
  }

  #receive(text: string): void {
    const lines = (this.#received + text).split("\n");
    this.#received = lines.pop() ?? "";
    for (const line of lines) this.#receiveLine(line);
  }

  #receiveLine(line: string): void {
    const [verb, id, rest] = splitLine(line);
    if (verb === "ready") this.#becomeReady();
    const running = this.#running;
    if (running === undefined || id !== String(running.id)) return;
    if (verb === "out") {
      running.lines.push(rest);
      running.onLine?.(rest);
    }
    if (verb !== "end") return;
    this.#running = undefined;
    running.resolve({ status: Number(rest), output: running.lines.join("\n") });
  }
}

/** `verb id rest`, where the rest may be empty and may hold spaces. */
function splitLine(line: string): [verb: string, id: string, rest: string] {
  const match = /^(\S*) ?(\S*) ?(.*)$/s.exec(line);
  return [match?.[1] ?? "", match?.[2] ?? "", match?.[3] ?? ""];
}

/** A test run that is interrupted leaves no guest behind. */
function endWithThisProcess(child: ChildProcess): void {
  const end = () => child.kill("SIGKILL");
  process.on("exit", end);
  child.on("exit", () => process.off("exit", end));
}

async function connectedAgent(server: Server): Promise<Agent> {
  const [socket] = (await withTimeout(once(server, "connection"), BOOT_MILLISECONDS, "QEMU's start")) as [Socket];
  const agent = new Agent(socket);
  await withTimeout(agent.ready, BOOT_MILLISECONDS, "the guest's boot");
  return agent;
}

/** Rejects when QEMU ends, with what it said. */
async function unexpectedEnd(machine: ChildProcess): Promise<never> {
  let said = "";
  machine.stderr?.on("data", (chunk: Uint8Array) => {
    said += Buffer.from(chunk).toString();
  });
  await new Promise<void>((resolve) => {
    machine.on("error", (error) => {
      said += error.message;
      resolve();
    });
    machine.on("exit", () => resolve());
  });
  throw new Error(`QEMU ended: ${said}`);
}

/** Length of jobs/filesystems.sh's noise: a prime, so that its copies in a file lie differently to every block. */
const NOISE_BYTES = 1_048_583;

/** The scripts, and a file of noise that is the same in every guest, because it is compared over reboots. */
function packJobs(folder: string): void {
  const noise = createCipheriv("aes-128-ctr", Buffer.alloc(16), Buffer.alloc(16)).update(Buffer.alloc(NOISE_BYTES));
  writeFileSync(join(folder, "noise"), noise);
  const result = spawnSync("tar", ["-cf", join(folder, "jobs.tar"), "-C", folder, "noise", "-C", JOBS, "."]);
  if (result.status !== 0) throw new Error(`tar ${JOBS}: ${String(result.stderr)}`);
}

function machineArguments(files: GuestFiles, folder: string): string[] {
  // The kernel measures the speed of the TSC at boot, and a busy machine makes it measure nonsense: clocks that run ten
  // times too fast have been seen. The emulated HPET is right.
  const clock = "tsc=unstable clocksource=hpet";
  const kernelOptions = `console=ttyS0 panic=-1 loglevel=6 mitigations=off random.trust_cpu=on ${clock}`;
  return [
    ["-accel", "tcg", "-cpu", "Nehalem,-cx16", "-smp", "1", "-m", "1536"],
    ["-display", "none", "-nodefaults", "-no-user-config", "-no-reboot"],
    ["-kernel", files.kernel, "-initrd", files.initramfs, "-append", kernelOptions],
    ["-serial", `file:${join(folder, "console.log")}`],
    ["-chardev", `socket,id=agent,path=${join(folder, "agent.sock")}`, "-serial", "chardev:agent"],
    ["-drive", `file=${join(folder, "jobs.tar")},format=raw,if=virtio,readonly=on`],
    ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="],
    ["-device", "virtio-rng-pci"],
  ].flat();
}

function consoleText(folder: string): string {
  try {
    return readFileSync(join(folder, "console.log"), "utf8").slice(-16_384);
  } catch {
    return "(no console)";
  }
}

async function end(machine: ChildProcess, folder: string): Promise<void> {
  if (machine.exitCode === null && machine.signalCode === null) {
    machine.kill("SIGKILL");
    await once(machine, "exit");
  }
  rmSync(folder, { recursive: true, force: true });
}

async function withTimeout<T>(promise: Promise<T>, milliseconds: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took more than ${milliseconds / 1000} s`)), milliseconds);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
