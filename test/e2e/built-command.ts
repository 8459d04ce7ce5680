import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { runTool, type ToolResult } from "../support/stock-tools.js";

const PROJECT_ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** The command as it is shipped, under each of the names it answers to. */
export class BuiltCommand {
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /** Builds the command from source into `folder`. */
  static async build(folder: string): Promise<BuiltCommand> {
    mkdirSync(folder, { recursive: true });
    const script = join(PROJECT_ROOT, "scripts/build-command.mjs");
    const built = await runTool(process.execPath, [script, join(folder, "zcow.cjs"), "0.0.0-test"]);
    if (built.code !== 0) throw new Error(`the command could not be built: ${built.stderr}`);
    for (const name of ["qemu-img", "qemu-io", "qemu-nbd"]) {
      // A folder that is kept between runs has it already.
      rmSync(join(folder, name), { force: true });
      symlinkSync("zcow.cjs", join(folder, name));
    }
    return new BuiltCommand(folder);
  }

  /** `zcow ARGS` in `directory`. */
  zcow(directory: string, args: readonly string[], stdin = ""): Promise<ToolResult> {
    return this.#run("zcow.cjs", directory, args, stdin);
  }

  /** The same program called by the name of a stock tool. */
  standIn(
    tool: "qemu-img" | "qemu-io" | "qemu-nbd",
    directory: string,
    args: readonly string[],
    stdin = "",
  ): Promise<ToolResult> {
    return this.#run(tool, directory, args, stdin);
  }

  /** A shell command line in `directory`. */
  shell(directory: string, script: string): Promise<ToolResult> {
    return runTool("env", ["-C", directory, ...ENVIRONMENT, "sh", "-c", script]);
  }

  /** `zcow ARGS` that goes on while the test does other things. */
  spawn(args: readonly string[]): ChildProcess {
    const { NODE_EXTRA_CA_CERTS: _certificates, ...environment } = process.env;
    return spawn(process.execPath, [join(this.#folder, "zcow.cjs"), ...args], {
      env: { ...environment, NODE_PATH: join(PROJECT_ROOT, "node_modules") },
      stdio: ["ignore", "pipe", "pipe"],
    });
  }

  /** `zcow ARGS` for another program to start. */
  commandLine(args: readonly string[]): string[] {
    return [process.execPath, join(this.#folder, "zcow.cjs"), ...args];
  }

  #run(file: string, directory: string, args: readonly string[], stdin: string): Promise<ToolResult> {
    return runTool(
      "env",
      ["-C", directory, ...ENVIRONMENT, process.execPath, join(this.#folder, file), ...args],
      stdin,
    );
  }
}

/** Extra certificates slow the start down; the native helper is found although the build lies elsewhere. */
const ENVIRONMENT = ["-u", "NODE_EXTRA_CA_CERTS", `NODE_PATH=${join(PROJECT_ROOT, "node_modules")}`];
