// `npm run bench`: builds and runs the comparison with the stock tools; see bench/run.ts for its options.
// `npm run bench -- nvme`: load on the NVMe/TCP server instead; see bench/nvme-load.ts.
import { join } from "node:path";
import { PROJECT_ROOT, passThrough } from "./run-command.mjs";
import { setUp } from "./setup.mjs";

await setUp({ stockTools: true });
// Installed by the set-up only.
const { build } = await import("esbuild");
/** @satisfies {import("esbuild").BuildOptions} */
const shared = {
  outdir: join(PROJECT_ROOT, "dist/bench"),
  bundle: true,
  platform: "node",
  target: "node20.19",
  external: ["koffi"],
  logLevel: "warning",
};
const source = (/** @type {string} */ name) => join(PROJECT_ROOT, `bench/${name}.ts`);
await build({ ...shared, entryPoints: [source("run"), source("nvme-load")], format: "esm" });
// What is measured is built as the command is: one CommonJS file, because start-up counts.
await build({
  ...shared,
  entryPoints: [source("subject"), source("open-subject")],
  format: "cjs",
  outExtension: { ".js": ".cjs" },
  define: { "import.meta.url": "benchModuleUrl" },
  banner: { js: 'const benchModuleUrl = require("node:url").pathToFileURL(__filename).href;' },
  minifyWhitespace: true,
  minifySyntax: true,
});
const [first, ...rest] = process.argv.slice(2);
const [program, options] = first === "nvme" ? ["nvme-load", rest] : ["run", process.argv.slice(2)];
process.exitCode = passThrough(process.execPath, [join(PROJECT_ROOT, `dist/bench/${program}.js`), ...options]);
