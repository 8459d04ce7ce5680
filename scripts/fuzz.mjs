// `npm run fuzz`: feeds damaged images to everything that reads or changes images; see docs/testing.md.
import { join } from "node:path";
import { PROJECT_ROOT, passThrough } from "./run-command.mjs";
import { setUp } from "./setup.mjs";

await setUp({ stockTools: false });
// Installed by the set-up only.
const { build } = await import("esbuild");
const folder = join(PROJECT_ROOT, "test/fuzz");
const program = join(PROJECT_ROOT, "dist/fuzz/command.mjs");
await build({
  entryPoints: [join(folder, "fuzz-command.ts")],
  outfile: program,
  bundle: true,
  platform: "node",
  target: "node20.19",
  format: "esm",
  external: ["koffi", "esbuild"],
  // The program finds its parts and images where its source is.
  define: { "import.meta.dirname": JSON.stringify(folder) },
  logLevel: "warning",
});
process.exitCode = passThrough(process.execPath, [program, ...process.argv.slice(2)]);
