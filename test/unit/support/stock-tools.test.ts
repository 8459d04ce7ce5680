import { existsSync, rmSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { describeWithStock, expectCleanCheck, qemuImg, qemuIo, temporaryDirectory } from "../../support/stock-tools.js";

describeWithStock("the stock tools as oracle", () => {
  it("accepts an image that the stock tools made and wrote", async () => {
    const path = join(temporaryDirectory(), "a.qcow2");
    expect((await qemuImg(["create", "-f", "qcow2", path, "1M"])).code).toBe(0);
    const written = await qemuIo(["-f", "qcow2", path], "write -P 0x41 0 64k\n");
    expect(written.stdout).toContain("wrote 65536/65536 bytes at offset 0");
    await expectCleanCheck(path);
  });

  it("refuses a truncated image, with the tool's own words", async () => {
    const path = join(temporaryDirectory(), "a.qcow2");
    await qemuImg(["create", "-f", "qcow2", path, "1M"]);
    truncateSync(path, 100);
    await expect(expectCleanCheck(path)).rejects.toThrow(/qemu-img check .* exited with 1/);
  });

  it("gives every caller a directory of its own", () => {
    const [a, b] = [temporaryDirectory(), temporaryDirectory()];
    expect(a).not.toBe(b);
    expect(existsSync(a) && existsSync(b)).toBe(true);
    rmSync(a, { recursive: true });
  });
});
