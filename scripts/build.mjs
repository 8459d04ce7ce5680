// Builds dist/: the library (few modules, because each one costs a third of a millisecond when it is imported) with its
// types, and the command.
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { buildCommand } from "./build-command.mjs";
import { localProgram, PROJECT_ROOT, passThrough } from "./run-command.mjs";

const { version } = JSON.parse(readFileSync(join(PROJECT_ROOT, "package.json"), "utf8"));
const dist = join(PROJECT_ROOT, "dist");

rmSync(dist, { recursive: true, force: true });
const code = passThrough(localProgram("tsc"), ["-p", "tsconfig.build.json"]);
if (code !== 0) process.exit(code);

await build({
  absWorkingDir: PROJECT_ROOT,
  entryPoints: ["src/index.ts", "src/entry/*.ts"],
  outbase: "src",
  outdir: dist,
  bundle: true,
  // Entries share their classes: an error of one is an error of the other.
  splitting: true,
  chunkNames: "chunks/[name]-[hash]",
  platform: "node",
  target: "node20.19",
  format: "esm",
  external: ["koffi"],
  legalComments: "eof",
  logLevel: "warning",
});

await buildCommand(join(dist, "cli/zcow.js"), version);
