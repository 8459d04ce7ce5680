import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { Warning } from "../../../src/base/errors.js";
import { isZonedDevice } from "../../../src/block/zoned-device.js";
import { createImage } from "../../../src/formats/create-image.js";
import { type OpenImageOptions, openImage } from "../../../src/formats/open-image.js";
import { memoryStorage } from "../../../src/storage/memory-storage.js";
import { newImage } from "../../support/new-image.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const call = async (action: () => unknown): Promise<unknown> => action();

describe("openImage", () => {
  const path = temporaryFolder();

  it("opens a plain image by its format", async () => {
    await createImage(path("plain.qcow2"), { format: "qcow2", size: 1024 * 1024 });
    const device = await openImage(path("plain.qcow2"), { format: "qcow2" });
    expect([device.format, device.size, device.readOnly, isZonedDevice(device)]).toEqual([
      "qcow2",
      1048576,
      false,
      false,
    ]);
    await device.close();
  });

  it("opens a zoned image as a zoned device", async () => {
    const zone = { mode: "host-managed", size: 65536 } as const;
    const device = await openImage(memoryStorage(await newImage({ size: 1 << 20, zone })), { format: "qcow2" });
    expect(isZonedDevice(device)).toBe(true);
    await device.close();
  });

  it("never guesses the format unasked", async () => {
    const options = {} as OpenImageOptions;
    await expect(openImage(memoryStorage(512), options)).rejects.toMatchObject({ code: "FORMAT_UNKNOWN" });
    const untyped = openImage as (source: string) => Promise<unknown>;
    await expect(untyped(path("any"))).rejects.toMatchObject({
      code: "FORMAT_UNKNOWN",
      message: expect.stringContaining("was not given") as string,
    });
  });

  it.each([-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, "32M"])("refuses a cache of %o bytes", async (cacheBytes) => {
    const options = { format: "qcow2", cacheBytes: cacheBytes as number } as const;
    await expect(openImage(memoryStorage(await newImage({ size: 1 << 20 })), options)).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      data: { option: "cacheBytes" },
    });
  });

  it("works with no cache to speak of", async () => {
    const storage = memoryStorage(await newImage({ size: 1 << 24, clusterSize: 512 }));
    const device = await openImage(storage, { format: "qcow2", cacheBytes: 0 });
    for (let at = 0; at < 1 << 24; at += 1 << 18) await device.write(at, new Uint8Array(512).fill(1 + (at >> 18)));
    const bytes = new Uint8Array(512);
    for (let at = 0; at < 1 << 24; at += 1 << 18) {
      await device.read(at, bytes);
      expect(bytes[0]).toBe(1 + (at >> 18));
    }
    await device.close();
  });

  it("takes a qcow2 image for what it is told to be", async () => {
    const image = await newImage({ size: 1 << 20 });
    const device = await openImage(memoryStorage(image), { format: "raw" });
    expect([device.format, device.size]).toEqual(["raw", Math.ceil(image.length / 512) * 512]);
    await device.close();
  });

  it("refuses formats that do not exist before it looks at the file", async () => {
    const format = "qed" as "raw";
    await expect(openImage(path("missing"), { format })).rejects.toMatchObject({ code: "FORMAT_UNKNOWN" });
  });

  it("recognises qcow2 by content when asked to, without a warning", async () => {
    const warnings: Warning[] = [];
    const image = memoryStorage(await newImage({ size: 1 << 20 }));
    const device = await openImage(image, { format: "probe", onWarning: (warning) => warnings.push(warning) });
    expect(device.format).toBe("qcow2");
    expect(warnings).toEqual([]);
    await device.close();
  });

  it("warns when it takes a file for raw, and keeps that from turning into something else", async () => {
    const warnings: Warning[] = [];
    const device = await openImage(memoryStorage(4096), {
      format: "probe",
      onWarning: (warning) => warnings.push(warning),
    });
    expect(device.format).toBe("raw");
    expect(warnings.map((warning) => warning.code)).toEqual(["FORMAT_GUESSED_RAW"]);
    const header = (await newImage({ size: 1 << 20 })).subarray(0, 512);
    await expect(call(() => device.write(0, header))).rejects.toMatchObject({ code: "FORMAT_MARK" });
    await device.close();
  });

  it("closes a file that it could not open as an image, so that it can be opened again", async () => {
    writeFileSync(path("text"), "no image");
    await expect(openImage(path("text"), { format: "qcow2" })).rejects.toMatchObject({ code: "QCOW2_MAGIC" });
    const device = await openImage(path("text"), { format: "raw" });
    await device.close();
  });

  it("leaves a storage open that it could not open as an image", async () => {
    const storage = memoryStorage(512);
    await expect(openImage(storage, { format: "qcow2" })).rejects.toMatchObject({ code: "QCOW2_MAGIC" });
    await storage.read(0, new Uint8Array(1));
  });

  it("names the file that is missing", async () => {
    await expect(openImage(path("missing"), { format: "raw" })).rejects.toMatchObject({
      code: "NOT_FOUND",
      data: { path: path("missing") },
    });
  });

  it("refuses an image that names a backing file, which nobody allowed", async () => {
    const image = await newImage({ size: 1 << 20 });
    const name = new TextEncoder().encode("/etc/passwd");
    image.set(name, 1024);
    new DataView(image.buffer).setUint32(12, 1024);
    new DataView(image.buffer).setUint32(16, name.length);
    await expect(openImage(memoryStorage(image), { format: "qcow2" })).rejects.toMatchObject({
      code: "IMPLICIT_FILE_DENIED",
      data: { value: "/etc/passwd", structure: "backing file" },
    });
    await expect(
      openImage(memoryStorage(image), { format: "qcow2", implicitFiles: (file) => file.name === "/etc/shadow" }),
    ).rejects.toMatchObject({ code: "IMPLICIT_FILE_DENIED" });
    // Leave to open the file is no leave to guess its format.
    await expect(openImage(memoryStorage(image), { format: "qcow2", implicitFiles: "allow" })).rejects.toMatchObject({
      code: "FORMAT_UNKNOWN",
    });
  });
});

