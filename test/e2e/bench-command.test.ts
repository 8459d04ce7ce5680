import { beforeAll, describe, expect, it } from "vitest";
import { BothFolders } from "../support/both-folders.js";
import { describeWithStock, type ToolResult } from "../support/stock-tools.js";

describeWithStock("timing requests", () => {
  const folders = new BothFolders();

  beforeAll(() =>
    folders.make(
      "qemu-img create -q -f qcow2 e.qcow2 64M",
      "qemu-img create -q -f raw a.raw 5M",
      "qemu-img create -q -f raw small.raw 1000",
      "qemu-img create -q -f raw none.raw 0",
    ),
  );

  const withoutTime = (result: ToolResult): ToolResult => ({
    ...result,
    stdout: result.stdout.replace(/in [0-9.]+ seconds/, "in TIME seconds"),
  });

  it.each([
    "-c 100 e.qcow2",
    "-c 100 -d 1 -s 512 -S 1024 -o 4096 -w --pattern 65 --flush-interval 10 e.qcow2",
    "-w -c 100 --flush-interval 100 -d 64 e.qcow2",
    "-w -c 100 --flush-interval 70 --no-drain --pattern 0x41 e.qcow2",
    "-w -c 10 -d 3 --flush-interval 3 -t writethrough e.qcow2",
    "-c 10 -t none e.qcow2",
    "-c 10 -t none -n e.qcow2",
    "-i threads -c 10 e.qcow2",
    "-f raw -q -c 10 a.raw",
    "-U -c 1 a.raw",
    "-U -w -c 1 a.raw",
    "-c 0 a.raw",
    "-c 017 a.raw",
    "-s 0 -c 10 e.qcow2",
    "-S 0 -c 10 e.qcow2",
    "-S 70M -c 10 e.qcow2",
    "-w -c 10 --pattern 0x41 -f raw a.raw",
    "-w -c 10 a.raw",
    "--image-opts -c 10 driver=qcow2,file.filename=e.qcow2",
    "-s 65M -c 10 e.qcow2",
    "-o 65M -c 10 e.qcow2",
    "-c 10 -f raw small.raw",
    "-s 1000 -c 10 -f raw small.raw",
    "-c 100 --flush-interval 10 e.qcow2",
    "-w -c 100 --flush-interval 10 -d 64 e.qcow2",
    "-c x e.qcow2",
    "-c -1 e.qcow2",
    "-c 3000000000 e.qcow2",
    "-d x e.qcow2",
    "-s x e.qcow2",
    "-s 3G e.qcow2",
    "-S x e.qcow2",
    "-o x e.qcow2",
    "--pattern x e.qcow2",
    "--pattern 256 e.qcow2",
    "--flush-interval x e.qcow2",
    "-t foo e.qcow2",
    "-i foo e.qcow2",
    "-i native e.qcow2",
    "-n -c 10 a.raw",
    "",
    "a b",
    "nope",
  ])("prints what the stock tool prints: bench %s", async (line) => {
    const { own, stock } = await folders.run(`bench ${line}`);
    expect(withoutTime(own)).toEqual(withoutTime(stock));
  });

  describe("writes", () => {
    it("leaves the same behind", async () => {
      await folders.run("bench -w -c 1000 -s 5k -S 7k -o 1k --pattern 9 e.qcow2");
      await folders.expectSameImage("e.qcow2", "qcow2");
    });

    it("refuses a depth of 0, which the stock tool never ends with", async () => {
      expect((await folders.runOurs("bench -d 0 e.qcow2")).stderr).toBe("qemu-img: Invalid queue depth specified\n");
    });
  });
});
