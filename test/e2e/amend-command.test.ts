import { beforeAll, expect, it } from "vitest";
import { CopiedImages } from "../support/copied-images.js";
import { describeWithStock, expectCleanCheck, expectSameContents, qemuImg } from "../support/stock-tools.js";

/** `amend`, beside the stock tool on a copy of the same file. */

describeWithStock("amend, beside the stock tool", () => {
  const images = new CopiedImages();

  beforeAll(async () => {
    await images.make(
      "qemu-img create -q -f qcow2 a.qcow2 8M",
      "qemu-io -c 'write -P 3 0 3M' -c 'write -z 64k 64k' -c 'write -z 5M 256k' a.qcow2",
      "cp a.qcow2 kept.qcow2",
      "qemu-img snapshot -c first kept.qcow2",
      "qemu-io -c 'write -z 1M 64k' -c 'write -P 9 2M 64k' kept.qcow2",
      "qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 8M",
      "qemu-io -c 'write -P 3 0 3M' v2.qcow2",
      "cp v2.qcow2 v2s.qcow2",
      "qemu-img snapshot -c first v2s.qcow2",
      "qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=1 small.qcow2 1M",
      "qemu-io -c 'write -P 5 0 1M' small.qcow2",
      "qemu-img create -q -f qcow2 -o extended_l2=on ext.qcow2 1M",
      "qemu-img create -q -f raw r.raw 1M",
      "cp kept.qcow2 resized.qcow2",
      "qemu-img resize -q resized.qcow2 9M",
    );
  });

  it.each([
    "amend",
    "amend a.qcow2",
    "amend -o help",
    "amend -f qcow2 -o help",
    "amend -f raw -o help",
    "amend -o help a.qcow2",
    "amend -f raw -o size=3M r.raw",
    "amend -o compat=0.10 nofile",
    "amend -o compat=0.10 a.qcow2",
    "amend -o compat=1.1 a.qcow2",
    "amend -o compat=v3 v2.qcow2",
    "amend -o compat=1.1,refcount_bits=8 v2s.qcow2",
    "amend -o compat=0.10 kept.qcow2",
    "amend -o compat=0.10 resized.qcow2",
    "amend -o compat=0.10 ext.qcow2",
    "amend -o compat=foo a.qcow2",
    "amend -o compat=0.10,lazy_refcounts=on a.qcow2",
    "amend -o compat=0.10,refcount_bits=8 a.qcow2",
    "amend -o lazy_refcounts=on a.qcow2",
    "amend -o lazy_refcounts=maybe a.qcow2",
    "amend -o lazy_refcounts=on v2.qcow2",
    "amend -p -o lazy_refcounts=on a.qcow2",
    "amend -p -o size=9M a.qcow2",
    "amend -o refcount_bits=64 a.qcow2",
    "amend -o refcount_bits=1 a.qcow2",
    "amend -o refcount_bits=2 kept.qcow2",
    "amend -o refcount_bits=1 kept.qcow2",
    "amend -o refcount_bits=8 v2.qcow2",
    "amend -o refcount_bits=3 a.qcow2",
    "amend -o refcount_bits=64 small.qcow2",
    "amend -o refcount_bits=16,compat=0.10 small.qcow2",
    "amend -o compat=0.10 small.qcow2",
    "amend -o size=16M a.qcow2",
    "amend -o size=1M a.qcow2",
    "amend -o size=abc a.qcow2",
    "amend -o cluster_size=4k a.qcow2",
    "amend -o preallocation=off a.qcow2",
    "amend -o extended_l2=on a.qcow2",
    "amend -o compression_type=zstd a.qcow2",
    "amend -o encrypt.format=luks a.qcow2",
    "amend -o bogus=1 a.qcow2",
    "amend -o backing_file=x a.qcow2",
    "amend -o backing_fmt=raw a.qcow2",
    "amend -o data_file=x a.qcow2",
    "amend -o data_file_raw=on a.qcow2",
  ])("prints, exits and leaves the image alike: %s", async (line) => {
    const copies = await images.expectSame(line);
    if (copies === undefined || copies.own.endsWith(".raw")) return;
    const { own, theirs } = copies;
    await expectCleanCheck(own);
    await expectSameContents(own, "qcow2", theirs, "qcow2");
    const described = async (path: string): Promise<unknown> => {
      const { stdout } = await qemuImg(["info", "-f", "qcow2", "--output=json", path]);
      return { ...(JSON.parse(stdout) as object), filename: "", "actual-size": 0 };
    };
    expect(await described(own)).toEqual(await described(theirs));
    if (/kept|resized|v2s/.test(line)) {
      // Not beside the stock tool: its downgrade zeroes clusters that the snapshot still needs.
      const original = images.path(own.slice(own.lastIndexOf("/") + 1));
      for (const path of [original, own]) {
        const converted = await qemuImg(["convert", "-f", "qcow2", "-l", "first", "-O", "raw", path, `${path}.first`]);
        expect(converted.code, converted.stderr).toBe(0);
      }
      await expectSameContents(`${own}.first`, "raw", `${original}.first`, "raw");
    }
  });
});
