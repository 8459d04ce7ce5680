// Bundles bench/ to dist/bench (needs `npm run build` first, for the command) and runs it with the arguments given.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { PROJECT_ROOT, passThrough } from "./run-command.mjs";

if (!existsSync(join(PROJECT_ROOT, "dist/cli/zcow.js"))) {
  const code = passThrough(process.execPath, [join(PROJECT_ROOT, "scripts/build.mjs")]);
  if (code !== 0) process.exit(code);
}
await build({
  entryPoints: ["run", "subject", "open-subject"].map((name) => join(PROJECT_ROOT, `bench/${name}.ts`)),
  outdir: join(PROJECT_ROOT, "dist/bench"),
  bundle: true,
  splitting: true,
  platform: "node",
  target: "node20.19",
  format: "esm",
  external: ["koffi"],
  logLevel: "warning",
});
process.exit(passThrough(process.execPath, [join(PROJECT_ROOT, "dist/bench/run.js"), ...process.argv.slice(2)]));
