import { beforeEach, describe, expect, it } from "vitest";
import { BothFolders } from "../support/both-folders.js";
import { describeWithStock, runTool } from "../support/stock-tools.js";

/** An overlay of an overlay, other images to put behind it, and a copy of what it reads as. */
const IMAGES = [
  "qemu-img create -q -f raw B.raw 2M",
  "qemu-io -f raw -c 'write -P 1 0 1M' B.raw",
  "qemu-img create -q -f raw N.raw 1000k",
  "qemu-io -f raw -c 'write -P 1 0 500k' -c 'write -P 9 700k 3k' N.raw",
  "qemu-img create -q -f qcow2 L.qcow2 6M",
  "qemu-io -f qcow2 -c 'write -P 1 0 3M' -c 'write -P 2 64k 64k' -c 'write -P 4 5M 64k' L.qcow2",
  "qemu-img create -q -f qcow2 -b B.raw -F raw M.qcow2 3M",
  "qemu-io -f qcow2 -c 'write -P 2 64k 64k' -c 'write -P 2 2500k 10k' M.qcow2",
];
const OVERLAY = [
  "qemu-io -f qcow2 -c 'write -P 3 128k 64k' -c 'write -P 3 3500k 10k' -c 'write -z 0 64k' T.qcow2",
  "qemu-img convert -f qcow2 -O raw T.qcow2 before.raw",
];

describeWithStock("rebasing", () => {
  const folders = new BothFolders();

  async function fresh(options = ""): Promise<void> {
    const create = `qemu-img create -q -f qcow2 ${options} -b M.qcow2 -F qcow2 T.qcow2 4M`;
    await folders.make("rm -f T.qcow2 M.qcow2", ...IMAGES, create, ...OVERLAY);
  }

  async function expectAsBefore(): Promise<void> {
    const after = await runTool("env", ["-C", folders.ours, "qemu-img", "compare", "before.raw", "T.qcow2"]);
    expect(after).toEqual({ code: 0, stdout: "Images are identical.\n", stderr: "" });
  }

  describe("keeps what the disk reads as, as the stock tool does", () => {
    beforeEach(() => fresh());

    it.each([
      "rebase -b B.raw -F raw T.qcow2",
      "rebase -f qcow2 -b N.raw -F raw T.qcow2",
      "rebase -b L.qcow2 -F qcow2 T.qcow2",
      "rebase -p -b L.qcow2 -F qcow2 T.qcow2",
      "rebase -q -p -b B.raw -F raw T.qcow2",
      "rebase -b '' T.qcow2",
      "rebase -b '' -F raw T.qcow2",
      "rebase -b M.qcow2 -F qcow2 T.qcow2",
      "rebase -t none -T none -b B.raw -F raw T.qcow2",
      "rebase -U -b B.raw -F raw T.qcow2",
      "rebase -t writethrough -b N.raw -F raw T.qcow2",
      "rebase --image-opts -b N.raw -F raw driver=qcow2,file.filename=T.qcow2",
    ])("%s", async (line) => {
      await folders.expectSame(line);
      await expectAsBefore();
      await folders.expectSameImage("T.qcow2", "qcow2");
      const { own, stock } = await folders.run("info --output=json T.qcow2");
      const named = (text: string): string[] => text.split("\n").filter((row) => row.includes("backing"));
      expect(named(own.stdout)).toEqual(named(stock.stdout));
    });
  });

  it.each([
    "-o compat=0.10",
    "-o extended_l2=on,cluster_size=64k",
    "-o cluster_size=512",
    "-o cluster_size=2M",
    "-o refcount_bits=1",
  ])("keeps what the disk reads as: %s", async (options) => {
    await fresh(options);
    for (const line of ["-b N.raw -F raw", "-b L.qcow2 -F qcow2", "-b ''", "-b N.raw -F raw"]) {
      expect((await folders.runOurs(`rebase ${line} T.qcow2`)).code).toBe(0);
      await expectAsBefore();
    }
    expect((await runTool("env", ["-C", folders.ours, "qemu-img", "check", "T.qcow2"])).code).toBe(0);
  });

  it("stores what it copies compressed when asked to", async () => {
    await fresh();
    expect((await folders.runOurs("rebase -c -b '' T.qcow2")).code).toBe(0);
    await expectAsBefore();
    const checked = await runTool("env", ["-C", folders.ours, "qemu-img", "check", "T.qcow2"]);
    expect(checked.code).toBe(0);
    expect(checked.stdout).not.toContain("0.00% compressed");
  });

  describe("unsafely, changes the name only", () => {
    beforeEach(() => fresh());

    it.each([
      "rebase -u -b nope -F raw T.qcow2",
      "rebase -u -b B.raw -F raw T.qcow2",
      "rebase -u -b '' T.qcow2",
      "rebase -u T.qcow2",
      "rebase -u -p -b M.qcow2 -F raw T.qcow2",
    ])("%s", async (line) => {
      await folders.expectSame(line);
      await folders.expectSame("info --output=json T.qcow2");
      await folders.make("qemu-img rebase -f qcow2 -u -b '' T.qcow2", "qemu-img check -q T.qcow2");
    });
  });

  describe("is refused as by the stock tool", () => {
    it.each([
      "rebase -b nope -F raw T.qcow2",
      "rebase T.qcow2",
      "rebase -b x",
      "rebase T.qcow2 x -b B.raw",
      "rebase -b B.raw -F foo T.qcow2",
      "rebase -u -F bogus -b M.qcow2 T.qcow2",
      "rebase -f raw -b B.raw -F raw B.raw",
      "rebase -b B.raw -F raw nope",
      "rebase -t foo -b B.raw -F raw T.qcow2",
      "rebase -T foo -b B.raw -F raw T.qcow2",
      "rebase -b B.raw T.qcow2",
      "rebase -u -b B.raw T.qcow2",
      "rebase -b T.qcow2 -F qcow2 T.qcow2",
      `rebase -u -b ${"x".repeat(1100)} -F raw T.qcow2`,
    ])("%s", async (line) => {
      await folders.expectSame(line);
    });
  });

  it("works on relative names from the folder of the overlay", async () => {
    await fresh();
    await folders.make("mkdir sub", "cp B.raw sub/");
    process.chdir(`${folders.ours}/sub`);
    const { ourQemuImg } = await import("../support/stand-in-here.js");
    expect(await ourQemuImg(["rebase", "-b", "B.raw", "-F", "raw", "../T.qcow2"])).toEqual({
      code: 0,
      stdout: "",
      stderr: "",
    });
    await expectAsBefore();
  });
});
