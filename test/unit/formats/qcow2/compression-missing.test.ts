import { expect, it, vi } from "vitest";
import { openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { imageInMemory } from "../../../support/engine-images.js";

vi.mock("../../../../src/host/zstd-library.js", () => ({ hostZstd: (): undefined => undefined }));

it("without a zstd library, images of that type work as far as nothing is compressed", async () => {
  const storage = await imageInMemory({ size: 1024 * 1024, compressionType: "zstd" });
  const device = await openQcow2(storage, {});
  const bytes = new Uint8Array(65_536).fill(1);
  await device.write(0, bytes);
  await device.read(0, bytes);
  await expect(device.writeCompressed(65_536, bytes)).rejects.toMatchObject({
    code: "UNSUPPORTED_COMPRESSION",
    message: expect.stringMatching(/Node.js 22.15 or the optional package/) as string,
  });
  await device.close();
});
