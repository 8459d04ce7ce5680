import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { SideBySide } from "../support/side-by-side.js";
import { describeWithStock, temporaryDirectory } from "../support/stock-tools.js";

/** Options of qemu-img and qemu-io that no other suite comes by, beside the stock tools. */

const SECRET = "secret,id=s,data=abc";
const LUKS = "driver=qcow2,encrypt.key-secret=s,file.filename=luks.qcow2";
const IMAGES = `
  qemu-img create -q --object ${SECRET} -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 luks.qcow2 1M
  qemu-img create -q -f qcow2 base.qcow2 1M
  qemu-io -f qcow2 -c 'write -q -P 5 0 512k' base.qcow2
  qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2
  qemu-io -f qcow2 -c 'write -q -P 7 256k 128k' over.qcow2
  qemu-img create -q -f qcow2 marked.qcow2 1M
  qemu-img bitmap --add marked.qcow2 one
  qemu-io -f qcow2 -c 'write -q 64k 128k' marked.qcow2
  qemu-img create -q -f qcow2 other.qcow2 1M
  qemu-img bitmap --add other.qcow2 two
  qemu-img create -q -f qcow2 disk.qcow2 1M
  qemu-img create -q -f raw disk.raw 1M`;

describeWithStock("rarer options do the same as in the stock tools", () => {
  const root = temporaryDirectory();
  let both: SideBySide;

  beforeAll(async () => {
    both = new SideBySide(root);
    await both.prepare(IMAGES);
    // Salts are random: the same image on both sides, since what is printed tells of it.
    copyFileSync(join(both.theirs, "luks.qcow2"), join(both.ours, "luks.qcow2"));
  });

  it.each([
    `qemu-img map --object ${SECRET} --image-opts ${LUKS}`,
    `qemu-img check --object ${SECRET} --image-opts ${LUKS}`,
    `qemu-img snapshot --object ${SECRET} -c first --image-opts ${LUKS}`,
    `qemu-img snapshot --object ${SECRET} -d first --image-opts ${LUKS}`,
    `qemu-img amend --object ${SECRET} -t none -o lazy_refcounts=on --image-opts ${LUKS}`,
    `qemu-img amend --object ${SECRET} -t nonsense -o lazy_refcounts=on --image-opts ${LUKS}`,
    `qemu-img amend --object ${SECRET} --object secret,id=t,data=def -o encrypt.state=active,encrypt.new-secret=t,encrypt.keyslot=2,encrypt.iter-time=10 --image-opts ${LUKS}`,
    `qemu-img amend --object ${SECRET} -o encrypt.state=active,encrypt.new-secret=s,encrypt.keyslot=2,encrypt.iter-time=10 --image-opts ${LUKS}`,
    `qemu-img amend --object ${SECRET} --force -o encrypt.state=active,encrypt.new-secret=s,encrypt.keyslot=2,encrypt.iter-time=10 --image-opts ${LUKS}`,
    `qemu-img amend --object ${SECRET} -o encrypt.state=inactive,encrypt.old-secret=s --image-opts ${LUKS}`,
    `qemu-img amend --force -f qcow2 -o compat=1.1 disk.qcow2`,
    `qemu-img amend --object nonsense,id=s -f qcow2 -o compat=1.1 disk.qcow2`,
    "qemu-img bitmap --add --image-opts driver=qcow2,file.filename=other.qcow2 three",
    `qemu-img bitmap --object ${SECRET} --add other.qcow2 four`,
    "qemu-img bitmap --merge one -b marked.qcow2 -F qcow2 other.qcow2 two",
    "qemu-img bitmap --merge none -b marked.qcow2 -F qcow2 other.qcow2 two",
    "qemu-img bitmap --merge one -b marked.qcow2 -F raw other.qcow2 two",
    "qemu-img bitmap --merge one -F qcow2 other.qcow2 two",
    "qemu-img bitmap --add -b marked.qcow2 other.qcow2 five",
    "qemu-img bitmap",
    "qemu-img bitmap other.qcow2",
    "qemu-img bitmap --add -b marked.qcow2 other.qcow2",
    "qemu-img bitmap --disable --merge none -b marked.qcow2 -F qcow2 other.qcow2 nothing",
    "qemu-img bitmap -f vmdk --enable other.qcow2 two",
    "qemu-img check -f vmdk disk.raw",
    "qemu-img check -r all disk.raw",
    "qemu-img check -U -r all -f nonsense disk.qcow2",
    "qemu-img snapshot disk.raw",
    "qemu-img snapshot -U disk.qcow2",
    "qemu-img snapshot -U -l disk.qcow2",
    "qemu-img info --output xml",
    "qemu-img map --max-length x --start-offset x disk.raw",
    "qemu-img measure --size -1 --output xml disk.raw",
    "qemu-img measure -l none -f raw disk.raw",
    "qemu-img measure -O raw -o preallocation=bogus disk.qcow2",
    "qemu-img resize --preallocation x disk.raw",
    "qemu-img resize --image-opts -f raw disk.raw 1x",
    "qemu-img compare -F qcow2 --image-opts disk.qcow2 other.qcow2",
    "qemu-img bench -o x -c x disk.raw",
    "qemu-img bench -q -i threads -n -c 1 disk.qcow2",
    "qemu-img bench -n none.qcow2",
    "qemu-img convert -C --salvage none.qcow2 new.raw",
    "qemu-img convert -c -C --skip-broken-bitmaps disk.raw new.raw",
    "qemu-img convert -t bogus disk.qcow2 nodir/x",
    "qemu-img convert -l none -O bogus disk.raw new.raw",
    "qemu-img convert -B base.qcow2 disk.qcow2 new.raw",
    "qemu-img convert -F qcow2 disk.qcow2 new.raw",
    "qemu-img create -F qcow2 new.raw 1M",
    "qemu-img create -b base.qcow2 -o preallocation=metadata new.raw",
    "qemu-img create -o backing_file=base.qcow2 new.raw 1M",
    "qemu-img create -o preallocation=metadata new.raw 1M",
    "qemu-img create -o '' new.raw 1x",
    "qemu-img amend -o ''",
    "qemu-img amend -f nonsense -o help disk.qcow2",
    "qemu-img rebase -b none.qcow2 disk.qcow2",
    "qemu-img rebase -u -f raw disk.raw",
    "qemu-img rebase -b base.qcow2 -f raw disk.raw",
    `qemu-img commit --object ${SECRET} -f qcow2 over.qcow2`,
    `qemu-img rebase --object ${SECRET} -f qcow2 -u -b base.qcow2 -F qcow2 over.qcow2`,
    "qemu-io -f qcow2 -c 'aio_write -q 0 64k' -c 'aio_read -q 0 64k' -c aio_flush disk.qcow2",
    "qemu-io -f qcow2 -c 'aio_read -v 0 512' -c aio_flush disk.qcow2",
    "qemu-io -f qcow2 -c 'aio_write -C 0 4k' -c aio_flush -c 'aio_read -C 0 4k' -c aio_flush disk.qcow2",
    "qemu-io -f qcow2 -c 'aio_write -f 0 4k' -c aio_flush disk.qcow2",
    "qemu-io -f qcow2 -c 'read -a 0 4k' disk.qcow2",
    "qemu-io -f qcow2 -c 'read -C 0 4k' -c 'write -C 0 4k' disk.qcow2",
    "qemu-io -f qcow2 -c 'writev -P 9 0 4k 8k' -c 'readv -v -P 9 0 512 512' disk.qcow2",
    "qemu-io -f qcow2 -c 'writev -C 0 4k' -c 'readv -C 0 4k' disk.qcow2",
    "qemu-io -f qcow2 -c 'writev -q 0 4k' -c 'readv -q 0 4k' disk.qcow2",
    "qemu-io -f qcow2 -c 'writev -f 0 4k' disk.qcow2",
    "qemu-io -f qcow2 -c 'aio_read -i -P 256 0 4k' -c 'aio_read -P 256 -i 0 4k' -c 'aio_write -q -i -x' disk.qcow2",
    "qemu-io -f qcow2 -c 'write -u 4k' -c 'write -P 256 -x' -c 'read -s x -y' disk.qcow2",
    "qemu-io -f qcow2 -c 'truncate -m full 4k' -c 'truncate -m full 1M' disk.qcow2",
    "qemu-io -f raw -c 'truncate -m falloc 4k' disk.raw",
    "qemu-io -s -f raw -c info disk.raw",
    "qemu-io -m -f raw -c 'read 0 4k' disk.raw",
    "qemu-io -C -f qcow2 -c 'read 0 64k' disk.qcow2",
    "qemu-io -i threads -f qcow2 -c 'read 0 64k' disk.qcow2",
    "qemu-io -i nonsense -f qcow2 -c 'read 0 64k' disk.qcow2",
    "qemu-io -d nonsense -f qcow2 -c 'read 0 64k' disk.qcow2",
    "qemu-io -t nonsense -f qcow2 -c 'read 0 64k' disk.qcow2",
    "qemu-io --object nonsense,id=s -f qcow2 -c 'read 0 64k' disk.qcow2",
    "qemu-io -s -f qcow2 -c 'write 0 64k' disk.qcow2",
    "qemu-io -f raw -c 'write 0' disk.raw",
  ])("%s", async (line) => {
    const { stock, own } = await both.bothRun(line);
    expect(own).toEqual(stock);
  });
});
