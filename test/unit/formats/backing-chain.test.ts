import { copyFileSync, linkSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { MAX_BACKING_DEPTH } from "../../../src/formats/backing-image.js";
import { openRaw } from "../../../src/formats/raw/device.js";
import { createImage, describeChain, type ImplicitFile, mapImage, openImage } from "../../../src/index.js";
import { memoryStorage } from "../../../src/storage/memory-storage.js";
import { taggedBytes } from "../../support/random.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const KIB = 1024;
const SIZE = 256 * KIB;
const overlay = { format: "qcow2", clusterSize: 4 * KIB, size: SIZE, unsafeBacking: true } as const;
const open = { format: "qcow2", implicitFiles: "allow" } as const;

async function bytesOf(path: string, length = SIZE): Promise<Uint8Array> {
  const device = await openImage(path, { ...open, readOnly: true });
  const bytes = new Uint8Array(length);
  await device.read(0, bytes);
  await device.close();
  return bytes;
}

describe("a chain of backing images", () => {
  const path = temporaryFolder();

  it("shows the nearest contents, and zeros where no image reaches", async () => {
    writeFileSync(path("base.raw"), taggedBytes(1, 0, 100 * KIB));
    await createImage(path("middle"), { ...overlay, backingFile: "base.raw", backingFormat: "raw" });
    await createImage(path("top"), { ...overlay, backingFile: "middle", backingFormat: "qcow2" });
    const middle = await openImage(path("middle"), open);
    await middle.write(50 * KIB, taggedBytes(2, 50 * KIB, 10 * KIB));
    await middle.close();
    const before = readFileSync(path("middle"));
    const top = await openImage(path("top"), open);
    await top.write(55 * KIB, taggedBytes(3, 55 * KIB, 1000));
    await top.close();
    const expected = new Uint8Array(SIZE);
    expected.set(taggedBytes(1, 0, 100 * KIB));
    expected.set(taggedBytes(2, 50 * KIB, 10 * KIB), 50 * KIB);
    expected.set(taggedBytes(3, 55 * KIB, 1000), 55 * KIB);
    expect(Buffer.from(await bytesOf(path("top"))).equals(expected)).toBe(true);
    expect(readFileSync(path("middle")).equals(before), "the backing image is untouched").toBe(true);
    expect(readFileSync(path("base.raw")).equals(taggedBytes(1, 0, 100 * KIB))).toBe(true);
  });

  it("is mapped with the depth and the file of each run", async () => {
    const device = await openImage(path("top"), { ...open, readOnly: true });
    const runs = [];
    for await (const { start, length, depth, file, data } of mapImage(device, 48 * KIB, 56 * KIB)) {
      runs.push([start / KIB, length / KIB, depth, file.slice(path("x").length - 1), data]);
    }
    await device.close();
    expect(runs).toEqual([
      [48, 4, 1, "middle", true],
      [52, 4, 0, "top", true],
      [56, 4, 1, "middle", true],
      [60, 40, 2, "base.raw", true],
      [100, 4, 1, "middle", false],
    ]);
  });

  it.each([
    ["itself", (name: string) => name],
    ["itself by a symbolic link", (name: string) => `${name}.symlink`],
    ["itself by a hard link", (name: string) => `${name}.link`],
    ["itself by another path", (name: string) => `./../${path("x").split("/").at(-2)}/${name}`],
  ])("that leads to %s is refused, and nothing stays open", async (_what, nameOf) => {
    const name = "loop";
    for (const file of [name, `${name}.symlink`, `${name}.link`]) rmSync(path(file), { force: true });
    await createImage(path("loop-source"), { ...overlay, backingFile: nameOf(name), backingFormat: "qcow2" });
    copyFileSync(path("loop-source"), path(name));
    symlinkSync(path(name), path(`${name}.symlink`));
    linkSync(path(name), path(`${name}.link`));
    await expect(openImage(path(name), open)).rejects.toMatchObject({ code: "BACKING_LOOP" });
    const chain = (async () => {
      for await (const info of describeChain(path(name), { format: "qcow2" })) expect(info.format).toBe("qcow2");
    })();
    await expect(chain).rejects.toMatchObject({ code: "BACKING_LOOP" });
    const writer = await openImage(path(name), { ...open, backing: "none" });
    await writer.close();
  });

  it("of two that are behind each other is refused", async () => {
    await createImage(path("ping"), { ...overlay, backingFile: "pong", backingFormat: "qcow2" });
    await createImage(path("pong"), { ...overlay, backingFile: "ping", backingFormat: "qcow2" });
    await expect(openImage(path("ping"), open)).rejects.toMatchObject({
      code: "BACKING_LOOP",
      stockText: expect.stringContaining("infinite loop"),
    });
  });

  it("is as long as the limit, and not longer", async () => {
    mkdirSync(path("deep"));
    writeFileSync(path("deep/0"), taggedBytes(9, 0, 512));
    for (let depth = 1; depth <= MAX_BACKING_DEPTH + 1; depth++) {
      const backingFormat = depth === 1 ? "raw" : "qcow2";
      await createImage(path(`deep/${depth}`), {
        ...overlay,
        clusterSize: 512,
        size: 4096,
        backingFile: String(depth - 1),
        backingFormat,
      });
    }
    const bytes = await bytesOf(path(`deep/${MAX_BACKING_DEPTH}`), 512);
    expect(Buffer.from(bytes).equals(taggedBytes(9, 0, 512))).toBe(true);
    await expect(openImage(path(`deep/${MAX_BACKING_DEPTH + 1}`), open)).rejects.toMatchObject({
      code: "BACKING_TOO_DEEP",
      data: { limit: MAX_BACKING_DEPTH },
    });
  });

  it.each([
    ["a file that is not there", "missing", "raw", "NOT_FOUND"],
    ["a folder", ".", "raw", "NOT_A_DISK"],
    ["a format that does not exist", "base.raw", "foo", "FORMAT_UNKNOWN"],
    ["a format that it has not", "base.raw", "qcow2", "QCOW2_MAGIC"],
    ["a protocol that is not spoken", "foo:base.raw", "raw", "PROTOCOL_UNKNOWN"],
    ["a description that is none", "json:{", "raw", "FILE_REFERENCE"],
    ["no format", "base.raw", undefined, "FORMAT_UNKNOWN"],
  ])("that names %s is refused", async (_what, backingFile, backingFormat, code) => {
    await createImage(path("bad"), { ...overlay, backingFile, backingFormat: "raw" });
    const image = readFileSync(path("bad"));
    const at = image.indexOf(Uint8Array.of(0xe2, 0x79, 0x2a, 0xca));
    // The extension is made one that nobody knows, or gets another name of at most eight letters.
    if (backingFormat === undefined) image.writeUInt32BE(0x1234_5678, at);
    else image.fill(0, at + 4, at + 16).writeUInt32BE(backingFormat.length, at + 4);
    if (backingFormat !== undefined) image.write(backingFormat, at + 8);
    writeFileSync(path("bad"), image);
    await expect(openImage(path("bad"), open)).rejects.toMatchObject({ code });
  });

  it("asks the policy about every file of the chain, with the image that names it", async () => {
    const asked: ImplicitFile[] = [];
    const device = await openImage(path("top"), {
      format: "qcow2",
      readOnly: true,
      implicitFiles: (file) => asked.push(file) > 0,
    });
    await device.close();
    expect(asked).toEqual([
      { role: "backing file", name: "middle", format: "qcow2", image: path("top") },
      { role: "backing file", name: "base.raw", format: "raw", image: path("middle") },
    ]);
    const first = openImage(path("top"), { format: "qcow2", implicitFiles: ({ name }) => name === "middle" });
    await expect(first).rejects.toMatchObject({ code: "IMPLICIT_FILE_DENIED", data: { value: "base.raw" } });
  });

  it("takes a disk that the caller gives for the one that is named, whatever the policy", async () => {
    const behind = openRaw(memoryStorage(taggedBytes(5, 0, 8 * KIB)));
    const device = await openImage(path("ping"), { format: "qcow2", readOnly: true, backing: behind });
    const bytes = new Uint8Array(8 * KIB);
    await device.read(0, bytes);
    expect(Buffer.from(bytes).equals(taggedBytes(5, 0, 8 * KIB))).toBe(true);
    await device.close();
    expect(() => behind.read(0, bytes)).toThrow(expect.objectContaining({ code: "CLOSED" }));
  });
});

describe("a new overlay", () => {
  const path = temporaryFolder();

  it("has the size of what is behind it, relative to its own folder", async () => {
    mkdirSync(path("sub"));
    writeFileSync(path("sub/base.raw"), new Uint8Array(77 * KIB));
    const options = { format: "qcow2", backingFile: "base.raw", backingFormat: "raw" } as const;
    await createImage(path("sub/overlay"), options);
    const device = await openImage(path("sub/overlay"), open);
    expect(device.size).toBe(77 * KIB);
    await device.close();
    await expect(createImage(path("overlay"), options)).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  it("is refused where it would replace what is behind it, by whatever name", async () => {
    writeFileSync(path("base"), "precious");
    symlinkSync(path("base"), path("other"));
    const options = { format: "qcow2", backingFile: "base", backingFormat: "raw" } as const;
    for (const name of ["base", "other"]) {
      await expect(createImage(path(name), options)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    }
    expect(readFileSync(path("base"), "utf8")).toBe("precious");
  });

  it("is refused without a format for what is behind it, which is never guessed", async () => {
    const options = { format: "qcow2", backingFile: "base" } as const;
    await expect(createImage(path("x"), options)).rejects.toMatchObject({ code: "FORMAT_UNKNOWN" });
    const blind = createImage(path("x"), { ...options, size: SIZE, unsafeBacking: true });
    await expect(blind).rejects.toMatchObject({ code: "FORMAT_UNKNOWN" });
  });
});
