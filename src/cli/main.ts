import { basename } from "node:path";
import { EXIT_FAILURE } from "./failure.js";
import { standardOutput } from "./output.js";
import { runProgram } from "./program.js";

// Node.js would open a debugger for everybody on this machine. What shows progress adds a listener of its own.
process.on("SIGUSR1", () => undefined);

// Until the command has ended, anything that ends the process early is a failure. Not `await`: the command is built
// as CommonJS, which starts faster and can still choose the size of the thread pool.
process.exitCode = EXIT_FAILURE;
void runProgram(basename(process.argv[1] ?? "zcow", ".js"), process.argv.slice(2), standardOutput).then((status) => {
  process.exitCode = status;
});
