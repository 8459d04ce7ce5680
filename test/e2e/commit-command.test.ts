import { beforeEach, describe, expect, it } from "vitest";
import { BothFolders } from "../support/both-folders.js";
import { describeWithStock, runTool } from "../support/stock-tools.js";

/** Three images, each larger than the one below, and a copy of what the top reads as. */
const imagesOf = (options = ""): string[] => [
  "rm -f T.qcow2 M.qcow2",
  "qemu-img create -q -f raw B.raw 2M",
  "qemu-io -f raw -c 'write -P 1 0 1M' B.raw",
  `qemu-img create -q -f qcow2 ${options} -b B.raw -F raw M.qcow2 3M`,
  "qemu-io -f qcow2 -c 'write -P 2 64k 64k' -c 'write -P 2 2500k 10k' -c 'write -z 512k 128k' M.qcow2",
  `qemu-img create -q -f qcow2 ${options} -b M.qcow2 -F qcow2 T.qcow2 4M`,
  "qemu-io -f qcow2 -c 'write -P 3 128k 64k' -c 'write -P 3 3500k 10k' -c 'write -z 0 64k' -c 'write -P 5 1000k 512' T.qcow2",
  "qemu-img convert -f qcow2 -O raw T.qcow2 before.raw",
];

describeWithStock("committing", () => {
  const folders = new BothFolders();

  const expectAsBefore = async (image: string): Promise<void> => {
    const after = await runTool("env", ["-C", folders.ours, "qemu-img", "compare", "before.raw", image]);
    expect(after).toEqual({ code: 0, stdout: "Images are identical.\n", stderr: "" });
  };

  describe("gives what the stock tool gives", () => {
    beforeEach(() => folders.make(...imagesOf()));

    it.each([
      "commit T.qcow2",
      "commit -f qcow2 -d T.qcow2",
      "commit -p T.qcow2",
      "commit -q T.qcow2",
      "commit -q -p T.qcow2",
      "commit -r 100M T.qcow2",
      "commit -t writethrough T.qcow2",
      "commit -t none T.qcow2",
      "commit -b B.raw T.qcow2",
      "commit -b M.qcow2 T.qcow2",
      "commit -b ./M.qcow2 T.qcow2",
      "commit --image-opts driver=qcow2,file.filename=T.qcow2",
    ])("%s", async (line) => {
      const into = line.includes("B.raw") ? "B.raw" : "M.qcow2";
      await folders.expectSame(line);
      await expectAsBefore("T.qcow2");
      await expectAsBefore(into);
      await folders.expectSameImage(into, into === "B.raw" ? "raw" : "qcow2");
      await folders.expectSameImage("T.qcow2", "qcow2");
    });
  });

  it("empties the overlay, and leaves the space to the host", async () => {
    await folders.make(...imagesOf());
    await folders.run("commit T.qcow2");
    const { own, stock } = await folders.run("map --output=json T.qcow2");
    for (const { stdout } of [own, stock]) expect(stdout).not.toMatch(/"depth": 0, "present": true/);
    const info = JSON.parse((await folders.runOurs("info --output=json T.qcow2")).stdout) as Record<string, number>;
    expect(info["actual-size"]).toBeLessThan(300_000);
  });

  it("keeps what internal snapshots of the overlay hold", async () => {
    await folders.make(...imagesOf(), "qemu-img snapshot -c s T.qcow2", "cp T.qcow2 kept.qcow2");
    await folders.expectSame("commit T.qcow2");
    await expectAsBefore("T.qcow2");
    await folders.make(
      "qemu-img snapshot -a s T.qcow2",
      "qemu-img check -q T.qcow2",
      "qemu-img rebase -f qcow2 -u -b '' T.qcow2",
      "qemu-img rebase -f qcow2 -u -b '' kept.qcow2",
      "qemu-img compare T.qcow2 kept.qcow2",
    );
  });

  it.each(["-o compat=0.10", "-o extended_l2=on", "-o cluster_size=512", "-o cluster_size=2M", "-o lazy_refcounts=on"])(
    "brings everything down: %s",
    async (options) => {
      await folders.make(...imagesOf(options));
      for (const line of ["commit T.qcow2", "commit M.qcow2"]) expect((await folders.runOurs(line)).code).toBe(0);
      for (const image of ["T.qcow2", "M.qcow2", "B.raw"]) await expectAsBefore(image);
      for (const image of ["T.qcow2", "M.qcow2"]) await folders.make(`qemu-img check -q ${image}`);
    },
  );

  it("lets zeros past the end of a short image between hide what the base has there", async () => {
    await folders.make(
      "qemu-img create -q -f raw B.raw 4M",
      "qemu-io -f raw -c 'write -P 1 0 4M' B.raw",
      "rm -f T.qcow2 M.qcow2",
      "qemu-img create -q -f qcow2 -b B.raw -F raw M.qcow2 1M",
      "qemu-img create -q -f qcow2 -b M.qcow2 -F qcow2 T.qcow2 3M",
      "qemu-img convert -f qcow2 -O raw T.qcow2 before.raw",
    );
    await folders.expectSame("commit -b B.raw T.qcow2");
    await folders.expectSameImage("B.raw", "raw");
  });

  it("makes no base smaller", async () => {
    await folders.make(
      "qemu-img create -q -f raw B.raw 4M",
      "qemu-io -f raw -c 'write -P 1 0 4M' B.raw",
      "rm -f T.qcow2",
      "qemu-img create -q -f qcow2 -b B.raw -F raw T.qcow2 1M",
      "qemu-io -f qcow2 -c 'write -P 2 0 64k' T.qcow2",
    );
    await folders.expectSame("commit -f qcow2 T.qcow2");
    await folders.expectSameImage("B.raw", "raw");
  });

  describe("is refused as by the stock tool", () => {
    it.each([
      "commit B.raw",
      "commit -f raw B.raw",
      "commit -b nope T.qcow2",
      "commit -b T.qcow2 T.qcow2",
      "commit",
      "commit a b",
      "commit nope",
      "commit -t foo T.qcow2",
      "commit -r x T.qcow2",
      "commit -r -1 T.qcow2",
      "commit -U T.qcow2",
      "commit nb.qcow2",
      "commit -b x nb.qcow2",
    ])("%s", async (line) => {
      await folders.make(...imagesOf(), "qemu-img create -q -f qcow2 nb.qcow2 1M");
      await folders.expectSame(line);
    });
  });
});
