// Builds dist/: the library with tsc (one module per source file, with types), the command with esbuild (few files, because
// start-up counts).
import { chmodSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { localProgram, PROJECT_ROOT, passThrough } from "./run-command.mjs";

const { version } = JSON.parse(readFileSync(join(PROJECT_ROOT, "package.json"), "utf8"));
const dist = join(PROJECT_ROOT, "dist");
const cliSource = join(PROJECT_ROOT, "src/cli/main.ts");
const cliProduct = join(dist, "cli/zcow.js");

rmSync(dist, { recursive: true, force: true });
const code = passThrough(localProgram("tsc"), ["-p", "tsconfig.build.json"]);
if (code !== 0) process.exit(code);

if (!existsSync(cliSource)) {
  console.error("src/cli/main.ts is missing: the command was not built");
  process.exit(1);
}
const SHEBANG = "#!/usr/bin/env node\n";
const MODULE_URL = 'const zcowModuleUrl = require("node:url").pathToFileURL(__filename).href;';
/** Commands that serve images need a third of all code, which the others would read and compile at every start. */
const SERVER_COMMANDS = ["nvme", "control"];

/** @type {import("esbuild").BuildOptions} */
const command = {
  entryPoints: [cliSource],
  bundle: true,
  platform: "node",
  target: "node20.19",
  // CommonJS: starts 3 to 5 ms faster than an ES module, and on Node 20 only there can a program still choose the size
  // of its thread pool.
  format: "cjs",
  define: { ZCOW_VERSION: JSON.stringify(version), "import.meta.url": "zcowModuleUrl" },
  // A third less to read and compile at every start; names stay, so that a stack trace can be read.
  minifyWhitespace: true,
  minifySyntax: true,
  legalComments: "eof",
  logLevel: "warning",
};
await build({
  ...command,
  outfile: cliProduct,
  external: ["koffi", ...SERVER_COMMANDS.map((name) => `./commands/${name}.js`)],
  banner: {
    js: `${SHEBANG}if (${JSON.stringify(SERVER_COMMANDS)}.includes(process.argv[2])) return void require("./servers.js");\n${MODULE_URL}`,
  },
});
// The whole program once more, complete in itself: the two files share no classes.
await build({
  ...command,
  outfile: join(dist, "cli/servers.js"),
  external: ["koffi"],
  banner: { js: MODULE_URL },
});
writeFileSync(join(dist, "cli/package.json"), '{ "type": "commonjs" }\n');
chmodSync(cliProduct, 0o755);
