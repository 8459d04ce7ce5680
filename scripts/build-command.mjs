// Builds the command. `node scripts/build-command.mjs FILE VERSION` puts it elsewhere than into dist/, for tests.
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { bundleProgram, fillCodeCaches } from "./bundle-program.mjs";
import { capture } from "./run-command.mjs";

const ENTRY = "src/cli/main.ts";

/**
 * What short commands need comes with the file to start; what reads and writes images, and tells where they have what, in a second
 * file; what makes and copies them, in a third.
 */
const PACKS = {
  start: [ENTRY, "src/cli/commands/info.ts"],
  engine: ["src/formats/qcow2/open.ts", "src/cli/commands/map.ts"],
  copy: ["src/cli/commands/convert.ts", "src/formats/qcow2/create.ts", "src/cli/commands/compare.ts"],
};

/** Of a disk that is copied to have the code compiled. */
const DISK_BYTES = 4 * 1024 * 1024;

/**
 * Builds the command, and compiles it beforehand for the Node.js that runs this.
 * @param {string} file the file to start
 * @param {string} version what `--version` prints
 */
export async function buildCommand(file, version) {
  const folder = dirname(file);
  const define = { ZCOW_VERSION: JSON.stringify(version) };
  const packs = await bundleProgram({ entry: ENTRY, folder, name: basename(file), packs: PACKS, define });
  // Whatever package the folder lies in, the command is CommonJS.
  writeFileSync(join(folder, "package.json"), '{ "type": "commonjs" }\n');
  await compileCommand(file, packs);
}

/**
 * @param {string} file
 * @param {readonly string[]} packs
 */
async function compileCommand(file, packs) {
  const images = mkdtempSync(join(tmpdir(), "zcow-build-"));
  try {
    const image = join(images, "image.qcow2");
    const disk = join(images, "disk.raw");
    writeFileSync(disk, new Uint8Array(DISK_BYTES).fill(1, 0, DISK_BYTES / 2));
    const made = await capture(process.execPath, [file, "create", "-f", "qcow2", image, "1M"]);
    if (made.code !== 0) throw new Error(`zcow create failed: ${made.output}`);
    const copy = join(images, "copy");
    const commands = [
      ["convert", "-f", "raw", "-O", "qcow2", disk, copy],
      ["convert", "-f", "qcow2", "-O", "raw", copy, join(images, "copy.raw")],
      ["compare", disk, copy],
      ["info", image],
      ["info", "-f", "qcow2", "--output", "json", image],
      ["map", image],
    ];
    await fillCodeCaches(dirname(file), basename(file), packs, commands);
  } finally {
    rmSync(images, { recursive: true, force: true });
  }
}

const [, script = "", file, version = "0.0.0"] = process.argv;
if (file !== undefined && realpathSync(script) === import.meta.filename) {
  mkdirSync(dirname(file), { recursive: true });
  await buildCommand(resolve(file), version);
}
