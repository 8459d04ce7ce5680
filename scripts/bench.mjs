// `npm run bench`: builds and runs the comparison with the stock tools; see bench/run.ts for its options.
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { PROJECT_ROOT, passThrough } from "./run-command.mjs";
import { setUp } from "./setup.mjs";

await setUp({ stockTools: true });
// Installed by the set-up only.
const { build } = await import("esbuild");
const sources = readdirSync(join(PROJECT_ROOT, "bench")).filter((name) => name.endsWith(".ts"));
await build({
  entryPoints: sources.map((name) => join(PROJECT_ROOT, "bench", name)),
  outdir: join(PROJECT_ROOT, "dist/bench"),
  bundle: true,
  platform: "node",
  target: "node20.19",
  format: "esm",
  external: ["koffi"],
  logLevel: "warning",
});
process.exitCode = passThrough(process.execPath, [join(PROJECT_ROOT, "dist/bench/run.js"), ...process.argv.slice(2)]);
