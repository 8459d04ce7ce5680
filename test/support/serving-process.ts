import type { ChildProcess } from "node:child_process";
import { runTool } from "./stock-tools.js";

/** Those that a test has not ended. */
const running: (() => Promise<void>)[] = [];

/** Ends what is still serving; for after each test. */
export async function endServers(): Promise<void> {
  for (const end of running.splice(0)) await end();
}

/** A program that serves. */
interface Serving {
  said(): string;
  end(): Promise<void>;
}

/** Waits until a server serves: until it says so, or until `socket` is there. */
export async function serve(child: ChildProcess, socket?: string): Promise<Serving> {
  let said = "";
  let failed = "";
  child.stdout?.on("data", (chunk) => {
    said += String(chunk);
  });
  child.stderr?.on("data", (chunk) => {
    failed += String(chunk);
  });
  const gone = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const end = async (): Promise<void> => {
    child.kill("SIGTERM");
    await gone;
  };
  running.push(end);
  for (let turn = 0; turn < 600; turn++) {
    const ready = socket === undefined ? said.includes("serving") : (await runTool("test", ["-S", socket])).code === 0;
    if (ready) {
      return {
        said: () => said,
        end,
      };
    }
    if (child.exitCode !== null) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`the server did not start: ${failed}`);
}
