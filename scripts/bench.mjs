// `npm run bench`: builds and runs the comparison with the stock tools; see bench/run.ts for its options.
// `npm run bench -- convert`: whole images, copied in memory; see bench/convert-cases.ts.
// `npm run bench -- luks`: the cipher of encrypted images alone; see bench/cipher-load.ts.
// `npm run bench -- memory GIB`: keeps free memory of a virtual machine from going back to its host; see bench/host-memory.ts.
// `npm run bench -- nvme`: load on the NVMe/TCP server instead; see bench/nvme-load.ts.
// `npm run bench -- nbd`: load on the NBD server and its peers; see bench/nbd-load.ts.
import { join } from "node:path";
import { capture, PROJECT_ROOT, passThrough } from "./run-command.mjs";
import { setUp } from "./setup.mjs";

await setUp({ stockTools: true });
// Installed by the set-up only.
const { build } = await import("esbuild");
const { bundleProgram, fillCodeCaches } = await import("./bundle-program.mjs");
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
await build({
  ...shared,
  entryPoints: [source("run"), source("nvme-load"), source("nbd-load"), source("cipher-load"), source("pin-memory")],
  format: "esm",
});
await build({
  ...shared,
  entryPoints: [source("subject")],
  format: "cjs",
  outExtension: { ".js": ".cjs" },
  define: { "import.meta.filename": "__filename", "import.meta.dirname": "__dirname" },
  minifyWhitespace: true,
  minifySyntax: true,
});
// Start-up counts: built as the command is.
const opening = { folder: join(PROJECT_ROOT, "dist/bench/open"), name: "open-subject.cjs" };
const entry = "bench/open-subject.ts";
const packs = await bundleProgram({
  entry,
  ...opening,
  packs: { start: [entry], engine: ["src/formats/qcow2/open.ts"] },
});
const example = join(opening.folder, "example.qcow2");
await capture(process.execPath, [join(PROJECT_ROOT, "dist/cli/zcow.js"), "create", "-f", "qcow2", example, "1M"]);
await fillCodeCaches(opening.folder, opening.name, packs, [[example]]);
const [first, ...rest] = process.argv.slice(2);
const loads = new Map([
  ["nvme", "nvme-load"],
  ["nbd", "nbd-load"],
  ["luks", "cipher-load"],
  ["memory", "pin-memory"],
]);
const load = loads.get(first ?? "");
const [program, options] = load === undefined ? ["run", process.argv.slice(2)] : [load, rest];
process.exitCode = passThrough(process.execPath, [join(PROJECT_ROOT, `dist/bench/${program}.js`), ...options]);
