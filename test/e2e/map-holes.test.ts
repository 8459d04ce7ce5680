import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { runProgram } from "../../src/cli/program.js";
import { nativeCalls } from "../../src/host/native.js";
import { describeWithStock, qemuImg, runTool } from "../support/stock-tools.js";

/** A file system in memory and one on a disk tell holes in different ways. */
const PLACES = [tmpdir(), "/dev/shm"].filter((place) => existsSync(place));
const SHAPES = [
  "cluster_size=64k",
  "cluster_size=4k,refcount_bits=1",
  "cluster_size=2M",
  "cluster_size=512",
  "compat=0.10",
];

const WRITES: Readonly<Record<string, readonly string[]>> = {
  fresh: [],
  "partly written": [
    "write -P 1 64k 100k",
    "write -P 0 256k 64k",
    "write -z 512k 64k",
    "write -P 5 704k 4k",
    "write -P 6 3000k 1",
    "discard 1M 64k",
    "write -z -u 2M 64k",
    "write -P 7 4095k 1k",
  ],
};

const withHoles = nativeCalls() !== undefined;

describeWithStock("map of images whose clusters are counted but not stored", () => {
  const folders = PLACES.map((place) => mkdtempSync(join(place, "zcow-map-")));

  afterAll(() => {
    for (const folder of folders) rmSync(folder, { recursive: true, force: true });
  });

  // Only preallocated metadata leaves holes; the other modes once each.
  const images = [
    ...SHAPES.map((shape) => [shape, "metadata"]),
    ...["off", "falloc", "full"].map((mode) => [SHAPES[0], mode]),
  ];
  const cases = folders.flatMap((folder) => images.map(([shape, mode]) => [folder, shape, mode] as const));

  // Without the native helper holes are not seen: then those of preallocated images are mapped as data.
  it.skipIf(!withHoles).each(cases)(
    "%s, %s, preallocation=%s: prints what the stock tool prints",
    async (folder, shape, mode) => {
      const options = `${shape},preallocation=${mode}`;
      for (const [name, writes] of Object.entries(WRITES)) {
        const path = join(folder, "map.qcow2");
        rmSync(path, { force: true });
        await must(qemuImg(["create", "-q", "-f", "qcow2", "-o", options, path, "4M"]));
        await must(runTool("qemu-io", ["-f", "qcow2", ...writes.flatMap((line) => ["-c", line]), path]));
        for (const args of [[], ["--output", "json"], ["--output", "json", "-s", "100k", "-l", "700k"]]) {
          const stock = await must(qemuImg(["map", "-f", "qcow2", ...args, path]));
          const ours = await ourMap(["map", "-f", "qcow2", ...args, path]);
          expect(ours, `${name} ${args.join(" ")}`).toEqual(stock);
        }
      }
    },
  );
});

async function must<T extends { readonly code: number | null; readonly stderr: string }>(
  running: Promise<T>,
): Promise<T> {
  const result = await running;
  if (result.code !== 0) throw new Error(result.stderr);
  return result;
}

async function ourMap(args: readonly string[]): Promise<{ stdout: string; stderr: string; code: number }> {
  let stdout = "";
  let stderr = "";
  const code = await runProgram("qemu-img", args, {
    out: (text) => {
      stdout += text;
    },
    err: (text) => {
      stderr += text;
    },
  });
  return { stdout, stderr, code };
}
