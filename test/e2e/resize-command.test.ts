import { copyFileSync, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { ourQemuImg } from "../support/stand-in-here.js";
import {
  describeWithStock,
  expectCleanCheck,
  expectSameContents,
  qemuImg,
  qemuIo,
  type ToolResult,
  temporaryDirectory,
} from "../support/stock-tools.js";

/** `resize`, beside the stock tool on a copy of the same file. */

describeWithStock("resize, beside the stock tool", () => {
  const root = temporaryDirectory();

  beforeAll(async () => {
    const run = async (...args: string[]): Promise<void> => expect((await qemuImg(args)).code, args.join(" ")).toBe(0);
    const image = (name: string): string => join(root, name);
    await run("create", "-q", "-f", "qcow2", image("a.qcow2"), "8M");
    await qemuIo(["-c", "write -P 3 1M 3M", "-c", "write -P 4 7M 1M", image("a.qcow2")]);
    copyFileSync(image("a.qcow2"), image("kept.qcow2"));
    await run("snapshot", "-c", "first", image("kept.qcow2"));
    await run("create", "-q", "-f", "qcow2", "-o", "compat=0.10", image("v2.qcow2"), "8M");
    copyFileSync(image("v2.qcow2"), image("v2s.qcow2"));
    await run("snapshot", "-c", "first", image("v2s.qcow2"));
    await run("create", "-q", "-f", "qcow2", "-o", "cluster_size=512", image("small.qcow2"), "1M");
    await qemuIo(["-c", "write -P 5 0 1M", image("small.qcow2")]);
    await run("create", "-q", "-f", "raw", image("r.raw"), "1M");
    await run("create", "-q", "-f", "raw", image("base.raw"), "4M");
    await qemuIo(["-f", "raw", "-c", "write -P 7 0 4M", image("base.raw")]);
    await run("create", "-q", "-f", "qcow2", "-b", image("base.raw"), "-F", "raw", image("over.qcow2"), "1M");
  });

  it.each([
    "resize",
    "resize a.qcow2",
    "resize a.qcow2 +1M",
    "resize -q a.qcow2 9M",
    "resize a.qcow2 8M",
    "resize a.qcow2 +0",
    "resize a.qcow2 1G",
    "resize a.qcow2 100G",
    "resize a.qcow2 4M",
    "resize a.qcow2 -1M",
    "resize --shrink a.qcow2 -1M",
    "resize --shrink a.qcow2 2M",
    "resize --shrink a.qcow2 -1G",
    "resize --shrink a.qcow2 0",
    "resize a.qcow2 abc",
    "resize a.qcow2 +",
    "resize a.qcow2 8000001",
    "resize --shrink a.qcow2 1000001",
    "resize a.qcow2 9000P",
    "resize a.qcow2 100P",
    "resize a.qcow2 8E",
    "resize a.qcow2 9M --preallocation=metadata",
    "resize --preallocation=foo a.qcow2 9M",
    "resize --preallocation=metadata a.qcow2 9M",
    "resize --preallocation=falloc a.qcow2 9M",
    "resize --preallocation=full a.qcow2 9M",
    "resize --preallocation=full a.qcow2 8M",
    "resize --shrink --preallocation=full a.qcow2 1M",
    "resize kept.qcow2 1G",
    "resize --shrink kept.qcow2 2M",
    "resize v2.qcow2 600M",
    "resize v2s.qcow2 9M",
    "resize small.qcow2 64M",
    "resize small.qcow2 1T",
    "resize --preallocation=metadata small.qcow2 2M",
    "resize --shrink small.qcow2 16k",
    "resize over.qcow2 3M",
    "resize over.qcow2 9M",
    "resize --preallocation=metadata over.qcow2 3M",
    "resize --shrink over.qcow2 512k",
    "resize nofile 1M",
    "resize a.qcow2 1M 2M",
    "resize --image-opts driver=qcow2,file.filename=a.qcow2 9M",
    "resize -f raw r.raw 2M",
    "resize r.raw 2M",
    "resize -f raw r.raw 1000",
    "resize -f raw --shrink r.raw 1000",
    "resize -f raw --preallocation=metadata r.raw 2M",
    "resize -f raw --preallocation=falloc r.raw 2M",
    "resize -f raw --preallocation=full r.raw 2M",
  ])("prints, exits and leaves the disk alike: %s", async (line) => {
    const results: ToolResult[] = [];
    const images: string[] = [];
    for (const run of [qemuImg, ourQemuImg]) {
      const folder = join(root, `${results.length}`);
      mkdirSync(folder, { recursive: true });
      const args = line.split(" ").map((word) => {
        const name = word.replace("driver=qcow2,file.filename=", "");
        if (!/\.(qcow2|raw)$/.test(name)) return word;
        copyFileSync(join(root, name), join(folder, name));
        images.push(join(folder, name));
        return word.replace(name, join(folder, name));
      });
      const { stdout, stderr, code } = await run(args);
      const plain = (text: string): string => text.replaceAll(folder, "DIR");
      results.push({ stdout: plain(stdout), stderr: plain(stderr), code });
    }
    expect(results[1]).toEqual(results[0]);
    const [theirs, own] = images;
    if (theirs === undefined || own === undefined) return;
    const format = own.endsWith(".raw") ? "raw" : "qcow2";
    if (format === "raw") expect(statSync(own).size).toBe(statSync(theirs).size);
    else await expectCleanCheck(own);
    const sizeOf = async (path: string): Promise<number> => {
      const { stdout } = await qemuImg(["info", "-f", format, "--output=json", path]);
      return (JSON.parse(stdout) as { "virtual-size": number })["virtual-size"];
    };
    expect(await sizeOf(own)).toBe(await sizeOf(theirs));
    if ((await sizeOf(own)) <= 2 ** 30) await expectSameContents(own, format, theirs, format);
  });

  it("takes the external data file along", async () => {
    const [path, data] = [join(root, "ext.qcow2"), join(root, "ext.raw")];
    const made = ["create", "-q", "-f", "qcow2", "-o", `data_file=${data},data_file_raw=on`, path, "4M"];
    expect((await qemuImg(made)).code).toBe(0);
    await qemuIo(["-c", "write -P 3 0 4M", path]);
    for (const [args, size] of [
      [["resize", "-q", path, "600M"], 600 * 2 ** 20],
      [["resize", "-q", "--shrink", path, "1M"], 2 ** 20],
    ] as const) {
      expect(await ourQemuImg(args)).toEqual({ stdout: "", stderr: "", code: 0 });
      expect(statSync(data).size).toBe(size);
      await expectCleanCheck(path);
    }
    await expectSameContents(path, "qcow2", data, "raw");
    expect((await qemuIo(["-r", "-c", "read -P 3 0 1M", path])).stdout).not.toContain("failed");
  });

  it("makes the file smaller with the disk", async () => {
    const path = join(root, "cut.qcow2");
    await qemuImg(["create", "-q", "-f", "qcow2", path, "64M"]);
    await qemuIo(["-c", "write -P 3 0 64M", path]);
    expect((await ourQemuImg(["resize", "-q", "--shrink", path, "8M"])).code).toBe(0);
    await expectCleanCheck(path);
    expect(statSync(path).size).toBeLessThan(9 * 2 ** 20 + 2 ** 19);
  });

  it("what was cut off does not come back when the disk grows again, to the byte", async () => {
    const path = join(root, "again.qcow2");
    await qemuImg(["create", "-q", "-f", "qcow2", path, "1M"]);
    await qemuIo(["-c", "write -P 3 0 1M", path]);
    expect((await ourQemuImg(["resize", "-q", "--shrink", path, "100k"])).code).toBe(0);
    expect((await ourQemuImg(["resize", "-q", path, "1M"])).code).toBe(0);
    const read = await qemuIo(["-r", "-c", "read -P 3 0 100k", "-c", "read -P 0 100k 924k", path]);
    expect(read.stdout + read.stderr).not.toContain("verification failed");
    await expectCleanCheck(path);
  });
});
