import { mkdirSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { readBitmap } from "../../src/jobs/bitmap.js";
import { ourQemuImg } from "../support/stand-in-here.js";
import { describeWithStock, qemuImg, runTool, type ToolResult, temporaryDirectory } from "../support/stock-tools.js";
import { wordsOf } from "../support/tool-lines.js";

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
  "qemu-img create -q -f qcow2 rich.qcow2 9M",
  "qemu-io -f qcow2 -c 'write -P 1 64k 3M' rich.qcow2",
  "qemu-img snapshot -c first rich.qcow2",
  "qemu-img bitmap --add rich.qcow2 b1",
  "qemu-io -f qcow2 -c 'write -P 2 2M 300k' rich.qcow2",
  "qemu-img bitmap --add --disable -g 128k rich.qcow2 b2",
  "qemu-img create -q -f qcow2 base.qcow2 9M",
  "qemu-io -f qcow2 -c 'write -P 1 0 9M' base.qcow2",
  "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2",
  "qemu-io -f qcow2 -c 'write -P 5 1M 1M' -c 'write -z 3M 500k' -c 'write -P 0 5M 70k' over.qcow2",
  "qemu-img create -q -f raw existing9.raw 9M",
  "qemu-img create -q -f qcow2 existing9.qcow2 9M",
  "qemu-img create -q -f qcow2 large.qcow2 12M",
  "qemu-img create -q -f qcow2 old.qcow2 -o compat=0.10 9M",
  "qemu-img create -q -f qcow2 filled.qcow2 9M",
  "qemu-io -f qcow2 -c 'write -P 255 0 9M' filled.qcow2",
  "qemu-img create -q -f raw filled.raw 9M",
  "qemu-io -f raw -c 'write -P 255 0 9M' filled.raw",
  "qemu-img convert -f raw -O vmdk -o subformat=streamOptimized a.raw a.vmdk",
  "qemu-img convert -f raw -O vhdx a.raw a.vhdx",
];

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
      ["convert -C -O raw a.qcow2 t21", "raw"],
      ["convert -l first rich.qcow2 t22", "raw"],
      ["convert -l 1 -O qcow2 rich.qcow2 t23", "qcow2"],
      ["convert -l snapshot.id=1 rich.qcow2 t24", "raw"],
      ["convert -l snapshot.name=first,snapshot.id=1 -c -O qcow2 rich.qcow2 t25", "qcow2"],
      ["convert -r 1G -O raw a.qcow2 t26", "raw"],
      ["convert -r 0 -O raw a.qcow2 t27", "raw"],
      ["convert --image-opts driver=qcow2,file.filename=a.qcow2 t28", "raw"],
      ["convert --image-opts driver=qcow2,file.driver=file,file.filename=rich.qcow2 -l first t29", "raw"],
      [`convert json:{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}} t30`, "raw"],
      ["convert -n --target-image-opts rich.qcow2 driver=raw,file.filename=existing9.raw", "raw"],
      ["convert -n --target-is-zero -O qcow2 rich.qcow2 existing9.qcow2", "qcow2"],
      ["convert -B base.qcow2 -F qcow2 -O qcow2 over.qcow2 t31", "qcow2"],
      ["convert -c -B base.qcow2 -F qcow2 -O qcow2 over.qcow2 t32", "qcow2"],
      ["convert -o backing_file=base.qcow2,backing_fmt=qcow2 -O qcow2 rich.qcow2 t33", "qcow2"],
      ["convert -S 0 -B base.qcow2 -F qcow2 -O qcow2 over.qcow2 t34", "qcow2"],
      ["convert -B small.raw -F raw -O qcow2 rich.qcow2 t35", "qcow2"],
      ["convert -n -O qcow2 over.qcow2 filled.qcow2", "qcow2"],
      ["convert -n -O raw over.qcow2 filled.raw", "raw"],
      ["convert -O qcow2 -o data_file=t36.data,data_file_raw=on a.raw -f raw t36", "qcow2"],
    ])("%s", async (line, format) => {
      const [own, stock] = await bothRun(line);
      const steps = /(?: {4}\([0-9.]+\/100%\)\r)+/;
      expect({ ...own, stdout: own.stdout.replace(steps, "STEPS") }).toEqual({
        ...stock,
        stdout: stock.stdout.replace(steps, "STEPS"),
      });
      const target = (wordsOf(line).at(-1) ?? "").replace(/^driver=raw,file\.filename=/, "");
      const [a, b] = [join(ours, target), join(theirs, target)];
      expect((await qemuImg(["compare", "-f", format, "-F", format, a, b])).code).toBe(0);
      if (format === "qcow2") expect((await qemuImg(["check", a])).code).toBe(0);
    });
  });

  it("copies persistent bitmaps: their bits, granularity, and whether they record", async () => {
    for (const line of [
      "convert --bitmaps -O qcow2 rich.qcow2 bitmaps1",
      "convert --bitmaps -c -O qcow2 rich.qcow2 bitmaps2",
      "convert --bitmaps -l first -O qcow2 rich.qcow2 bitmaps3",
      "convert --bitmaps -n -O qcow2 rich.qcow2 existing9.qcow2",
    ]) {
      const [own, stock] = await bothRun(line);
      expect(own).toEqual(stock);
      expect(own.code).toBe(0);
      const target = wordsOf(line).at(-1) ?? "";
      expect((await qemuImg(["check", join(ours, target)])).code).toBe(0);
      const [mine, theirsToo] = await Promise.all(
        [ours, theirs].map(async (folder) => {
          const info = await qemuImg(["info", "--output=json", join(folder, target)]);
          return (JSON.parse(info.stdout) as { "format-specific": { data: object } })["format-specific"].data;
        }),
      );
      expect(mine).toEqual(theirsToo);
      expect(await marked(join(ours, target), "b1")).toEqual(await marked(join(theirs, target), "b1"));
      expect((await marked(join(ours, target), "b1")).length).toBeGreaterThan(0);
    }
  });

  it("fills encrypted images", async () => {
    const secret = "--object secret,id=s0,data=abc";
    const options = "encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10";
    const [own, stock] = await bothRun(`convert ${secret} -O qcow2 -o ${options} a.qcow2 encrypted`);
    expect(own).toEqual({ code: 0, stdout: "", stderr: "" });
    expect(own).toEqual(stock);
    const image = `driver=qcow2,encrypt.key-secret=s0,file.filename=${join(ours, "encrypted")}`;
    const plain = `driver=qcow2,file.filename=${join(ours, "a.qcow2")}`;
    expect((await qemuImg(["compare", ...wordsOf(secret), "--image-opts", plain, image])).code).toBe(0);
  });

  it("leaves out inconsistent bitmaps only when told to", async () => {
    for (const folder of [ours, theirs]) await markInUse(join(folder, "rich.qcow2"), join(folder, "broken.qcow2"));
    for (const line of [
      "convert --bitmaps -O qcow2 broken.qcow2 x",
      "convert --bitmaps --skip-broken-bitmaps -O qcow2 broken.qcow2 bitmaps4",
    ]) {
      const [own, stock] = await bothRun(line);
      expect(own).toEqual(stock);
    }
  });

  it("adds the same zeros and nothing else over a backing file", async () => {
    await bothRun("convert -B base.qcow2 -F qcow2 -O qcow2 over.qcow2 overlaid");
    const maps = await Promise.all(
      [ours, theirs].map((folder) => runTool("env", ["-C", folder, "qemu-img", "map", "overlaid"])),
    );
    expect(maps[0]?.stdout.replaceAll(/0x\w+ +(?=\S+$)/gm, "")).toEqual(
      maps[1]?.stdout.replaceAll(/0x\w+ +(?=\S+$)/gm, ""),
    );
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
      "convert -C -S 4k -O raw a.qcow2 x",
      "convert -C -c -O qcow2 a.qcow2 x",
      "convert --target-image-opts -O raw a.qcow2 driver=raw,file.filename=existing9.raw",
      "convert -n --target-image-opts -O raw a.qcow2 driver=raw,file.filename=existing9.raw",
      "convert --image-opts -f raw driver=raw,file.filename=a.raw x",
      "convert --image-opts driver=raw,file.filename=none x",
      "convert -l nope rich.qcow2 x",
      "convert -l snapshot.id=9 rich.qcow2 x",
      "convert -l snapshot.foo=9 rich.qcow2 x",
      "convert -l snapshot.id= rich.qcow2 x",
      "convert -l first -f raw a.raw x",
      "convert -l first rich.qcow2 rich.qcow2 x",
      "convert -l first none x",
      "convert -r foo -O raw a.qcow2 x",
      "convert --skip-broken-bitmaps -O qcow2 rich.qcow2 x",
      "convert --bitmaps -O raw rich.qcow2 x",
      "convert --bitmaps -f raw -O qcow2 a.raw x",
      "convert --bitmaps -O qcow2 -o compat=0.10 rich.qcow2 x",
      "convert --bitmaps -O qcow2 rich.qcow2 rich.qcow2 x",
      "convert --bitmaps -n -O qcow2 rich.qcow2 large.qcow2",
      "convert --bitmaps -n -O qcow2 rich.qcow2 rich2.qcow2",
      "convert -B base.qcow2 -O qcow2 a.qcow2 x",
      "convert -B none -F qcow2 -O qcow2 a.qcow2 x",
      "convert -B base.qcow2 -F qcow2 -O raw a.qcow2 x",
      "convert -B base.qcow2 -F qcow2 -O qcow2 a.qcow2 a.qcow2 x",
      "convert -F qcow2 -O qcow2 a.qcow2 x",
      "convert -n -o cluster_size=4k -O qcow2 a.qcow2 existing9.qcow2",
      "convert -s 1 a.qcow2 x",
      "convert -c -W a.qcow2 x",
      "convert -o preallocation=full -c -O qcow2 a.qcow2 x",
      "convert -f raw -O qcow2 a.raw a.raw",
      "convert -n -O qcow2 a.qcow2 a.qcow2",
      "convert -O qcow2 a.qcow2 a.qcow2",
    ])("%s", async (line) => {
      const [own, stock] = await bothRun(line);
      expect(own).toEqual(stock);
    });
  });
});

/** What the bitmap marks, as a list of runs. */
async function marked(path: string, name: string): Promise<readonly unknown[]> {
  return [...(await readBitmap(path, { format: "qcow2", name })).ranges()];
}

/** A copy whose first bitmap looks as after a crash. */
async function markInUse(from: string, to: string): Promise<void> {
  const bytes = await readFile(from);
  const extension = bytes.indexOf(Uint8Array.of(0x23, 0x85, 0x28, 0x75));
  const directory = Number(bytes.readBigUInt64BE(extension + 8 + 16));
  bytes[directory + 15] = (bytes[directory + 15] ?? 0) | 1;
  await writeFile(to, bytes);
}
