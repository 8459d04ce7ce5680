import { readFileSync, writeFileSync } from "node:fs";
import { beforeAll, expect, it } from "vitest";
import { CopiedImages } from "../support/copied-images.js";
import { ourQemuImg } from "../support/stand-in-here.js";
import { describeWithStock, qemuImg } from "../support/stock-tools.js";

/** `snapshot` and the snapshots in `info`, beside the stock tool on a copy of the same file. */

describeWithStock("snapshot, beside the stock tool", () => {
  const images = new CopiedImages();

  beforeAll(async () => {
    await images.make(
      "qemu-img create -q -f qcow2 a.qcow2 4M",
      "qemu-io -c 'write -P 3 0 1M' a.qcow2",
      "qemu-img snapshot -c first a.qcow2",
      "qemu-img snapshot -c 'a name that is wider than its column' a.qcow2",
      "qemu-img snapshot -c '' a.qcow2",
      "qemu-img snapshot -c 1 a.qcow2",
      "qemu-img create -q -f qcow2 -o refcount_bits=1 narrow.qcow2 1M",
      "qemu-io -c 'write 0 64k' narrow.qcow2",
      "qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 over.qcow2",
      "qemu-img snapshot -c one over.qcow2",
      "qemu-img create -q -f qcow2 -o data_file=df.raw df.qcow2 1M",
      "cp a.qcow2 marked.qcow2",
      "qemu-img bitmap --add marked.qcow2 b",
      "qemu-img create -q -f raw r.raw 1M",
    );
    damaged("extra.qcow2", (table) => table.setUint32(36, 2000));
    damaged("misplaced.qcow2", (table) => table.setBigUint64(0, 12_345n));
    damaged("large.qcow2", (table) => table.setUint32(8, 0x7fff_ffff));
    damaged("times.qcow2", (table) => {
      table.setBigUint64(24, 3_723_004_005_006n);
      table.setBigUint64(40, 5_000_000n);
      table.setBigUint64(56, 0xffff_ffff_ffff_ffffn);
    });
  });

  function damaged(name: string, change: (table: DataView) => void): void {
    const bytes = readFileSync(images.path("a.qcow2"));
    const at = Number(bytes.readBigUInt64BE(64));
    change(new DataView(bytes.buffer, bytes.byteOffset + at));
    writeFileSync(images.path(name), bytes);
  }

  it.each([
    "snapshot a.qcow2",
    "snapshot -l a.qcow2",
    "snapshot -l -U a.qcow2",
    "snapshot -l times.qcow2",
    "snapshot -l extra.qcow2",
    "snapshot -l r.raw",
    "snapshot -l nofile",
    "snapshot --image-opts -l driver=qcow2,file.filename=a.qcow2",
    "snapshot",
    "snapshot -l",
    "snapshot -l a.qcow2 b",
    "snapshot -c x -l a.qcow2",
    "snapshot -c x -d first a.qcow2",
    "snapshot -c x -U a.qcow2",
    "snapshot -f qcow2 -l a.qcow2",
    "snapshot -c x nofile",
    "snapshot -c x narrow.qcow2",
    "snapshot -c x df.qcow2",
    "snapshot -a x df.qcow2",
    "snapshot -d x df.qcow2",
    "snapshot -d x r.raw",
    "snapshot -c x r.raw",
    "snapshot -a nope a.qcow2",
    "snapshot -d nope a.qcow2",
    "snapshot -d 2 a.qcow2",
    "snapshot -a first marked.qcow2",
    "snapshot -a first extra.qcow2",
    "snapshot -a first misplaced.qcow2",
    "snapshot -d first misplaced.qcow2",
    "snapshot -a first large.qcow2",
    "snapshot -d first large.qcow2",
    "snapshot -a 2 a.qcow2",
    "snapshot -q -d 1 a.qcow2",
    "snapshot -d first marked.qcow2",
  ])("prints and exits alike: %s", async (line) => {
    const copies = await images.expectSame(line);
    if (copies === undefined) return;
    const listed = async (path: string): Promise<string> => (await qemuImg(["snapshot", "-l", path])).stdout;
    expect(await listed(copies.own)).toBe(await listed(copies.theirs));
  });

  it.each(["a.qcow2", "over.qcow2", "times.qcow2"])("info tells of the snapshots alike: %s", async (name) => {
    const path = images.path(name);
    for (const form of ["human", "json"]) {
      const args = ["info", `--output=${form}`, path];
      expect(await ourQemuImg(args)).toEqual(await qemuImg(args));
    }
  });
});
