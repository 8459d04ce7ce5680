import { statSync } from "node:fs";
import { beforeAll, expect, it } from "vitest";
import { describeImage, readBitmap } from "../../src/index.js";
import { CopiedImages } from "../support/copied-images.js";
import { ourQemuImg } from "../support/stand-in-here.js";
import { describeWithStock, expectCleanCheck, expectSameContents, qemuImg, qemuIo } from "../support/stock-tools.js";

/** `resize`, beside the stock tool on a copy of the same file. */

describeWithStock("resize, beside the stock tool", () => {
  const images = new CopiedImages();

  beforeAll(async () => {
    await images.make(
      "qemu-img create -q -f qcow2 a.qcow2 8M",
      "qemu-io -c 'write -P 3 1M 3M' -c 'write -P 4 7M 1M' a.qcow2",
      "cp a.qcow2 kept.qcow2",
      "qemu-img snapshot -c first kept.qcow2",
      "qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 8M",
      "cp v2.qcow2 v2s.qcow2",
      "qemu-img snapshot -c first v2s.qcow2",
      "qemu-img create -q -f qcow2 -o cluster_size=512 small.qcow2 1M",
      "qemu-io -c 'write -P 5 0 1M' small.qcow2",
      "qemu-img create -q -f raw r.raw 1M",
      "qemu-img create -q -f raw base.raw 4M",
      "qemu-io -f raw -c 'write -P 7 0 4M' base.raw",
      "qemu-img create -q -f qcow2 -b base.raw -F raw over.qcow2 1M",
      "qemu-img create -q -f qcow2 -b base.raw -F raw odd.qcow2 1049088",
      "qemu-img create -q -f qcow2 -o extended_l2=on -b base.raw -F raw oddsub.qcow2 1049088",
      "qemu-io -c 'write -P 9 1048576 512' oddsub.qcow2",
      "cp a.qcow2 marked.qcow2",
      "qemu-img bitmap --add marked.qcow2 one",
      "qemu-img bitmap --add -g 512 marked.qcow2 two",
      "qemu-io -c 'write -P 6 2M 64k' -c 'write -P 6 7M 1M' marked.qcow2",
      "qemu-img bitmap --disable marked.qcow2 two",
    );
  });

  /** What the bitmaps of an image mark, as text. */
  const bitmapsOf = async (path: string): Promise<string[]> => {
    const { bitmaps = [] } = (await describeImage(path, { format: "qcow2" })).qcow2 ?? {};
    const texts = bitmaps.map(async ({ name, auto, inUse, granularity }) => {
      const bits = await readBitmap(path, { format: "qcow2", name });
      return JSON.stringify([name, auto, inUse, granularity, [...bits.ranges()]]);
    });
    return Promise.all(texts);
  };

  it.each([
    "resize",
    "resize a.qcow2",
    "resize a.qcow2 +1M",
    "resize -q a.qcow2 9M",
    "resize a.qcow2 8M",
    "resize a.qcow2 +0",
    "resize a.qcow2 1G",
    "resize a.qcow2 100G",
    "resize a.qcow2 4M",
    "resize a.qcow2 -1M",
    "resize --shrink a.qcow2 -1M",
    "resize --shrink a.qcow2 2M",
    "resize --shrink a.qcow2 -1G",
    "resize --shrink a.qcow2 0",
    "resize a.qcow2 abc",
    "resize a.qcow2 +",
    "resize a.qcow2 8000001",
    "resize --shrink a.qcow2 1000001",
    "resize a.qcow2 9000P",
    "resize a.qcow2 100P",
    "resize a.qcow2 8E",
    "resize a.qcow2 9M --preallocation=metadata",
    "resize --preallocation=foo a.qcow2 9M",
    "resize --preallocation=metadata a.qcow2 9M",
    "resize --preallocation=falloc a.qcow2 9M",
    "resize --preallocation=full a.qcow2 9M",
    "resize --preallocation=full a.qcow2 8M",
    "resize --shrink --preallocation=full a.qcow2 1M",
    "resize kept.qcow2 1G",
    "resize --shrink kept.qcow2 2M",
    "resize v2.qcow2 600M",
    "resize v2s.qcow2 9M",
    "resize small.qcow2 64M",
    "resize small.qcow2 1T",
    "resize --preallocation=metadata small.qcow2 2M",
    "resize --shrink small.qcow2 16k",
    "resize over.qcow2 3M",
    "resize over.qcow2 9M",
    "resize --preallocation=metadata over.qcow2 3M",
    "resize --shrink over.qcow2 512k",
    "resize odd.qcow2 3M",
    "resize --preallocation=metadata odd.qcow2 3M",
    "resize oddsub.qcow2 3M",
    "resize --preallocation=full oddsub.qcow2 3M",
    "resize marked.qcow2 1G",
    "resize --preallocation=metadata marked.qcow2 9M",
    "resize --shrink marked.qcow2 5M",
    "resize --shrink marked.qcow2 2049k",
    "resize nofile 1M",
    "resize a.qcow2 1M 2M",
    "resize --image-opts driver=qcow2,file.filename=a.qcow2 9M",
    "resize -f raw r.raw 2M",
    "resize r.raw 2M",
    "resize -f raw r.raw 1000",
    "resize -f raw --shrink r.raw 1000",
    "resize -f raw --preallocation=metadata r.raw 2M",
    "resize -f raw --preallocation=falloc r.raw 2M",
    "resize -f raw --preallocation=full r.raw 2M",
  ])("prints, exits and leaves the disk alike: %s", async (line) => {
    const copies = await images.expectSame(line);
    if (copies === undefined) return;
    const { own, theirs } = copies;
    const format = own.endsWith(".raw") ? "raw" : "qcow2";
    if (format === "raw") expect(statSync(own).size).toBe(statSync(theirs).size);
    else await expectCleanCheck(own);
    const sizeOf = async (path: string): Promise<number> => {
      const { stdout } = await qemuImg(["info", "-f", format, "--output=json", path]);
      return (JSON.parse(stdout) as { "virtual-size": number })["virtual-size"];
    };
    expect(await sizeOf(own)).toBe(await sizeOf(theirs));
    if (format === "qcow2") expect(await bitmapsOf(own)).toEqual(await bitmapsOf(theirs));
    if ((await sizeOf(own)) <= 2 ** 30) await expectSameContents(own, format, theirs, format);
  });

  it.each(["off", "metadata", "falloc", "full"])(
    "maps the new part of an external data file alike: %s",
    async (preallocation) => {
      for (const raw of ["off", "on"]) {
        const maps: string[] = [];
        for (const run of [qemuImg, ourQemuImg]) {
          const [path, data] = [images.path("data.qcow2"), images.path("data.raw")];
          await qemuImg(["create", "-q", "-f", "qcow2", "-o", `data_file=${data},data_file_raw=${raw}`, path, "4M"]);
          await qemuIo(["-c", "write -P 3 0 128k", path]);
          expect((await run(["resize", "-q", `--preallocation=${preallocation}`, path, "6M"])).stderr).toBe("");
          expect(statSync(data).size).toBe(6 * 2 ** 20);
          maps.push((await qemuImg(["map", "--output=json", path])).stdout);
          await expectCleanCheck(path);
        }
        expect(maps[1]).toBe(maps[0]);
      }
    },
  );

  it("gives an encrypted image room that reads as zeros, and makes it smaller", async () => {
    for (const format of ["luks", "aes"]) {
      for (const compat of ["0.10", "1.1"]) {
        const path = images.path(`${format}-${compat}.qcow2`);
        const secret = ["--object", "secret,id=s,data=abc"];
        const opened = ["--image-opts", `driver=qcow2,file.filename=${path},encrypt.key-secret=s`];
        const creation = `compat=${compat},encrypt.format=${format},encrypt.key-secret=s`;
        const time = format === "luks" ? ",encrypt.iter-time=10" : "";
        const made = await ourQemuImg(["create", "-q", "-f", "qcow2", ...secret, "-o", creation + time, path, "1M"]);
        expect(made.stderr).toBe("");
        await qemuIo([...secret, ...opened, "-c", "write -P 3 0 1M"]);
        for (const mode of ["metadata", "full"]) {
          const grown = await ourQemuImg(["resize", "-q", ...secret, `--preallocation=${mode}`, ...opened, "+1M"]);
          expect(grown).toEqual({ stdout: "", stderr: "", code: 0 });
        }
        const smaller = await ourQemuImg(["resize", "-q", ...secret, "--shrink", ...opened, "2500k"]);
        expect(smaller).toEqual({ stdout: "", stderr: "", code: 0 });
        const read = ["-r", "-c", "read -P 3 0 1M", "-c", "read -P 0 1M 1476k"];
        expect((await qemuIo([...secret, ...opened, ...read])).stdout).not.toContain("failed");
        expect((await qemuImg(["check", ...secret, ...opened])).stdout).toContain("No errors were found");
      }
    }
  });

  it("takes the external data file along", async () => {
    const [path, data] = [images.path("ext.qcow2"), images.path("ext.raw")];
    const made = ["create", "-q", "-f", "qcow2", "-o", `data_file=${data},data_file_raw=on`, path, "4M"];
    expect((await qemuImg(made)).code).toBe(0);
    await qemuIo(["-c", "write -P 3 0 4M", path]);
    for (const [args, size] of [
      [["resize", "-q", path, "600M"], 600 * 2 ** 20],
      [["resize", "-q", "--shrink", path, "1M"], 2 ** 20],
    ] as const) {
      expect(await ourQemuImg(args)).toEqual({ stdout: "", stderr: "", code: 0 });
      expect(statSync(data).size).toBe(size);
      await expectCleanCheck(path);
    }
    await expectSameContents(path, "qcow2", data, "raw");
    expect((await qemuIo(["-r", "-c", "read -P 3 0 1M", path])).stdout).not.toContain("failed");
  });

  it("makes the file smaller with the disk", async () => {
    const path = images.path("cut.qcow2");
    await qemuImg(["create", "-q", "-f", "qcow2", path, "64M"]);
    await qemuIo(["-c", "write -P 3 0 64M", path]);
    expect((await ourQemuImg(["resize", "-q", "--shrink", path, "8M"])).code).toBe(0);
    await expectCleanCheck(path);
    expect(statSync(path).size).toBeLessThan(9 * 2 ** 20 + 2 ** 19);
  });

  it("what was cut off does not come back when the disk grows again, to the byte", async () => {
    const path = images.path("again.qcow2");
    await qemuImg(["create", "-q", "-f", "qcow2", path, "1M"]);
    await qemuIo(["-c", "write -P 3 0 1M", path]);
    expect((await ourQemuImg(["resize", "-q", "--shrink", path, "100k"])).code).toBe(0);
    expect((await ourQemuImg(["resize", "-q", path, "1M"])).code).toBe(0);
    const read = await qemuIo(["-r", "-c", "read -P 3 0 100k", "-c", "read -P 0 100k 924k", path]);
    expect(read.stdout + read.stderr).not.toContain("verification failed");
    await expectCleanCheck(path);
  });
});
