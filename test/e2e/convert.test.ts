import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { ourQemuImg } from "../support/stand-in-here.js";
import { describeWithStock, qemuImg, runTool, type ToolResult, temporaryDirectory } from "../support/stock-tools.js";

/** The same conversion by the stock tool and by ours, on inputs made alike: the same words, the same status, the same disk. */

const IMAGES = [
  "qemu-img create -q -f raw a.raw 5M",
  "qemu-io -f raw -c 'write -P 1 100k 300k' -c 'write -P 2 2M 70000' -c 'write -P 3 5242368 512' a.raw",
  "qemu-img create -q -f qcow2 a.qcow2 9M",
  "qemu-io -f qcow2 -c 'write -P 1 64k 3M' -c 'write -z 1M 128k' -c 'write -P 5 8M 1M' a.qcow2",
  "qemu-img create -q -f qcow2 -o compat=0.10,cluster_size=4k v2.qcow2 1M",
  "qemu-io -f qcow2 -c 'write -P 9 10k 300k' v2.qcow2",
  "qemu-img create -q -f raw empty.raw 0",
  "qemu-img create -q -f raw small.raw 1M",
  "qemu-img create -q -f raw existing.raw 12M",
  "qemu-io -f raw -c 'write -P 255 0 12M' existing.raw",
  "qemu-img create -q -f qcow2 existing.qcow2 12M",
  "qemu-io -f qcow2 -c 'write -P 255 0 12M' existing.qcow2",
  "qemu-img convert -f raw -O vmdk -o subformat=streamOptimized a.raw a.vmdk",
  "qemu-img convert -f raw -O vhdx a.raw a.vhdx",
];

function wordsOf(line: string): string[] {
  return [...line.matchAll(/'([^']*)'|(\S+)/g)].map((match) => match[1] ?? match[2] ?? "");
}

describeWithStock("converting", () => {
  const root = temporaryDirectory();
  const ours = join(root, "ours");
  const theirs = join(root, "theirs");

  beforeAll(async () => {
    for (const folder of [ours, theirs]) {
      mkdirSync(folder);
      for (const line of IMAGES) {
        const [program = "", ...args] = wordsOf(line);
        const made = await runTool("env", ["-C", folder, program, ...args]);
        if (made.code !== 0) throw new Error(`${line}: ${made.stderr}`);
      }
    }
  });

  async function runHere(args: readonly string[]): Promise<ToolResult> {
    process.chdir(ours);
    return ourQemuImg(args);
  }

  async function bothRun(line: string): Promise<[own: ToolResult, stock: ToolResult]> {
    const args = wordsOf(line);
    const stock = await runTool("env", ["-C", theirs, "qemu-img", ...args]);
    return [await runHere(args), stock];
  }

  describe("gives what the stock tool gives:", () => {
    it.each([
      ["convert -f raw -O qcow2 a.raw t1", "qcow2"],
      ["convert a.qcow2 t2", "raw"],
      ["convert -p -f qcow2 -O raw a.qcow2 t3", "raw"],
      ["convert -q -p -O qcow2 a.qcow2 t4", "qcow2"],
      ["convert -c -O qcow2 a.qcow2 t5", "qcow2"],
      ["convert -c -O qcow2 -o cluster_size=4k v2.qcow2 t6", "qcow2"],
      ["convert -O qcow2 -o compat=0.10,cluster_size=512 v2.qcow2 t7", "qcow2"],
      ["convert -S 0 -O raw a.qcow2 t8", "raw"],
      ["convert -S 64k -O qcow2 a.raw t9", "qcow2"],
      ["convert -S 512 -f raw -O raw a.raw t10", "raw"],
      ["convert -f raw a.raw small.raw t11", "raw"],
      ["convert -O qcow2 a.qcow2 v2.qcow2 a.qcow2 t12", "qcow2"],
      ["convert -f raw -O qcow2 empty.raw t13", "qcow2"],
      ["convert -n -O raw a.qcow2 existing.raw", "raw"],
      ["convert -n -O qcow2 a.qcow2 existing.qcow2", "qcow2"],
      ["convert -m 1 -W -O raw a.qcow2 t14", "raw"],
      ["convert -m 16 -t none -T none -O raw a.qcow2 t15", "raw"],
      ["convert -t writethrough -O qcow2 v2.qcow2 t16", "qcow2"],
      ["convert -U -O raw a.vmdk t17", "raw"],
      ["convert -O qcow2 a.vhdx t18", "qcow2"],
      ["convert -O qcow2 -o size=7M,preallocation=metadata a.raw -f raw t19", "qcow2"],
      ["convert --salvage -O raw a.qcow2 t20", "raw"],
    ])("%s", async (line, format) => {
      const [own, stock] = await bothRun(line);
      const steps = /(?: {4}\([0-9.]+\/100%\)\r)+/;
      expect({ ...own, stdout: own.stdout.replace(steps, "STEPS") }).toEqual({
        ...stock,
        stdout: stock.stdout.replace(steps, "STEPS"),
      });
      const target = wordsOf(line).at(-1) ?? "";
      const [a, b] = [join(ours, target), join(theirs, target)];
      expect((await qemuImg(["compare", "-f", format, "-F", format, a, b])).code).toBe(0);
      if (format === "qcow2") expect((await qemuImg(["check", a])).code).toBe(0);
    });
  });

  describe("is refused as by the stock tool:", () => {
    it.each([
      "convert",
      "convert a.raw",
      "convert -O foo a.raw x",
      "convert -f raw -O qcow2 nope.raw x",
      "convert -f raw -O qcow2 a.raw /nodir/x",
      "convert -c -f raw -O raw a.raw x",
      "convert -n -f raw -O qcow2 a.raw none",
      "convert --target-is-zero -f raw -O raw a.raw x",
      "convert -S 1000 -f raw -O raw a.raw x",
      "convert -S foo -f raw -O raw a.raw x",
      "convert -S 32M -f raw -O raw a.raw x",
      "convert -m 17 -f raw -O raw a.raw x",
      "convert -m 0 -f raw -O raw a.raw x",
      "convert -o foo=1 -O qcow2 a.qcow2 x",
      "convert -t foo -O raw a.qcow2 x",
      "convert -T foo -O raw a.qcow2 x",
      "convert -n -f raw -O raw a.raw small.raw",
      "convert -O qcow2 -o cluster_size=3 a.qcow2 x",
      "convert -f qcow2 -O raw a.raw x",
    ])("%s", async (line) => {
      const [own, stock] = await bothRun(line);
      expect(own).toEqual(stock);
    });
  });
});
