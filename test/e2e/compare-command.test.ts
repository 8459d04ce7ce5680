import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { createImage } from "../../src/index.js";
import { BothFolders } from "../support/both-folders.js";
import { describeWithStock } from "../support/stock-tools.js";

describeWithStock("comparing", () => {
  const folders = new BothFolders();

  beforeAll(async () => {
    await folders.make(
      "qemu-img create -q -f raw a.raw 5M",
      "qemu-io -f raw -c 'write -P 1 100k 300k' -c 'write -P 2 2M 70000' a.raw",
      "qemu-img convert -f raw -O qcow2 a.raw a.qcow2",
      "qemu-img convert -f raw -O qcow2 -c a.raw c.qcow2",
      "cp a.raw b.raw",
      "qemu-io -f raw -c 'write -P 9 2200000 5' b.raw",
      "cp a.qcow2 b.qcow2",
      "qemu-io -f qcow2 -c 'write -P 9 4M 1' -c 'write -P 8 4300k 1' b.qcow2",
      "cp a.raw long.raw",
      "truncate -s 7M long.raw",
      "cp long.raw longer.raw",
      "qemu-io -f raw -c 'write -P 9 6000000 5' longer.raw",
      "qemu-img create -q -f qcow2 zero.qcow2 5M",
      "qemu-io -f qcow2 -c 'write -P 0 1M 64k' -c 'write -z 2M 64k' zero.qcow2",
      "qemu-img create -q -f qcow2 empty.qcow2 5M",
      "qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 over.qcow2",
      "qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 over2.qcow2 6M",
      "qemu-io -f qcow2 -c 'write -P 1 128k 64k' over.qcow2",
      "truncate -s 5000 odd.raw",
      "qemu-img create -q -f raw none.raw 0",
      "cp c.qcow2 spoilt.qcow2",
    );
    // The stock tool times its key derivation when it makes one, and gives up on a busy machine.
    const encrypt = { format: "luks", passphrase: "abc", iterTime: 10 } as const;
    for (const folder of [folders.ours, folders.theirs]) {
      await createImage(join(folder, "luks.qcow2"), { format: "qcow2", size: 5 * 2 ** 20, encrypt });
    }
    for (const folder of [folders.ours, folders.theirs]) spoil(join(folder, "spoilt.qcow2"));
  });

  /** Overwrites the first compressed data, which follow the first five clusters, with what does not unpack. */
  function spoil(path: string): void {
    const fd = openSync(path, "r+");
    writeSync(fd, new Uint8Array(200).fill(255), 0, 200, 5 * 65_536);
    closeSync(fd);
  }

  it.each([
    "compare a.raw a.qcow2",
    "compare -p a.raw a.qcow2",
    "compare -q a.raw a.qcow2",
    "compare -f raw -F qcow2 a.raw a.qcow2",
    "compare -f raw a.raw a.qcow2",
    "compare -F raw a.qcow2 a.raw",
    "compare a.raw b.raw",
    "compare -p a.raw b.raw",
    "compare -p -q a.raw b.raw",
    "compare -q a.raw b.raw",
    "compare b.raw a.qcow2",
    "compare b.qcow2 a.qcow2",
    "compare a.qcow2 b.qcow2",
    "compare c.qcow2 b.qcow2",
    "compare a.raw long.raw",
    "compare long.raw a.raw",
    "compare -q long.raw a.raw",
    "compare -p long.raw a.raw",
    "compare longer.raw a.qcow2",
    "compare a.qcow2 longer.raw",
    "compare -p a.qcow2 longer.raw",
    "compare -s a.raw long.raw",
    "compare -p -s a.raw long.raw",
    "compare -s -q a.raw long.raw",
    "compare -s a.raw a.qcow2",
    "compare -s c.qcow2 a.qcow2",
    "compare -s a.qcow2 a.qcow2",
    "compare -s a.qcow2 b.qcow2",
    "compare -s b.raw a.raw",
    "compare zero.qcow2 empty.qcow2",
    "compare over.qcow2 a.qcow2",
    "compare over2.qcow2 a.qcow2",
    "compare over.qcow2 over2.qcow2",
    "compare over2.qcow2 b.raw",
    "compare odd.raw empty.qcow2",
    "compare odd.raw a.raw",
    "compare none.raw empty.qcow2",
    "compare none.raw none.raw",
    "compare a.raw spoilt.qcow2",
    "compare spoilt.qcow2 empty.qcow2",
    "compare -T none a.raw a.qcow2",
    "compare -U a.raw a.qcow2",
    "compare --image-opts driver=raw,file.filename=a.raw driver=qcow2,file.filename=a.qcow2",
    "compare --image-opts --object secret,id=s,data=abc driver=qcow2,file.filename=luks.qcow2,encrypt.key-secret=s driver=qcow2,file.filename=empty.qcow2",
    "compare --image-opts --object secret,id=s,data=abd driver=qcow2,file.filename=luks.qcow2,encrypt.key-secret=s driver=qcow2,file.filename=empty.qcow2",
    "compare",
    "compare a.raw",
    "compare a.raw x y",
    "compare nope a.raw",
    "compare a.raw nope",
    "compare -T foo a.raw b.raw",
    "compare -f foo a.raw b.raw",
    "compare -F foo a.raw b.raw",
    "compare -F qcow2 a.raw b.raw",
    "compare --image-opts -f raw a.raw b.raw",
    "compare --object foo a.raw b.raw",
    "compare --foo",
  ])("%s", async (line) => {
    await folders.expectSame(line);
  });

  it("strictly, tells the place from which on bytes are stored in different ways", async () => {
    const { own, stock } = await folders.run("compare -s zero.qcow2 empty.qcow2");
    expect(own).toEqual({ code: 1, stdout: "Strict mode: Offset 1048576 block status mismatch!\n", stderr: "" });
    // The stock tool counts it as a difference, too, when one of two runs goes on to the end of its disk.
    expect(stock).toEqual({ ...own, stdout: "Strict mode: Offset 0 block status mismatch!\n" });
  });

  it("explains itself as zcow", async () => {
    expect((await folders.runOurs("compare --help")).stdout).toContain("Exit status");
  });
});
