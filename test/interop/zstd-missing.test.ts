import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it, vi } from "vitest";
import { openImage } from "../../src/index.js";
import { ourQemuImg } from "../support/stand-in-here.js";
import { describeWithStock, qemuImg, temporaryDirectory } from "../support/stock-tools.js";

vi.mock("../../src/host/zstd-library.js", () => ({ hostZstd: (): undefined => undefined }));

const MISSING = /Node.js 22.15 or the optional package/;

describeWithStock("an image of the stock tool with zstd, where there is no zstd library", () => {
  it("opens, and reading compressed data tells what is missing", async () => {
    const folder = temporaryDirectory();
    const [raw, path, out] = [join(folder, "raw"), join(folder, "image.qcow2"), join(folder, "out")];
    await writeFile(raw, new Uint8Array(200_000).fill(7));
    const options = ["-c", "-O", "qcow2", "-o", "compression_type=zstd"];
    expect((await qemuImg(["convert", "-f", "raw", ...options, raw, path])).code).toBe(0);
    const device = await openImage(path, { format: "qcow2", readOnly: true });
    const read = async (): Promise<void> => device.read(0, new Uint8Array(4096));
    await expect(read()).rejects.toMatchObject({
      code: "UNSUPPORTED_COMPRESSION",
      message: expect.stringMatching(MISSING) as string,
    });
    await device.close();
    const converted = await ourQemuImg(["convert", "-f", "qcow2", "-O", "raw", path, out]);
    expect(converted.code).toBe(1);
    expect(converted.stderr).toMatch(MISSING);
  });
});
