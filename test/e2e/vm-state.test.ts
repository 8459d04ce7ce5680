import { copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { SideBySide } from "../support/side-by-side.js";
import { standInHere } from "../support/stand-in-here.js";
import { describeWithStock, runTool, temporaryDirectory } from "../support/stock-tools.js";

const OPTIONS = [
  "compat=1.1",
  "compat=0.10",
  "cluster_size=512",
  "extended_l2=on,cluster_size=16k",
  "lazy_refcounts=on",
];

describeWithStock("the state of a virtual machine, written and read with io -b", () => {
  const root = temporaryDirectory();

  describe.each(OPTIONS)("%s", (options) => {
    const folder = join(root, options);
    let both: SideBySide;
    const io = (...commands: string[]): Promise<void> =>
      both.expectSame(["qemu-io", "-f qcow2", ...commands.map((one) => `-c '${one}'`), "a.qcow2"].join(" "));
    const expectSound = async (): Promise<void> => {
      const { code, stdout, stderr } = await runTool("qemu-img", ["check", "-q", join(both.ours, "a.qcow2")]);
      expect(code, stdout + stderr).toBe(0);
    };

    beforeAll(async () => {
      mkdirSync(folder);
      both = new SideBySide(folder);
      await both.prepare(`qemu-img create -q -f qcow2 -o ${options} a.qcow2 1M
        qemu-io -f qcow2 -c 'write -q -P 5 100k 200k' a.qcow2`);
    });

    it("reads as zeros before, and as written after, whatever else is written", async () => {
      await io("read -b -P 0 0 64k");
      await io("write -b 0 64k", "read -b -P 0xcd 0 64k", "read -b -P 0 64k 64k", "write -b -P 3 1024 3072");
      await io(
        "read -b -v 512 1k",
        "write -P 7 0 64k",
        "read -b -P 3 1024 3072",
        "read -P 7 0 64k",
        "read -P 5 100k 200k",
      );
      await io("write -b -P 9 9M 512", "read -b -P 9 9M 512", "read -b -P 0 8M 64k", "length");
      await expectSound();
    });

    it("outlives other sizes of the disk", async () => {
      await both.expectSame("qemu-img resize -f qcow2 a.qcow2 1500k");
      await both.expectSame("qemu-img resize -f qcow2 --shrink a.qcow2 1M");
      await io("read -P 5 100k 200k", "read -P 7 0 64k");
      await expectSound();
    });

    it("stays with a snapshot", async () => {
      await both.expectSame("qemu-img snapshot -c one a.qcow2");
      await io("write -b -P 1 0 64k", "read -b -P 1 0 64k");
      await both.expectSame("qemu-img snapshot -a one a.qcow2");
      await io("read -b -P 3 1024 3072");
      await expectSound();
    });

    it("refuses what the stock tool refuses", async () => {
      await io("write -b 5 512", "write -b 0 5", "read -b 5 512", "read -b 0 100");
      await io("write -bz 0 512", "write -bf 0 512", "write -bu 0 512", "write -b -P 1 -z 0 512");
      await io("write -bq 0 512", "read -bq 0 512", "read -bp 0 512", "read -b -P 3 -s 512 -l 3 0 1k");
      await both.expectSame("qemu-io -r -f qcow2 -c 'write -b 0 512' -c 'read -bq 0 512' a.qcow2");
    });
  });

  it("has no place in a raw disk", async () => {
    const folder = join(root, "raw");
    mkdirSync(folder);
    const both = new SideBySide(folder);
    await both.prepare("qemu-img create -q -f raw a.raw 1M");
    await both.expectSame("qemu-io -f raw -c 'write -b 0 512' -c 'read -b 0 512' a.raw");
  });

  it("is encrypted as the disk is", async () => {
    const folder = join(root, "luks");
    mkdirSync(folder);
    const both = new SideBySide(folder);
    const secret = "--object secret,id=s,data=x";
    process.chdir(both.ours);
    // The stock tool refuses to make one on a busy machine, when it cannot measure its own speed.
    const create = "create -q -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 a.qcow2 1M";
    expect((await standInHere("qemu-img", [...create.split(" "), ...secret.split(" ")])).code).toBe(0);
    copyFileSync(join(both.ours, "a.qcow2"), join(both.theirs, "a.qcow2"));
    const image = "--image-opts driver=qcow2,encrypt.key-secret=s,file.filename=a.qcow2";
    await both.expectSame(`qemu-io ${secret} -c 'write -b -P 4 0 64k' -c 'read -b -P 4 0 64k' ${image}`);
    const theirs = await runTool("env", [
      "-C",
      both.ours,
      "sh",
      "-c",
      `qemu-io ${secret} -c 'read -q -b -P 4 0 64k' ${image}`,
    ]);
    expect(theirs).toEqual({ code: 0, stdout: "", stderr: "" });
  });
});
