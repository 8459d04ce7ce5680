import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { BothFolders } from "../support/both-folders.js";
import { describeWithStock, runTool } from "../support/stock-tools.js";
import { wordsOf } from "../support/tool-lines.js";

describeWithStock("copying a part with dd", () => {
  const folders = new BothFolders();

  beforeAll(() =>
    folders.make(
      "qemu-img create -q -f raw a.raw 5M",
      "qemu-io -f raw -c 'write -P 1 100k 300k' -c 'write -P 2 2M 70000' a.raw",
      "qemu-img convert -f raw -O qcow2 a.raw a.qcow2",
      "qemu-img convert -c -f raw -O qcow2 a.raw c.qcow2",
      "qemu-img create -q -f raw exist.raw 9M",
      "qemu-io -f raw -c 'write -P 7 0 9M' exist.raw",
    ),
  );

  describe("gives what the stock tool gives", () => {
    it.each([
      ["dd if=a.raw of=o1 bs=1M count=2", "raw"],
      ["dd if=a.raw of=o2 bs=1M skip=2", "raw"],
      ["dd if=a.raw of=o3 bs=1M skip=9", "raw"],
      ["dd -O qcow2 if=a.raw of=o4 bs=700", "qcow2"],
      ["dd if=a.qcow2 of=o5 count=0", "raw"],
      ["dd -O raw -f raw bs=100 count=7 skip=1100 if=a.raw of=o6", "raw"],
      ["dd -O qcow2 bs=100 count=7000 if=a.raw of=o7", "qcow2"],
      ["dd -U if=c.qcow2 of=o8", "raw"],
      ["dd --image-opts if=driver=qcow2,file.filename=c.qcow2 of=o9 -O qcow2", "qcow2"],
      ["dd if=nope if=c.qcow2 -O raw of=o10 bs=3k", "raw"],
      ["dd if=a.raw of=exist.raw bs=1M count=1", "raw"],
      ["dd bs=1M skip=2 count=3 if=a.raw of=o12 -O qcow2", "qcow2"],
      ["dd bs=1M skip=5 if=a.raw of=o13", "raw"],
      ["dd bs=1M skip=3 count=2 if=a.raw of=o14", "raw"],
      ["dd count=100T if=a.raw of=o15", "raw"],
      ["dd skip=100T if=a.raw of=o16", "raw"],
    ])("%s", async (line, format) => {
      await folders.expectSame(line);
      const target = (wordsOf(line).find((word) => word.startsWith("of=")) ?? "").slice(3);
      await folders.expectSameImage(target, format);
      const sizeIn = async (folder: string) =>
        JSON.parse((await runTool("qemu-img", ["info", "--output=json", join(folder, target)])).stdout)["virtual-size"];
      expect(await sizeIn(folders.ours)).toBe(await sizeIn(folders.theirs));
    });
  });

  describe("is refused as by the stock tool", () => {
    it.each([
      "dd",
      "dd if=a.raw",
      "dd of=x",
      "dd if=a.raw of=x bs=0",
      "dd if=a.raw of=x bs=x",
      "dd if=a.raw of=x bs=3G",
      "dd if=a.raw of=x count=x",
      "dd if=a.raw of=x skip=-1",
      "dd if=a.raw of=x foo=1",
      "dd if=a.raw of=x foo",
      "dd if=a.raw of=x isize=3",
      "dd if=a.raw of=x seek=3",
      "dd if=nope of=x",
      "dd if=a.raw of=/nodir/x",
      "dd -O foo if=a.raw of=x",
      "dd -f qcow2 if=a.raw of=x",
      "dd -n if=a.raw of=x",
      "dd --image-opts -f raw if=driver=raw,file.filename=a.raw of=x",
    ])("%s", async (line) => {
      await folders.expectSame(line);
    });
  });
});
