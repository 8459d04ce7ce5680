import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { standInHere } from "../support/stand-in-here.js";
import {
  describeWithStock,
  expectSameContents,
  findTool,
  runTool,
  type ToolResult,
  temporaryDirectory,
} from "../support/stock-tools.js";
import { withoutTimes, wordsOf } from "../support/tool-lines.js";
import { BuiltCommand } from "./built-command.js";

type Tool = "qemu-img" | "qemu-io";

const IMAGES = [
  "qemu-img create -q -f qcow2 a.qcow2 64M",
  "qemu-io -f qcow2 -c 'write 0 64k' -c 'write 1M 128k' -c 'write -z 2M 64k' -c 'write 3M 100' -c 'write 3147000 512' a.qcow2",
  "qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 1000",
  "qemu-img create -q -f qcow2 -o compat=1.1,lazy_refcounts=on,extended_l2=on,cluster_size=128k ext.qcow2 3G",
  "qemu-img create -q -f qcow2 -o refcount_bits=1,cluster_size=512 small.qcow2 1M",
  "qemu-img create -q -f qcow2 -o data_file=df.raw,data_file_raw=on df.qcow2 1M",
  "qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 over.qcow2",
  "qemu-img create -q -f qcow2 frag.qcow2 64M",
  "qemu-io -f qcow2 -c 'write 1M 64k' -c 'write 512k 64k' -c 'write 640k 64k' frag.qcow2",
  "qemu-img create -q -f qcow2 zlib.qcow2 1000k",
  "qemu-img create -q -f qcow2 -o compression_type=zstd,cluster_size=4k zstd.qcow2 1000k",
  "qemu-img create -q -f qcow2 -o data_file=df2.raw df2.qcow2 1M",
  "qemu-img create -q -f qcow2 -o compression_type=zstd zstdinfo.qcow2 1M",
  "truncate -s 5000 odd.raw",
  "truncate -s 4096 text.raw",
  "cp frag.qcow2 leak.qcow2",
  "truncate -s 2M leak.qcow2",
  "cp frag.qcow2 bad.qcow2",
];

