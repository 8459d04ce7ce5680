// `npm run check`: every check that is not a test. `node scripts/check.mjs lint types` runs only those.
// A check that passes takes one line; one that fails shows what it printed.
import { checkDocs } from "./check-docs.mjs";
import { checkPackaging } from "./check-packaging.mjs";
import { capture, localProgram } from "./run-command.mjs";
import { setUp } from "./setup.mjs";

/** @typedef {import("./run-command.mjs").CommandResult} CommandResult */

/**
 * @param {...(readonly string[])} commands each a development dependency's program and its arguments
 * @returns {() => Promise<CommandResult>} runs them in order and stops at the first that fails
 */
const programs =
  (...commands) =>
  async () => {
    let output = "";
    for (const [program = "", ...args] of commands) {
      const result = await capture(localProgram(program), args);
      output += result.output;
      if (result.code !== 0) return { code: result.code, output };
    }
    return { code: 0, output };
  };

/** @type {Record<string, () => Promise<CommandResult>>} */
const CHECKS = {
  types: programs(["tsc", "-p", "tsconfig.json"], ["tsc", "-p", "tsconfig.scripts.json"]),
  format: programs(["biome", "check", "--error-on-warnings"]),
  lint: programs(["oxlint", "--deny-warnings"]),
  "dead-code": programs(["knip", "--no-progress"]),
  imports: programs(["depcruise", "--config", ".dependency-cruiser.cjs", "--output-type", "err-long", "src"]),
  packaging: checkPackaging,
  docs: checkDocs,
};

/** @param {string} name */
async function runCheck(name) {
  const check = CHECKS[name];
  if (check === undefined) {
    console.error(`There is no check "${name}". Known: ${Object.keys(CHECKS).join(", ")}.`);
    return false;
  }
  const start = performance.now();
  const result = await check().catch((/** @type {Error} */ error) => ({ code: 1, output: `${error.stack}\n` }));
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${result.code === 0 ? "ok    " : "FAILED"} ${name} (${seconds} s)`);
  if (result.code !== 0) console.log(result.output);
  return result.code === 0;
}

await setUp();
const asked = process.argv.slice(2);
const failed = [];
for (const name of asked.length > 0 ? asked : Object.keys(CHECKS)) {
  if (!(await runCheck(name))) failed.push(name);
}
if (failed.length > 0) {
  console.error(`Checks that failed: ${failed.join(", ")}`);
  process.exitCode = 1;
}
