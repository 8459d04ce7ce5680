import { basename } from "node:path";
import { EXIT_FAILURE } from "./failure.js";
import { standardOutput } from "./output.js";
import { runProgram } from "./program.js";

// Until the command has ended, anything that ends the process early is a failure. Not `await`: the command is built
// as CommonJS, which starts faster and can still choose the size of the thread pool.
process.exitCode = EXIT_FAILURE;
void runProgram(basename(process.argv[1] ?? "zcow", ".js"), process.argv.slice(2), standardOutput).then((status) => {
  process.exitCode = status;
});
