import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { BothFolders } from "../support/both-folders.js";
import { describeWithStock, runTool } from "../support/stock-tools.js";

const FILE = { driver: "file", filename: "a.qcow2" };
const SHIFTED = { driver: "raw", offset: 65_536, file: { driver: "file", filename: "shifted.img" } };
/** Ways to name one image, all of which the stock tool takes. */
const NAMES: readonly (readonly [option: string, name: string])[] = [
  ["", "file:a.qcow2"],
  ["", `'json:${JSON.stringify({ driver: "qcow2", file: FILE })}'`],
  ["", `'json:{"file.driver":"file","driver":"qcow2","file.filename":"a.qcow2"}'`],
  ["", `'json:${JSON.stringify({ driver: "qcow2", file: SHIFTED })}'`],
  ["--image-opts", "driver=qcow2,file.filename=a.qcow2"],
  ["--image-opts", "file.filename=a.qcow2,force-share=off,cache.direct=off"],
  ["--image-opts", "driver=qcow2,file.driver=raw,file.offset=65536,file.file.filename=shifted.img"],
];
/** For every command, with what makes the next one's work possible. */
const COMMANDS = [
  "check -q IMAGE",
  "measure -O qcow2 IMAGE",
  "snapshot -c one IMAGE",
  "snapshot -a one IMAGE",
  "snapshot -d one IMAGE",
  "bitmap --add --disable IMAGE dirty",
  "bitmap --merge dirty IMAGE dirty",
  "bitmap --remove IMAGE dirty",
  "resize IMAGE +1M",
  "resize --shrink IMAGE 1M",
  "amend -o lazy_refcounts=on IMAGE",
  "amend -o help IMAGE",
  "rebase -u -b '' IMAGE",
  "commit IMAGE",
];
const REFUSED = [
  "driver=qcow2,file.filename=a.qcow2,bogus=1",
  "driver=qcow2,file.filename=a.qcow2,file.bogus=3",
  "driver=qcow2,file.filename=missing",
  "driver=nope,file.filename=a.qcow2",
  "driver=qcow2",
  "a.qcow2",
  "file=a.qcow2",
  "filename=a.qcow2",
  "driver=qcow2,filename=a.qcow2",
  "driver=qcow2,file.filename=a.qcow2,read-only=maybe",
  "driver=raw,offset=20M,file.filename=b.raw",
  "driver=raw,offset=512k,size=1M,file.filename=b.raw",
  "driver=qcow2,file.filename=b.raw",
];
const REFUSED_NAMES = [
  "foo:a.qcow2",
  "file:missing",
  `'json:[]'`,
  `'json:{}'`,
  `'json:{"driver":"nope","file":{"filename":"a"}}'`,
];
const REFUSING = ["info IMAGE", "check IMAGE", "map IMAGE", "resize IMAGE +1M", "snapshot -c s IMAGE", "commit IMAGE"];

describeWithStock("images by other names than a path", () => {
  const folders = new BothFolders();
  const inBoth = (line: string): Promise<void> => folders.make(line);

  beforeAll(() =>
    folders.make(
      "qemu-img create -q -f qcow2 a.qcow2 1M",
      "qemu-io -f qcow2 -c 'write -P 1 0 64k' -c 'write -P 2 512k 64k' a.qcow2",
      "qemu-img create -q -f raw b.raw 1M",
      "qemu-io -f raw -c 'write -P 7 4k 64k' b.raw",
      "sh -c 'head -c 65536 /dev/zero > shifted.img; cat a.qcow2 >> shifted.img'",
      "qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 over.qcow2",
      "qemu-img create -q -f qcow2 -o data_file=data.raw data.qcow2 1M",
    ),
  );

  describe.each(NAMES)("%s %s", (option, name) => {
    const line = (command: string): string => {
      const [verb = "", ...rest] = command.replace("IMAGE", name).split(" ");
      return [verb, ...(option === "" ? [] : [option]), ...rest].join(" ");
    };

    it.each(COMMANDS)("%s", async (command) => {
      await folders.expectSame(line(command));
    });

    it("is copied and compared", async () => {
      await folders.expectSame(line("convert -O raw IMAGE out.raw"));
      await folders.expectSameImage("out.raw", "raw");
      await folders.expectSame(line("dd bs=64k count=9 of=dd.raw if=IMAGE"));
      await folders.expectSameImage("dd.raw", "raw");
      const other = option === "" ? "a.qcow2" : "driver=qcow2,file.filename=a.qcow2";
      await folders.expectSame(line(`compare IMAGE ${other}`));
      await folders.expectSame(line(`compare ${other} IMAGE`));
      const bench = await folders.runOurs(line("bench -c 4 IMAGE"));
      expect([bench.code, bench.stderr]).toEqual([0, ""]);
    });

    it("is shown", async () => {
      const ours = await folders.runOurs(line("info --output=json IMAGE"));
      const { "virtual-size": size, format, filename } = JSON.parse(ours.stdout);
      expect([size, format]).toEqual([1_048_576, "qcow2"]);
      expect(filename).toMatch(name.includes("shifted") ? /^json:.*shifted\.img/ : /^a\.qcow2$/);
      for (const beyond of ["inspect", "map"])
        expect((await folders.runOurs(line(`${beyond} IMAGE`))).stderr).not.toContain("open");
    });
  });

  describe.each(REFUSED)("--image-opts %s", (name) => {
    it.each(REFUSING)("%s", async (command) => {
      const [verb = "", ...rest] = command.replace("IMAGE", name).split(" ");
      await folders.expectSame([verb, "--image-opts", ...rest].join(" "));
    });
  });

  describe.each(REFUSED_NAMES)("%s", (name) => {
    it.each(REFUSING)("%s", (command) => folders.expectSame(command.replace("IMAGE", name)).then(() => undefined));
  });

  it("map tells where in the file a window lies", () =>
    folders.expectSame("map --output=json --image-opts driver=raw,offset=4k,size=64k,file.filename=b.raw"));

  it("a window of fixed size keeps it", () =>
    folders.expectSame("resize --image-opts driver=raw,size=512k,file.filename=b.raw 2M"));

  it("files are put in place of those that an image names", async () => {
    const overlay = "driver=qcow2,backing.driver=raw,backing.file.filename=b.raw,file.filename=over.qcow2";
    const data = "driver=qcow2,data-file.driver=file,data-file.filename=b.raw,file.filename=data.qcow2";
    await inBoth("qemu-io -c 'write -P 3 0 1M' -f qcow2 data.qcow2");
    for (const name of [overlay, data]) {
      for (const command of ["check", "convert -O raw", "measure -O raw"]) {
        const [verb, ...rest] = command.split(" ");
        const out = verb === "convert" ? " out.raw" : "";
        await folders.expectSame([verb, "--image-opts", ...rest, name + out].join(" "));
      }
      await folders.expectSameImage("out.raw", "raw");
    }
  });

  it("new images are made in files named with their protocol", async () => {
    await folders.expectSame("create -q -f qcow2 file:new.qcow2 1M");
    await folders.expectSame("create -f qcow2 foo:new.qcow2 1M");
    await folders.expectSame("convert -O qcow2 b.raw file:copy.qcow2");
    await folders.expectSameImage("copy.qcow2", "qcow2");
    expect((await runTool("ls", [join(folders.ours, "new.qcow2")])).code).toBe(0);
  });
});