describe("createImage", () => {
  const path = temporaryFolder();

  it("makes raw disks", async () => {
    await createImage(path("disk.raw"), { format: "raw", size: 1000 });
    expect(readFileSync(path("disk.raw")).equals(new Uint8Array(1024))).toBe(true);
  });

  it("replaces what was there, unless told not to", async () => {
    writeFileSync(path("old"), "old contents");
    await expect(createImage(path("old"), { format: "raw", size: 512, exclusive: true })).rejects.toMatchObject({
      code: "ALREADY_EXISTS",
    });
    expect(readFileSync(path("old"), "utf8")).toBe("old contents");
    await createImage(path("old"), { format: "raw", size: 512 });
    expect(readFileSync(path("old")).equals(new Uint8Array(512))).toBe(true);
  });

  it("leaves no file behind when it fails, and an existing file as it was when the options are wrong", async () => {
    const bad = { format: "qcow2", size: 1 << 20, clusterSize: 1000 } as const;
    await expect(createImage(path("new.qcow2"), bad)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(existsSync(path("new.qcow2"))).toBe(false);
    writeFileSync(path("kept"), "precious");
    await expect(createImage(path("kept"), bad)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(readFileSync(path("kept"), "utf8")).toBe("precious");
  });

  it("tells about limits that it clamps", async () => {
    const warnings: Warning[] = [];
    await createImage(memoryStorage(), {
      format: "qcow2",
      size: 1 << 20,
      zone: { mode: "host-managed", size: 65536, maxActiveZones: 1000 },
      onWarning: (warning) => warnings.push(warning),
    });
    expect(warnings.length).toBeGreaterThan(0);
  });

  it("refuses formats that do not exist", async () => {
    const options = { format: "qed" as "raw", size: 512 };
    await expect(createImage(path("x"), options)).rejects.toMatchObject({ code: "FORMAT_UNKNOWN" });
    expect(existsSync(path("x"))).toBe(false);
  });
});
