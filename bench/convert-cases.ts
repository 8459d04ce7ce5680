import { existsSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Case, CaseContext } from "./cases.js";
import { longProcess } from "./contestants.js";
import { compressing } from "./images.js";

/** Whole images converted by both tools, process start included: `npm run bench -- convert`. Outputs lie beside the inputs. */

const MIB = 1024 * 1024;
const SECTOR_BYTES = 512;
/** Their fastest way to compress: all coroutines, written in the order in which they end. */
const BEST_SWITCHES = ["-W", "-m", "8"];

interface Conversion {
  readonly name: string;
  /** After "convert", without the output. */
  readonly args: () => readonly string[];
  readonly inputs: () => readonly string[];
  /** The goal: our time / theirs is at most that. */
  readonly atMost: number;
  /** The same against their best switches, where those help them. */
  readonly atMostOfBest?: number;
}

function conversionCase({ directory, zcow }: CaseContext, conversion: Conversion, warm: (path: string) => void): Case {
  const output = (who: string): string => join(directory, `converted-by-${who}.img`);
  const runOf = (who: string, program: readonly string[], switches: readonly string[]) => () => {
    rmSync(output(who), { force: true });
    const [command = "", ...first] = program;
    return longProcess(command, [...first, ...conversion.args(), ...switches, output(who)], directory);
  };
  const stock = (who: string, switches: readonly string[]) => runOf(who, ["qemu-img"], switches);
  const peers = [
    { name: "qemu-img", goal: { ratio: 1 / conversion.atMost }, run: stock("qemu-img", []) },
    ...(conversion.atMostOfBest === undefined
      ? []
      : [
          {
            name: `qemu-img ${BEST_SWITCHES.join(" ")}`,
            goal: { ratio: 1 / conversion.atMostOfBest },
            run: stock("qemu-img", BEST_SWITCHES),
          },
        ]),
  ];
  return {
    name: `convert ${conversion.name}`,
    requests: 1,
    prepare: () => conversion.inputs().forEach(warm),
    ours: runOf("zcow", [process.execPath, zcow], []),
    peers,
    remark: () => {
      const [ours, theirs] = [allocated(output("zcow")), allocated(output("qemu-img"))];
      for (const who of ["zcow", "qemu-img"]) rmSync(output(who), { force: true });
      return `  allocated: ${(ours / MIB).toFixed(1)} MiB / ${(theirs / MIB).toFixed(1)} MiB = ${(ours / theirs).toFixed(4)}`;
    },
  };
}

function allocated(path: string): number {
  return existsSync(path) ? statSync(path).blocks * SECTOR_BYTES : Number.NaN;
}

/** Mixed data of 2 GiB, and data of which every cluster shrinks, 256 MiB each; `scale` makes them smaller. */
export function convertCases(context: CaseContext): Case[] {
  const { images, scale } = context;
  const mixedBytes = Math.max(4, Math.round(2048 * scale)) * MIB;
  const otherBytes = Math.max(1, Math.round(256 * scale)) * MIB;
  const raw = (): string => images.mixed(mixedBytes).raw;
  const plain = (): string => images.mixed(mixedBytes).qcow2;
  const compressed = (method: "zlib" | "zstd") => (): string => images.ofKind(method, mixedBytes);
  const one = (
    name: string,
    switches: readonly string[],
    input: () => string,
    atMost: number,
    atMostOfBest?: number,
  ): Case => {
    const args = (): string[] => [...switches, input()];
    const best = atMostOfBest === undefined ? {} : { atMostOfBest };
    return conversionCase(context, { name, args, inputs: () => [input()], atMost, ...best }, (path) =>
      images.warm(path),
    );
  };
  const fromRaw = ["convert", "-f", "raw", "-O", "qcow2"];
  const fromQcow2 = ["convert", "-f", "qcow2", "-O", "raw"];
  const zlib = [...compressing("zlib"), "-f", "raw"];
  const zstd = [...compressing("zstd"), "-f", "raw"];
  return [
    one("raw to qcow2", fromRaw, raw, 1),
    one("qcow2 to raw", fromQcow2, plain, 1),
    one("qcow2 to qcow2", ["convert", "-f", "qcow2", "-O", "qcow2"], plain, 1),
    one("mixed data, -c zlib", zlib, raw, 0.17, 0.29),
    one("text, -c zlib", zlib, () => images.ofKind("text", otherBytes), 0.4, 0.67),
    one("half of each cluster random, -c zlib", zlib, () => images.ofKind("half random", otherBytes), 0.4, 0.67),
    one("mixed data, -c zstd", zstd, raw, 0.5, 0.67),
    one("from zlib to raw", fromQcow2, compressed("zlib"), 0.56),
    one("from zstd to raw", fromQcow2, compressed("zstd"), 0.72),
  ];
}
