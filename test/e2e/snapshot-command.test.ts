import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { ourQemuImg } from "../support/stand-in-here.js";
import { describeWithStock, qemuImg, qemuIo, type ToolResult, temporaryDirectory } from "../support/stock-tools.js";

/** `snapshot` and the snapshots in `info`, beside the stock tool on a copy of the same file. */

describeWithStock("snapshot, beside the stock tool", () => {
  const root = temporaryDirectory();

  beforeAll(async () => {
    const run = async (...args: string[]): Promise<void> => expect((await qemuImg(args)).code, args.join(" ")).toBe(0);
    const image = (name: string): string => join(root, name);
    await run("create", "-q", "-f", "qcow2", image("a.qcow2"), "4M");
    await qemuIo(["-c", "write -P 3 0 1M", image("a.qcow2")]);
    await run("snapshot", "-c", "first", image("a.qcow2"));
    await run("snapshot", "-c", "a name that is wider than its column", image("a.qcow2"));
    await run("snapshot", "-c", "", image("a.qcow2"));
    await run("snapshot", "-c", "1", image("a.qcow2"));
    await run("create", "-q", "-f", "qcow2", "-o", "refcount_bits=1", image("narrow.qcow2"), "1M");
    await qemuIo(["-c", "write 0 64k", image("narrow.qcow2")]);
    await run("create", "-q", "-f", "qcow2", "-b", image("a.qcow2"), "-F", "qcow2", image("over.qcow2"));
    await run("snapshot", "-c", "one", image("over.qcow2"));
    await run("create", "-q", "-f", "qcow2", "-o", `data_file=${image("df.raw")}`, image("df.qcow2"), "1M");
    copyFileSync(image("a.qcow2"), image("marked.qcow2"));
    await run("bitmap", "--add", image("marked.qcow2"), "b");
    await run("create", "-q", "-f", "raw", image("r.raw"), "1M");
    damaged("extra.qcow2", (table) => table.setUint32(36, 2000));
    damaged("misplaced.qcow2", (table) => table.setBigUint64(0, 12_345n));
    damaged("large.qcow2", (table) => table.setUint32(8, 0x7fff_ffff));
    damaged("times.qcow2", (table) => {
      table.setBigUint64(24, 3_723_004_005_006n);
      table.setBigUint64(40, 5_000_000n);
      table.setBigUint64(56, 0xffff_ffff_ffff_ffffn);
    });
  });

  function damaged(name: string, change: (table: DataView) => void): void {
    const bytes = readFileSync(join(root, "a.qcow2"));
    const at = Number(bytes.readBigUInt64BE(64));
    change(new DataView(bytes.buffer, bytes.byteOffset + at));
    writeFileSync(join(root, name), bytes);
  }

  it.each([
    "snapshot a.qcow2",
    "snapshot -l a.qcow2",
    "snapshot -l -U a.qcow2",
    "snapshot -l times.qcow2",
    "snapshot -l extra.qcow2",
    "snapshot -l r.raw",
    "snapshot -l nofile",
    "snapshot --image-opts -l driver=qcow2,file.filename=a.qcow2",
    "snapshot",
    "snapshot -l",
    "snapshot -l a.qcow2 b",
    "snapshot -c x -l a.qcow2",
    "snapshot -c x -d first a.qcow2",
    "snapshot -c x -U a.qcow2",
    "snapshot -f qcow2 -l a.qcow2",
    "snapshot -c x nofile",
    "snapshot -c x narrow.qcow2",
    "snapshot -c x df.qcow2",
    "snapshot -a x df.qcow2",
    "snapshot -d x df.qcow2",
    "snapshot -d x r.raw",
    "snapshot -c x r.raw",
    "snapshot -a nope a.qcow2",
    "snapshot -d nope a.qcow2",
    "snapshot -d 2 a.qcow2",
    "snapshot -a first marked.qcow2",
    "snapshot -a first extra.qcow2",
    "snapshot -a first misplaced.qcow2",
    "snapshot -d first misplaced.qcow2",
    "snapshot -a first large.qcow2",
    "snapshot -d first large.qcow2",
    "snapshot -a 2 a.qcow2",
    "snapshot -q -d 1 a.qcow2",
    "snapshot -d first marked.qcow2",
  ])("prints and exits alike: %s", async (line) => {
    const results: ToolResult[] = [];
    const lists: string[] = [];
    for (const [index, run] of [qemuImg, ourQemuImg].entries()) {
      const folder = join(root, `${results.length}`);
      mkdirSync(folder, { recursive: true });
      const args = line.split(" ").map((word) => {
        const name = word.replace("driver=qcow2,file.filename=", "");
        if (!/\.(qcow2|raw)$/.test(name)) return word;
        copyFileSync(join(root, name), join(folder, name));
        return word.replace(name, join(folder, name));
      });
      const { stdout, stderr, code } = await run(args);
      const plain = (text: string): string => text.replaceAll(folder, "DIR");
      results.push({ stdout: plain(stdout), stderr: plain(stderr), code });
      const image = args.at(-1)?.replace("driver=qcow2,file.filename=", "") ?? "";
      if (image.startsWith(folder)) lists.push((await qemuImg(["snapshot", "-l", image])).stdout);
      expect(index).toBe(results.length - 1);
    }
    expect(results[1]).toEqual(results[0]);
    expect(lists[1]).toEqual(lists[0]);
  });

  it.each(["a.qcow2", "over.qcow2", "times.qcow2"])("info tells of the snapshots alike: %s", async (name) => {
    const path = join(root, name);
    for (const form of ["human", "json"]) {
      const args = ["info", `--output=${form}`, path];
      expect(await ourQemuImg(args)).toEqual(await qemuImg(args));
    }
  });
});
