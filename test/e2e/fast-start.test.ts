import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runTool } from "../support/stock-tools.js";
import { BuiltCommand } from "./built-command.js";

/** Says at the end what V8 thought of each code cache, and which modules were loaded beside it. */
const WATCHER = `
const vm = require("node:vm");
const scripts = [];
vm.Script = class extends vm.Script {
  constructor(code, options) {
    super(code, options);
    scripts.push(this);
  }
};
process.on("exit", () => {
  const caches = scripts.map((script) => script.cachedDataRejected ?? "none");
  const modules = Object.keys(require.cache).filter((path) => path.includes("/parts/"));
  process.stderr.write(JSON.stringify({ caches, modules }));
});
`;

interface Watched {
  readonly caches: readonly (boolean | "none")[];
  readonly modules: readonly string[];
}

let folder = "";
let built = "";
let image = "";

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "zcow-fast-start-"));
  built = join(folder, "built");
  const command = await BuiltCommand.build(built);
  await command.zcow(folder, ["create", "-f", "qcow2", "disk.qcow2", "64M"]);
  image = join(folder, "disk.qcow2");
  writeFileSync(join(folder, "watcher.cjs"), WATCHER);
}, 60_000);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function watched(...args: readonly string[]): Promise<Watched & { readonly stdout: string }> {
  const program = ["--require", join(folder, "watcher.cjs"), join(built, "zcow.cjs")];
  const { code, stdout, stderr } = await runTool(process.execPath, [...program, ...args]);
  expect(code).toBe(0);
  return { stdout, ...(JSON.parse(stderr) as Watched) };
}

function cacheFiles(): string[] {
  const parts = join(built, "parts");
  return readdirSync(parts)
    .filter((name) => name.endsWith(".cache"))
    .map((name) => join(parts, name));
}

describe("the built command", () => {
  it("tells its version from code that was compiled beforehand", async () => {
    expect(await watched("--version")).toMatchObject({ stdout: "zcow 0.0.0-test\n", caches: [false], modules: [] });
  });

  it("describes an image without the engine", async () => {
    expect(await watched("info", "-f", "qcow2", image)).toMatchObject({ caches: [false], modules: [] });
  });

  it("has the engine compiled beforehand as well", async () => {
    const { caches } = await watched("map", "-f", "qcow2", image);
    expect(caches).toEqual([false, false]);
  });

  it("has all that copies and compares compiled beforehand", async () => {
    const [raw, copy] = [join(folder, "disk.raw"), join(folder, "copy.qcow2")];
    writeFileSync(raw, new Uint8Array(4 * 1024 * 1024).fill(1, 0, 1024 * 1024));
    const all = { caches: [false, false, false], modules: [] };
    expect(await watched("convert", "-f", "raw", "-O", "qcow2", raw, copy)).toMatchObject(all);
    expect(await watched("convert", "-f", "qcow2", "-O", "raw", copy, raw)).toMatchObject(all);
    expect(await watched("compare", "-f", "raw", "-F", "qcow2", raw, copy)).toMatchObject(all);
  });

  it.each([
    ["bits have flipped", (bytes: Buffer) => bytes.map((byte, at) => (at === 5000 ? byte ^ 4 : byte))],
    ["half of it is missing", (bytes: Buffer) => bytes.subarray(0, bytes.length / 2)],
    ["it is empty", () => Buffer.alloc(0)],
  ])("compiles anew what was compiled beforehand when %s", async (_what, damage) => {
    const files = cacheFiles();
    expect(files.length).toBe(3);
    const sound = files.map((file) => readFileSync(file));
    for (const [at, file] of files.entries()) writeFileSync(file, damage(sound[at] ?? Buffer.alloc(0)));
    try {
      const { stdout, caches } = await watched("map", "-f", "qcow2", image);
      expect(stdout).toContain("Mapped to");
      expect(caches).toEqual(["none", "none"]);
    } finally {
      for (const [at, file] of files.entries()) writeFileSync(file, sound[at] ?? Buffer.alloc(0));
    }
  });

  it("runs where nothing was compiled beforehand", async () => {
    const files = cacheFiles();
    const sound = files.map((file) => readFileSync(file));
    for (const file of files) rmSync(file);
    try {
      expect((await watched("info", "-f", "qcow2", image)).caches).toEqual([]);
    } finally {
      for (const [at, file] of files.entries()) writeFileSync(file, sound[at] ?? Buffer.alloc(0));
    }
  });

  it("stands in for a stock tool through a link to a link of that name", async () => {
    symlinkSync(join(built, "zcow.cjs"), join(folder, "zcow"));
    symlinkSync("zcow", join(folder, "qemu-img"));
    const { code, stdout, stderr } = await runTool(join(folder, "qemu-img"), ["info", "-f", "qcow2", "missing.qcow2"]);
    expect({ code, stdout, stderr }).toEqual({
      code: 1,
      stdout: "",
      stderr: "qemu-img: Could not open 'missing.qcow2': Could not open 'missing.qcow2': No such file or directory\n",
    });
  });
});
