import { beforeAll, expect, it } from "vitest";
import { BothFolders } from "../support/both-folders.js";
import { describeWithStock, runTool } from "../support/stock-tools.js";

/** Dates are those of the run. */
const DATES = /\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g;

describeWithStock("command lines as virtual-machine managers and build scripts have them, one after the other", () => {
  const folders = new BothFolders();

  beforeAll(() =>
    folders.make(
      "qemu-img create -q -f raw disk.raw 64M",
      "qemu-io -f raw -c 'write -q -P 3 1M 3M' -c 'write -q -P 4 20M 1M' disk.raw",
    ),
  );

  it.each([
    "convert -q -f raw -O qcow2 disk.raw disk.qcow2",
    "convert -t none -T none -O qcow2 disk.raw d.qcow2",
    "convert -t none -T none -n -O raw disk.qcow2 disk.raw",
    "convert -O raw -S 0 disk.qcow2 full.raw",
    "convert -f qcow2 -O qcow2 -o preallocation=metadata,compat=1.1,lazy_refcounts=on disk.qcow2 pre.qcow2",
    "convert -m 16 -W -t none -f qcow2 -O raw disk.qcow2 m.raw",
    "convert -f raw -O qcow2 -o cluster_size=2M,extended_l2=on disk.raw x.qcow2",
    "convert -B disk.qcow2 -F qcow2 -O qcow2 disk.raw b.qcow2",
    "convert -o backing_file=disk.qcow2 -O qcow2 disk.raw b2.qcow2",
    "create -f qcow2 -b disk.qcow2 -F raw bad.qcow2",
    "create -f qcow2 -b disk.qcow2 -F qcow2 snap.qcow2",
    "create -f qcow2 -F qcow2 -b disk.qcow2 snap2.qcow2 128M",
    "create -f qcow2 -o backing_file=disk.qcow2,backing_fmt=qcow2 snap3.qcow2",
    "create -q -f qcow2 -u -b gone.qcow2 -F qcow2 snap4.qcow2 10G",
    "create -f raw -o preallocation=falloc pf.raw 10M",
    "info --output=json snap.qcow2",
    "info -U --output json --backing-chain snap.qcow2",
    "info -f qcow2 --force-share snap4.qcow2",
    "info -U snap4.qcow2 --backing-chain",
    "rebase -u -f qcow2 -b snap.qcow2 -F qcow2 snap2.qcow2",
    `rebase -f qcow2 -u -b '' snap3.qcow2`,
    "rebase -b disk.qcow2 -F qcow2 snap2.qcow2",
    "rebase -u -b x.qcow2 snap3.qcow2",
    "snapshot -c first disk.qcow2",
    "snapshot -l disk.qcow2",
    "snapshot -l -U disk.qcow2",
    "snapshot -a first disk.qcow2",
    "snapshot -d first disk.qcow2",
    "snapshot -d nope disk.qcow2",
    "check -U -q disk.qcow2",
    "check -f qcow2 snap4.qcow2",
    "map --output=json -U disk.qcow2",
    "map -U -f qcow2 snap.qcow2",
    "dd if=disk.qcow2 of=dd.raw bs=1M count=4 skip=1",
    "dd -f qcow2 -O qcow2 if=disk.qcow2 of=dd.qcow2 bs=1024k",
    "dd -U if=disk.qcow2 of=dd2.raw bs=64k",
    "measure --output=json -O qcow2 disk.raw",
    "measure -U --output=json -f qcow2 -O raw disk.qcow2",
    "measure --size 10G -O qcow2",
    "measure --size 10G -O qcow2 -o cluster_size=2M,preallocation=full --output=json",
    "amend -f qcow2 -o compat=0.10 d.qcow2",
    "amend -f qcow2 -o compat=v3 d.qcow2",
    "resize disk.raw 128M",
    "resize -f raw disk.raw +1G",
    "resize disk.qcow2 20G",
    "resize --shrink -f qcow2 disk.qcow2 64M",
    "resize disk.qcow2 32M",
    "resize -q disk.qcow2 +0",
    "compare -s disk.qcow2 d.qcow2",
    "compare -U -f qcow2 -F qcow2 disk.qcow2 c.qcow2",
    "compare disk.qcow2 full.raw",
    "commit snap.qcow2",
    "commit -f qcow2 -t none -b disk.qcow2 snap.qcow2",
    "bitmap --add -g 64k disk.qcow2 b0",
    "bitmap --disable disk.qcow2 b0",
    "bitmap --merge b0 disk.qcow2 b0",
    "convert --bitmaps -f qcow2 -O qcow2 disk.qcow2 wb.qcow2",
    "convert -U -l snapshot.name=none disk.qcow2 z.raw",
    "convert -O qcow2 -o encrypt.format=luks disk.raw enc.qcow2",
    "info enc.qcow2",
    "convert disk.raw disk.raw",
    "convert -O qcow2 disk.qcow2 disk.qcow2",
  ])("%s", async (line) => {
    const { own, stock } = await folders.run(line);
    const shown = (result: typeof own): typeof own => ({ ...result, stdout: result.stdout.replaceAll(DATES, "DATE") });
    expect(shown(own)).toEqual(shown(stock));
  });

  it.each([
    ["disk.qcow2", "qcow2"],
    ["d.qcow2", "qcow2"],
    ["x.qcow2", "qcow2"],
    ["pre.qcow2", "qcow2"],
    ["snap2.qcow2", "qcow2"],
    ["wb.qcow2", "qcow2"],
    ["disk.raw", "raw"],
    ["full.raw", "raw"],
    ["dd.raw", "raw"],
    ["dd.qcow2", "qcow2"],
  ])("%s holds the same then", (name, format) => folders.expectSameImage(name, format));

  it("leaves bitmaps as the stock tool does", async () => {
    const bitmaps = async (folder: string): Promise<unknown> =>
      JSON.parse((await runTool("qemu-img", ["info", "--output=json", `${folder}/disk.qcow2`])).stdout)[
        "format-specific"
      ].data.bitmaps;
    expect(await bitmaps(folders.ours)).toEqual(await bitmaps(folders.theirs));
  });
});