describeWithStock("standing in for the stock tools, the command prints and exits as they do", () => {
  const root = temporaryDirectory();
  const ours = join(root, "ours");
  const theirs = join(root, "theirs");
  let command: BuiltCommand;

  beforeAll(async () => {
    command = await BuiltCommand.build(join(root, "built"));
    // Made twice and not copied: copies would differ in holes, and so in their disk size.
    await Promise.all([makeImages(ours), makeImages(theirs)]);
  });

  async function makeImages(folder: string): Promise<void> {
    mkdirSync(folder);
    for (const line of IMAGES) {
      const [program = "", ...args] = wordsOf(line);
      const made = await runTool("env", ["-C", folder, program, ...args]);
      if (made.code !== 0) throw new Error(`${line}: ${made.stderr}`);
    }
    // The refcount block of a fresh image is cluster 2: one count too high, one cluster in use without a count.
    await poke(join(folder, "leak.qcow2"), 131_072 + 2 * 20, "\\x00\\x02");
    await poke(join(folder, "bad.qcow2"), 131_072 + 2 * 5, "\\x00\\x00");
  }

  async function poke(path: string, offset: number, bytes: string): Promise<void> {
    const script = `printf '${bytes}' | dd of=${path} bs=1 seek=${offset} conv=notrunc`;
    expect((await runTool("sh", ["-c", script])).code).toBe(0);
  }

  async function bothRun(tool: Tool, args: readonly string[]): Promise<[ToolResult, ToolResult]> {
    const stock = findTool(tool) ?? tool;
    return Promise.all([runTool("env", ["-C", theirs, stock, ...args]), runHere(tool, args)]);
  }

  /** Our program within this process, which spares a start of Node.js for each of many runs. */
  async function runHere(tool: Tool, args: readonly string[]): Promise<ToolResult> {
    process.chdir(ours);
    return standInHere(tool, args);
  }

  async function expectSame(tool: Tool, args: readonly string[]): Promise<void> {
    const [stock, own] = await bothRun(tool, args);
    expect(withoutTimes(own)).toEqual(withoutTimes(stock));
  }

  async function expectSameOnInput(args: readonly string[], stdin: string): Promise<void> {
    const stock = await runTool("env", ["-C", theirs, findTool("qemu-io") ?? "qemu-io", ...args], stdin);
    expect(withoutTimes(await command.standIn("qemu-io", ours, args, stdin))).toEqual(withoutTimes(stock));
  }

  it.each([
    "qemu-img create -f qcow2 n1.qcow2 1.5M",
    "qemu-img create -f qcow2 -o size=1M n2.qcow2",
    "qemu-img create -f qcow2 -o cluster_size=4k -o refcount_bits=1 -o size=1M,compat=v3 'n 3.qcow2'",
    "qemu-img create -f qcow2 -o preallocation=full n4.qcow2 1M",
    "qemu-img create -f qcow2 -o lazy_refcounts n5.qcow2 1M",
    "qemu-img create -f qcow2 -o nolazy_refcounts n6.qcow2 1M",
    "qemu-img create -f qcow2 n7.qcow2 1000",
    "qemu-img create -f qcow2 -q n8.qcow2 1M",
    "qemu-img create n9 1M",
    "qemu-img create -f raw -o size=1000 n10",
    "qemu-img create -f raw -o preallocation=full n11 1M",
    "qemu-img create -f raw -o preallocation=off,size=3M n12",
    "qemu-img create -f qcow2",
    "qemu-img create",
    "qemu-img create -f",
    "qemu-img create -f qcow2 x.qcow2",
    "qemu-img create -f nope x 1M",
    "qemu-img create -f qcow2 x.qcow2 abc",
    "qemu-img create -f qcow2 x.qcow2 -1",
    "qemu-img create -f qcow2 x.qcow2 8E",
    "qemu-img create -f qcow2 x.qcow2 9000P",
    "qemu-img create -f qcow2 -o size=1M x.qcow2 2M",
    "qemu-img create -f qcow2 -o size x.qcow2",
    "qemu-img create -f qcow2 -o bogus=1 x.qcow2 1M",
    "qemu-img create -f qcow2 -o =1 x.qcow2 1M",
    "qemu-img create -f qcow2 -o ,size=1M x.qcow2",
    "qemu-img create -f qcow2 -o '' x.qcow2 1M",
    "qemu-img create -f qcow2 -o cluster_size=3 x.qcow2 1M",
    "qemu-img create -f qcow2 -o cluster_size=abc x.qcow2 1M",
    "qemu-img create -f qcow2 -o compat=9 x.qcow2 1M",
    "qemu-img create -f qcow2 -o lazy_refcounts=maybe x.qcow2 1M",
    "qemu-img create -f qcow2 -o refcount_bits=3 x.qcow2 1M",
    "qemu-img create -f qcow2 -o refcount_bits=abc x.qcow2 1M",
    "qemu-img create -f qcow2 -o compat=0.10,lazy_refcounts=on x.qcow2 1M",
    "qemu-img create -f qcow2 x.qcow2 1k -o preallocation=bogus",
    "qemu-img create -f qcow2 -o cluster_size=512 x.qcow2 10T",
    "qemu-img create -f qcow2 /nonexistent/x.qcow2 1M",
    "qemu-img create -f raw / 1M",
    "qemu-img create -f raw q.raw 1M -o bogus=1",
    "qemu-img create -f raw -o preallocation=bogus q.raw 1M",
    "qemu-img create -f qcow2 x.qcow2 1M extra",
    "qemu-img create -f nope -o help",
    "qemu-img create -Z x",
    "qemu-img",
    "qemu-img bogus",
    "qemu-img --bogus",
  ])("%s", (line) => expectSame("qemu-img", wordsOf(line).slice(1)));

  it.each([
    "qemu-img info a.qcow2",
    "qemu-img info --output=json a.qcow2",
    "qemu-img info --out json a.qcow2",
    "qemu-img info -fqcow2 -U a.qcow2",
    "qemu-img info v2.qcow2",
    "qemu-img info --output=json v2.qcow2",
    "qemu-img info ext.qcow2",
    "qemu-img info --output=json ext.qcow2",
    "qemu-img info small.qcow2",
    "qemu-img info df.qcow2",
    "qemu-img info --output=json df.qcow2",
    "qemu-img info over.qcow2",
    "qemu-img info --output=json over.qcow2",
    "qemu-img info ../theirs/over.qcow2",
    "qemu-img info --output=json ../theirs/over.qcow2",
    "qemu-img info odd.raw",
    "qemu-img info --output=json odd.raw",
    "qemu-img info -f raw a.qcow2",
    "qemu-img info --image-opts driver=qcow2,file.filename=a.qcow2",
    "qemu-img info",
    "qemu-img info nofile",
    "qemu-img info /",
    "qemu-img info -f qcow2 odd.raw",
    "qemu-img info -f nope a.qcow2",
    "qemu-img info --output=xml a.qcow2",
    "qemu-img info --output",
    "qemu-img info -f",
    "qemu-img info -q a.qcow2",
    "qemu-img info --bogus a.qcow2",
    "qemu-img info a.qcow2 b",
  ])("%s", (line) => expectSame("qemu-img", wordsOf(line).slice(1)));

  it.each([
    "qemu-img map a.qcow2",
    "qemu-img map --output=json a.qcow2",
    "qemu-img map -f qcow2 --start-offset=64k --max-length=1M --output=json a.qcow2",
    "qemu-img map --start-offset=64k --max-length=1M a.qcow2",
    "qemu-img map --output=json --start-offset=1 --max-length=1 a.qcow2",
    "qemu-img map --output=json --start-offset=65M a.qcow2",
    "qemu-img map -s 0 -l 5 a.qcow2",
    "qemu-img map --output=json v2.qcow2",
    "qemu-img map --output=json odd.raw",
    "qemu-img map odd.raw",
    "qemu-img map --start-offset=abc a.qcow2",
    "qemu-img map --max-length=-5 a.qcow2",
    "qemu-img map nofile",
    "qemu-img map -f nope a.qcow2",
    "qemu-img map",
  ])("%s", (line) => expectSame("qemu-img", wordsOf(line).slice(1)));

  it.each([
    "qemu-img check a.qcow2",
    "qemu-img check --output=json a.qcow2",
    "qemu-img check -q a.qcow2",
    "qemu-img check frag.qcow2",
    "qemu-img check --output=json frag.qcow2",
    "qemu-img check leak.qcow2",
    "qemu-img check --output=json leak.qcow2",
    "qemu-img check -q --output=json leak.qcow2",
    "qemu-img check -r leaks leak.qcow2",
    "qemu-img check leak.qcow2",
    "qemu-img check bad.qcow2",
    "qemu-img check --output=json bad.qcow2",
    "qemu-img check odd.raw",
    "qemu-img check -f qcow2 odd.raw",
    "qemu-img check -r bogus a.qcow2",
    "qemu-img check -T bad a.qcow2",
    "qemu-img check -U -r all a.qcow2",
    "qemu-img check nofile",
    "qemu-img check",
  ])("%s", (line) => expectSame("qemu-img", wordsOf(line).slice(1)));

  it.each([
    "qemu-img amend",
    "qemu-img amend a.qcow2",
    "qemu-img amend -o bogus=1 a.qcow2",
    "qemu-img amend -o cluster_size=4k a.qcow2",
    "qemu-img amend -f raw -o size=1M odd.raw",
  ])("%s", (line) => expectSame("qemu-img", wordsOf(line).slice(1)));

  const io = (...commands: readonly string[]): string[] => commands.flatMap((line) => ["-c", line]);

  it.each([
    [
      "reads",
      [
        "read 0 512",
        "read -P 0xcd 0 64k",
        "read -v 90 33",
        "read -vq 0 40",
        "read -q 0 1",
        "r 64M 0",
        "readv 0 512 1k",
      ],
    ],
    [
      "patterns",
      [
        "read -P 1 0 512",
        "read -P 0xcd -s 5 -l 10 0 512",
        "read -P 1 -s 600 0 512",
        "read -P 0x100 0 1",
        "read -P -1 0 1",
        "readv -P 1 0 512 512",
        "read -P 0315 0 512",
      ],
    ],
    [
      "writes",
      [
        "write -P 0x41 100 3",
        "write -z 4M 64k",
        "write -zu 4M 64k",
        "write -f 5M 512",
        "writev 6M 512 512",
        "write -C -q 0 512",
        "discard 1M 64k",
        "w 0 0",
        "read -P 0x41 100 3",
      ],
    ],
    [
      "options that exclude each other",
      [
        "write -bz 0 512",
        "write -fb 0 512",
        "write -fc 0 512",
        "write -n 0 512",
        "write -u 0 512",
        "write -z -P 1 0 512",
        "write -zs x 0 512",
        "write -c 1 512",
        "write -c 0 1",
        "read -b 1 512",
        "write -s nofile 0 512",
        "write -s /dev/null 0 512",
        "read -l 5 0 512",
      ],
    ],
    [
      "requests past the end",
      [
        "write 64M 512",
        "write -z 64M 512",
        "discard 64M 512",
        "readv 64M 512",
        "writev 64M 512",
        "read 1 64M",
        "read 9223372036854775807 1",
      ],
    ],
    [
      "numbers that are none",
      [
        "read x 512",
        "read 0 x",
        "read 99999999999999999999 1",
        "read 0 -1",
        "alloc x",
        "alloc 0 x",
        "truncate x",
        "write 0 4G",
        "read 0 3G",
        "readv 0 3G",
        "readv 0 2G 2G",
        "discard 0 3G",
      ],
    ],
    [
      "wrong arguments",
      [
        "read",
        "read 0",
        "read 0 512 512",
        "read -Z 0 512",
        "read -P",
        "alloc 0 1 2",
        "map 1",
        "length 1",
        "flush x",
        "truncate",
        "bogus",
        "help nope",
        "",
        "read -- 0 512",
      ],
    ],
    [
      "asynchronous requests",
      [
        "aio_read 0 512",
        "aio_flush",
        "aio_write -P 7 8M 512 512",
        "aio_flush",
        "aio_read -P 7 8M 1k",
        "aio_flush",
        "aio_write -zu 8M 64k",
        "aio_flush",
        "aio_read 64M 512",
        "aio_flush",
      ],
    ],
    [
      "asynchronous options",
      ["aio_write -u 0 64k", "aio_write -z 0 64k 64k", "aio_write -i 0 512", "aio_read -i 0 512", "aio_read 0 x"],
    ],
    [
      "maps",
      [
        "alloc 0",
        "alloc 0 512",
        "alloc 0 64M",
        "alloc 1M 4M",
        "alloc 64M 1",
        "map",
        "length",
        "l",
        "info",
        "i",
        "flush",
        "f",
      ],
    ],
    [
      "images opened and closed",
      [
        "close",
        "read 0 1",
        "open a.qcow2",
        "open a.qcow2",
        "close",
        "open -r a.qcow2",
        "write 0 1",
        "close",
        "open nofile",
        "open",
        "open -o driver=qcow2 a.qcow2",
        "read 0 1",
        "reopen -r",
        "write 0 1",
        "reopen -w",
        "write 0 1",
      ],
    ],
    ["the end", ["sleep 1", "quit", "read 0 1"]],
  ])("qemu-io: %s", (_name, commands) => expectSame("qemu-io", ["-f", "qcow2", "a.qcow2", ...io(...commands)]));

  it.each([
    "qemu-io -f qcow2 nofile",
    "qemu-io -f nofmt a.qcow2 -c quit",
    "qemu-io -t bad a.qcow2",
    "qemu-io -r -f qcow2 -c 'write 0 512' a.qcow2",
    "qemu-io --image-opts -c 'read 0 1' driver=qcow2,file.filename=a.qcow2",
    "qemu-io -n -f qcow2 -c 'read 0 512' -c 'write 0 1' a.qcow2",
    "qemu-io -t directsync -f qcow2 -c 'write 0 1' a.qcow2",
    "qemu-io -U -r -f qcow2 -c 'read 0 512' a.qcow2",
    "qemu-io -c 'read 0 512' text.raw",
    "qemu-io -r -c 'read 0 512' text.raw",
    "qemu-io -c 'write -s a.qcow2 0 512' -c 'write 0 512' text.raw",
    "qemu-io -f raw -c 'write 100 200' -c 'read -P 0xcd 100 200' -c 'write 5000 120' -c 'write 5000 121' -c map -c info -c length odd.raw",
  ])("%s", (line) => expectSame("qemu-io", wordsOf(line).slice(1)));

  const compressing = io(
    "write -c -P 1 0 64k",
    "write -c -P 2 64k 320k",
    "read -P 1 0 64k",
    "read -P 2 65k 100k",
    "write -c -P 3 0 64k",
    "write -c 960k 40k",
    "read -P 0xcd 960k 40k",
    "write -c 960k 36k",
    "write -c 512 64k",
    "write -c 512k 512",
    "write -c 1000k 64k",
    "write -c 1000k 0",
    "write -cq -P 4 448k 64k",
    "write -c 512k 64k",
    "write -c -z 576k 64k",
    "write -c -P 5 576k 64k",
    "write -z 640k 64k",
    "write -c -P 6 640k 64k",
    "write -P 7 704k 64k",
    "write -c -P 8 704k 64k",
    "write -z 704k 64k",
    "write -c -P 9 704k 64k",
    "write -P 10 70k 1k",
    "read -P 2 64k 6k",
    "read -P 10 70k 1k",
    "read -P 2 71k 57k",
    "discard 128k 64k",
    "write -z 192k 64k",
    "write -z 256k 1k",
    "read -P 2 257k 63k",
    "read -P 0 192k 65k",
    "map 0 512k",
  );

  it.each(["zlib.qcow2", "zstd.qcow2"])("qemu-io: compressed writes of %s", async (image) => {
    await expectSame("qemu-io", ["-f", "qcow2", image, ...compressing]);
    for (const line of [
      "map",
      "map --output=json",
      "check",
      "check --output=json",
      "info --output=json zstdinfo.qcow2",
    ]) {
      const [command = "", ...rest] = wordsOf(line);
      await expectSame("qemu-img", [command, ...rest, ...(line.endsWith(".qcow2") ? [] : [image])]);
    }
    await expectSame("qemu-io", ["-r", "-f", "qcow2", image, ...io("write -c 768k 64k", "read -P 4 448k 64k")]);
    await expectSameContents(join(ours, image), "qcow2", join(theirs, image), "qcow2");
  });

  it.each(["-f raw odd.raw", "-f qcow2 df2.qcow2"])("qemu-io: no compressed writes of %s", async (image) => {
    await expectSame("qemu-io", [...wordsOf(image), ...io("write -c 0 64k", "write -c 0 1")]);
  });

  it("prompts on piped input, too", async () => {
    await expectSameOnInput(["-f", "qcow2", "a.qcow2"], "read 0 512\nwrite 0 512\nbogus\n\nquit\nread 0 1\n");
    await expectSameOnInput(["-f", "qcow2", "a.qcow2"], "read 0 512\nread 0 512");
    await expectSameOnInput([], "");
    await expectSameOnInput([], "read 0 512\nopen -r a.qcow2\nread 0 512\nwrite 0 512\nclose\n");
  });

  it.each(["abort", "sigraise 15", "sigraise 9"])("qemu-io: %s ends the program in the same way", async (line) => {
    const args = ["-c", "read 0 512", "-c", line, "-f", "qcow2", "a.qcow2"];
    const stock = await runTool("env", ["-C", theirs, "sh", "-c", '"$@"; echo $?', "sh", "qemu-io", ...args]);
    const own = await command.shell(
      ours,
      `${join(root, "built/qemu-io")} ${args.map((word) => `'${word}'`).join(" ")}; echo $?`,
    );
    // What the stock tool had printed and not written yet is lost.
    expect(own.stdout.trim().split("\n").at(-1)).toBe(stock.stdout.trim().split("\n").at(-1));
    expect(own.stdout).toMatch(/^read 512\/512 bytes/);
  });

  it("leaves images behind that hold the same bytes and are sound", async () => {
    for (const [name, format] of [
      ["a.qcow2", "qcow2"],
      ["odd.raw", "raw"],
      ["text.raw", "raw"],
    ] as const) {
      await expectSameContents(join(ours, name), format, join(theirs, name), format);
    }
    const [stock, own] = [join(theirs, "a.qcow2"), join(ours, "a.qcow2")];
    for (const path of [stock, own]) expect((await runTool("qemu-img", ["check", path])).code).toBe(0);
  });
});
