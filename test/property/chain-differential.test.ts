import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, it } from "vitest";
import { Random, seedFromEnvironment } from "../support/random.js";
import { ourQemuImg } from "../support/stand-in-here.js";
import { describeWithStock, qemuImg, qemuIo, type ToolResult, temporaryDirectory } from "../support/stock-tools.js";

/**
 * Chains of images made by random `create -b` commands, by the stock tool in one folder and by ours in another: what is printed is
 * equal to the letter, and so is what `info` and `map` of either program say of either chain.
 */

const KIB = 1024;
const DEPTH = 3;

type Run = (args: readonly string[]) => Promise<ToolResult>;

/** Relative names are looked for beside the image that has them. */
const PLACES = ["base", "sub/one", "sub/deeper/two", "three, with comma", "sub/four"] as const;
const NAMES: Readonly<Record<string, string>> = {
  "sub/one": "../base",
  "sub/deeper/two": "../one",
  "three, with comma": "sub/deeper/two",
  "sub/four": "../three, with comma",
};

interface Layer {
  readonly place: string;
  readonly format: string;
  readonly options: readonly string[];
  readonly size: string | undefined;
}

function layerOptions(random: Random): string[] {
  return [
    random.pick(["cluster_size=4k", "cluster_size=64k", "cluster_size=16k,extended_l2=on", "compat=0.10"]),
    ...(random.chance(0.2) ? ["compression_type=zlib"] : []),
  ];
}

function randomChain(random: Random): Layer[] {
  return PLACES.slice(0, DEPTH + 1).map((place, depth) => {
    const format = depth === 0 ? random.pick(["raw", "qcow2"]) : "qcow2";
    const kib = random.between(1, 40) * 64;
    return {
      place,
      format,
      options: format === "raw" ? [] : layerOptions(random),
      // Without a size an overlay has that of what is behind it.
      size: depth > 0 && random.chance(0.4) ? undefined : random.pick([`${kib}k`, `${kib * KIB + 512}`]),
    };
  });
}

/** The command that makes a layer; `how` the name of what is behind it is written. */
function creation(
  folder: string,
  layer: Layer,
  below: Layer | undefined,
  how: "relative" | "absolute" | "json",
): string[] {
  const path = join(folder, layer.place);
  const args = ["create", "-f", layer.format];
  for (const option of layer.options) args.push("-o", option);
  if (below !== undefined) {
    const absolute = join(folder, below.place);
    const relative = NAMES[layer.place] ?? "";
    const json = `json:${JSON.stringify({ driver: below.format, file: { driver: "file", filename: absolute } })}`;
    const name = { relative, absolute, json }[how];
    args.push("-b", name, "-F", below.format);
  }
  return [...args, path, ...(layer.size === undefined ? [] : [layer.size])];
}

function randomWrites(random: Random): string[] {
  const commands: string[] = [];
  for (let i = 0; i < 5; i++) {
    const offset = random.below(60) * 512;
    const kind = random.weighted({ write: 5, zero: 2 });
    const what = kind === "write" ? `write -q -P ${random.between(1, 255)}` : "write -q -z";
    commands.push("-c", `${what} ${offset} ${random.between(1, 60) * 512}`);
  }
  return commands;
}

describeWithStock("chains made by random create -b commands", () => {
  const first = seedFromEnvironment(0xc4a1);

  it.each(Array.from({ length: 4 }, (_, i) => first + i))(
    "are printed, described and mapped alike (seed %i)",
    async (seed) => {
      const random = new Random(seed);
      const root = temporaryDirectory();
      const folders = { stock: join(root, "stock"), ours: join(root, "zcow") };
      const anonymous = (text: string): string => text.replaceAll(folders.stock, "DIR").replaceAll(folders.ours, "DIR");
      /** Space on the host hangs on the file system. */
      const plain = ({ stdout, stderr, code }: ToolResult): string =>
        `${code}\n${anonymous(stdout)}${anonymous(stderr)}`.replaceAll(/disk size: .*|"actual-size": \d+,?/g, "");
      const chain = randomChain(random);
      for (const [depth, layer] of chain.entries()) {
        const how = random.pick(["relative", "absolute", "relative", "json"] as const);
        const writes = randomWrites(random);
        const printed: string[] = [];
        for (const [folder, run] of [
          [folders.stock, qemuImg],
          [folders.ours, ourQemuImg],
        ] as const satisfies readonly (readonly [string, Run])[]) {
          const path = join(folder, layer.place);
          mkdirSync(dirname(path), { recursive: true });
          printed.push(plain(await run(creation(folder, layer, chain[depth - 1], how))));
          const written = await qemuIo(["-f", layer.format, ...writes, path]);
          expect(written.code, written.stderr).toBe(0);
        }
        expect(printed[1]).toBe(printed[0]);
        expect(printed[0]).toMatch(/^0\n/);
      }
      const top = chain.at(-1) as Layer;
      for (const args of [
        ["info"],
        ["info", "--output=json"],
        ["info", "--backing-chain"],
        ["info", "--backing-chain", "--output=json"],
        ["map"],
        ["map", "--output=json"],
        ["map", "--output=json", "--start-offset=12345", "--max-length=100k"],
      ]) {
        const said: string[] = [];
        for (const folder of [folders.stock, folders.ours]) {
          const path = join(folder, top.place);
          const both = [];
          for (const run of [qemuImg, ourQemuImg]) both.push(plain(await run([...args, "-f", "qcow2", path])));
          expect(both[1], args.join(" ")).toBe(both[0]);
          said.push(both[0] ?? "");
        }
        // qemu-io writes several clusters at a time, so where they end up in the file differs from run to run.
        if (args[0] === "info") expect(said[1], args.join(" ")).toBe(said[0]);
      }
    },
  );
});
