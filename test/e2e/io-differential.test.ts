import { join } from "node:path";
import { beforeEach, expect, it } from "vitest";
import { SideBySide } from "../support/side-by-side.js";
import { describeWithStock, expectCleanCheck, expectSameContents, temporaryDirectory } from "../support/stock-tools.js";

const IMAGES = `
rm -f *
qemu-img create -q -f qcow2 a.qcow2 4M
qemu-io -f qcow2 -c 'write -q 0 64k' -c 'write -q -P 3 1M 64k' a.qcow2
qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 o.qcow2
qemu-img create -q -f raw r.raw 1M
qemu-io -f raw -c 'write -q -P 9 0 512k' r.raw
printf 'abc' > pattern
for event in read_aio write_aio l2_load l2_update cluster_alloc pwritev read_backing_aio; do
  printf '[inject-error]\\nevent = "%s"\\nerrno = "5"\\nonce = "on"\\n' $event > c_$event
done
printf '[inject-error]\\nevent = "none"\\niotype = "read"\\nsector = "640"\\n' > by_sector
printf '# a comment\\n[set-state]\\nevent = "write_aio"\\nstate = "1"\\nnew_state = "2"\\n[inject-error]\\nevent = "write_aio"\\nstate = "2"\\nerrno = "28"\\nonce = "on"\\n' > by_state
printf '[inject-error]\\nevent = "bogus"\\n' > bad_event
printf '[bogus]\\nerrno = "5"\\n' > bad_group
printf 'errno = 5\\n' > bad_start
printf '[inject-error]\\nevent = "read_aio"\\nbogus = "5"\\n' > bad_name
printf '[inject-error]\\nevent = "read_aio"\\nstate = "x"\\n' > bad_state
printf '[inject-error]\\nevent = "read_aio"\\nonce = "x"\\n' > bad_once
`;

describeWithStock("qemu-io and our stand-in for it do the same, step by step", () => {
  const tools = new SideBySide(temporaryDirectory());

  /** Runs lines on fresh images one after the other, and compares what they leave. */
  async function expectSame(lines: readonly string[]): Promise<void> {
    for (const line of lines) await tools.expectSame(line);
    for (const name of ["a.qcow2", "o.qcow2"]) await expectCleanCheck(join(tools.ours, name));
    for (const [name, format] of [
      ["a.qcow2", "qcow2"],
      ["o.qcow2", "qcow2"],
      ["r.raw", "raw"],
    ] as const) {
      await expectSameContents(join(tools.ours, name), format, join(tools.theirs, name), format);
    }
  }

  beforeEach(() => tools.prepare(IMAGES));

  it.each<readonly [what: string, lines: readonly string[]]>([
    [
      "the size of a qcow2 disk",
      [
        "qemu-io -c 'truncate 8M' -c length -c 'write 7M 4k' -c map -f qcow2 a.qcow2",
        "qemu-io -c 'truncate 2M' -c length -c map -f qcow2 a.qcow2",
        "qemu-io -c 'truncate -m full 3M' -c length -c map -f qcow2 a.qcow2",
        "qemu-io -c 'truncate -m off 3M' -c 'truncate -m bogus 3M' -c 'truncate -m metadata 4M' -c length -c map -f qcow2 a.qcow2",
        "qemu-io -c 'truncate 4000000' -c 'truncate 8E' -c 'truncate x' -c length -f qcow2 a.qcow2",
        "qemu-io -r -c 'truncate 5M' -c length -f qcow2 a.qcow2",
        "qemu-img snapshot -c s1 a.qcow2",
        "qemu-io -c 'truncate 2M' -c length -c 'truncate 5M' -c length -f qcow2 a.qcow2",
      ],
    ],
    [
      "the size of a raw disk",
      [
        "qemu-io -c 'truncate 2M' -c length -c 'truncate 512k' -c length -c 'truncate -m full 700k' -c 'truncate -m metadata 800k' -f raw r.raw",
        "qemu-io -f raw -c length -c 'read -P 0 512k 188k' r.raw",
      ],
    ],
    [
      "temporary images",
      [
        "qemu-io -s -c 'write -P 5 0 4k' -c 'read -P 5 0 4k' -c info -c map -f qcow2 a.qcow2",
        "qemu-io -c 'read -P 5 0 4k' -f qcow2 a.qcow2",
        "qemu-io -s -f raw -c 'write -P 5 0 4k' -c 'read -P 5 0 4k' -c map -c 'truncate 2M' -c length r.raw",
        "qemu-io -s -r -f raw -c 'write -P 5 0 4k' -c 'read -P 5 0 4k' -c map -c length r.raw",
        "qemu-io -c 'open -s -o driver=qcow2 a.qcow2' -c 'write -P 9 0 512' -c 'read -P 9 0 512' -c close -c 'open -o driver=qcow2 a.qcow2' -c 'read -P 9 0 512'",
      ],
    ],
    [
      "copies of what is read",
      [
        "qemu-io -C -f qcow2 -c map -c 'read 0 64k' -c map -c 'read 1000k 128k' -c map -c 'read 3M 512' -c map o.qcow2",
        "qemu-img map --output=json o.qcow2",
        "qemu-io -r -C -f qcow2 -c 'read 2M 64k' -c map o.qcow2",
        "qemu-io -c 'open -C -o driver=qcow2 o.qcow2' -c 'read 3M 64k' -c 'write -P 7 2M 100' -c 'read -P 7 2M 100' -c map",
      ],
    ],
    [
      "ways to reach the disk",
      [
        "qemu-io -c 'open -d bogus a.qcow2' -c 'open -i bogus a.qcow2' -c 'open -i threads a.qcow2' -c 'read 0 1'",
        "qemu-io -c 'open -d unmap -i native -n -k a.qcow2' -c 'read 0 1'",
        "qemu-io -c 'open -d unmap -k a.qcow2' -c 'read 0 1'",
        "qemu-io -i bogus a.qcow2",
        "qemu-io -d bogus a.qcow2",
        "qemu-io -d ignore -i threads -m -k -f qcow2 -c 'read 0 1' a.qcow2",
        "qemu-io -d ignore -i threads -m -f qcow2 -c 'read 0 1' a.qcow2",
        "qemu-io -n -k -m -f qcow2 -c 'read 0 1' a.qcow2",
        "qemu-io -i native -f qcow2 -c 'read 0 1' a.qcow2",
        "qemu-io -i io_uring -f qcow2 -c 'read 0 1' a.qcow2",
        "qemu-io -T enable=bdrv_aio_* -f qcow2 -c 'read 0 1' a.qcow2",
        "qemu-io -m -c 'open -n a.qcow2' -c 'read 1 510'",
      ],
    ],
    [
      "discards",
      [
        "qemu-io -f qcow2 -c 'discard 0 64k' -c 'read -P 0xcd 0 64k' -c 'discard -q 1 1' -c 'discard 0 5G' -c 'discard -C 1M 64k' -d ignore a.qcow2",
        "qemu-io -f qcow2 -c 'discard 1M 64k' -c 'read -P 0 1M 64k' -c map -d unmap a.qcow2",
        "qemu-io -f raw -c 'discard 0 64k' -c map -c 'read -P 0 0 64k' r.raw",
        "qemu-io -c 'open -d off a.qcow2' -c 'discard 0 64k' -c 'read -P 0xcd 0 64k'",
        "qemu-io -c 'open -o discard=ignore a.qcow2' -c 'discard 0 64k' -c 'read -P 0xcd 0 64k'",
      ],
    ],
    [
      "zeros that are found",
      [
        "qemu-io -c 'open -o driver=qcow2,detect-zeroes=on a.qcow2' -c 'write -P 0 1M 64k' -c map -c 'read -P 0 1M 64k'",
        "qemu-io -c 'open -o driver=qcow2,detect-zeroes=unmap,discard=unmap a.qcow2' -c 'write -P 0 0 64k' -c 'write -s pattern 64k 100'",
      ],
    ],
    [
      "driver options",
      [
        "qemu-io -c 'open -o bogus=1 a.qcow2' -c 'open -o driver=qcow2,bogus=1 a.qcow2' -c 'open -o driver=nope a.qcow2' -c 'open -o driver=qcow2' -c 'open -o driver=file,filename=a.qcow2' -c length -c info -c map",
        "qemu-io -c 'open -o driver=qcow2,cache.direct=on a.qcow2' -c 'read 0 512' -c close -c 'open -o cache.direct=bogus a.qcow2'",
        "qemu-io -c 'open -o driver=qcow2,backing.driver=raw,backing.file.filename=r.raw o.qcow2' -c 'read -P 9 0 512' -c 'read 2M 512' -c map",
        "qemu-io -c 'open -o driver=qcow2,backing=null o.qcow2'",
        "qemu-io -c 'open -o force-share=on a.qcow2' -c 'open -r -o force-share=on a.qcow2' -c 'read 0 1'",
        "qemu-io -c 'open -U a.qcow2' -c 'open -rU a.qcow2' -c 'read 0 1'",
        "qemu-io -c 'open -x a.qcow2' -c 'open a b' -c 'open -t' -c 'open -t bogus a.qcow2' -c 'open -t unsafe a.qcow2' -c open",
        "qemu-io --image-opts -f qcow2 a.qcow2",
        "qemu-io --image-opts -c 'read 0 1' file.filename=a.qcow2",
        "qemu-io --image-opts -c length driver=raw,file.filename=r.raw,offset=512k,size=64k",
        "qemu-io --image-opts -c length driver=raw,file.filename=r.raw,offset=2M",
      ],
    ],
    [
      "reopening",
      [
        "qemu-io -f raw -c 'reopen -o offset=4096' -c length r.raw",
        "qemu-io -f qcow2 -c 'reopen -o lazy-refcounts=on' -c info -c 'write 0 512' a.qcow2",
        "qemu-io -f qcow2 -c 'reopen -o bogus=on' -c 'read 0 1' a.qcow2",
        "qemu-io -f qcow2 -c 'reopen -o l2-cache-size=1M' -c 'reopen -o overlap-check=none' -c 'reopen -o backing.driver=raw' a.qcow2",
        "qemu-io -f qcow2 -c 'reopen -r -w' -c 'reopen -w -r' -c 'reopen -c none' -c 'reopen -c bogus' -c 'reopen -o read-only=on -r' -c 'reopen -o cache.direct=on -c none' -c 'reopen x' a.qcow2",
        "qemu-io -r -f qcow2 -c 'reopen -w' -c 'write 0 512' -c 'reopen -r' -c 'write 0 512' -c 'reopen -w -c writethrough' -c 'write 0 512' a.qcow2",
      ],
    ],
    [
      "descriptions as JSON",
      [
        `qemu-io -c info -c 'read 0 512' 'json:{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}}'`,
        `qemu-io -c info -c 'read 0 512' 'json:{"file.filename":"a.qcow2"}'`,
        `qemu-io -c info -c 'read 0 512' -c length 'json:{"driver":"raw","offset":65536,"size":65536,"file":{"driver":"file","filename":"r.raw"}}'`,
        `qemu-io -c 'read -P 0 0 512' 'json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":"o.qcow2"}}'`,
      ],
    ],
    [
      "descriptions that other commands take",
      [
        `qemu-img info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}}'`,
        `qemu-img check 'json:{"driver":"qcow2","file.filename":"a.qcow2"}'`,
        `qemu-img map --output=json 'json:{"driver":"qcow2","file":{"driver":"blkdebug","image":{"driver":"file","filename":"a.qcow2"}}}'`,
        `qemu-img compare -f raw 'json:{"driver":"raw","file":{"driver":"file","filename":"r.raw"}}' r.raw`,
        `qemu-img compare 'json:{"driver":"raw","size":65536,"file":{"driver":"file","filename":"r.raw"}}' 'json:{"driver":"raw","offset":65536,"size":65536,"file.filename":"r.raw"}'`,
        `qemu-img convert -O raw 'json:{"driver":"raw","offset":65536,"size":65536,"file.filename":"r.raw"}' piece.raw`,
        "qemu-img compare -f raw -F raw piece.raw piece.raw",
        "qemu-img map 'json:[]'",
        "qemu-img info 'json:[]'",
      ],
    ],
    [
      "storage that forgets",
      [
        "qemu-io -c 'open -o driver=null-co,size=1M,read-zeroes=on' -c length -c 'read -P 0 0 512' -c info",
        "qemu-io -c 'open -o driver=null-co,size=1M' -c length -c 'read -P 0 0 512' -c 'write 0 512' -c 'write -z 0 4k' -c 'discard 0 4k' -c 'truncate 2M' -c length -c alloc",
        "qemu-io -c length -c 'read 0 512' null-co://",
        "qemu-io -f raw -c length -c 'read 0 512' null-aio://",
        "qemu-io -c length null-co://foo",
        "qemu-io --image-opts -c length driver=null-co,size=2M,latency-ns=1000000",
        "qemu-io --image-opts -c length driver=null-co,size=2M,bogus=1",
      ],
    ],
    [
      "injected faults",
      [
        "qemu-io -f qcow2 -c 'read 0 512' -c 'read 0 512' blkdebug:c_read_aio:a.qcow2",
        "qemu-io -f qcow2 -c 'write -P 7 0 512' -c 'read -P 0xcd 0 512' -c 'write -P 7 0 512' -c 'read -P 7 0 512' blkdebug:c_write_aio:a.qcow2",
        "qemu-io -f qcow2 -c 'read 0 512' -c 'read 0 512' blkdebug:c_l2_load:a.qcow2",
        "qemu-io -f qcow2 -c 'write 3M 64k' -c flush -c flush blkdebug:c_l2_update:a.qcow2",
        "qemu-io -f qcow2 -c 'write 2M 64k' -c 'read -P 0xcd 2M 64k' blkdebug:c_cluster_alloc:a.qcow2",
        "qemu-io -f qcow2 -c 'write 0 512' -c 'write 0 512' blkdebug:c_pwritev:a.qcow2",
        "qemu-io -f qcow2 -c 'read 3M 512' -c 'read 0 512' -c 'read 0 512' blkdebug:c_read_backing_aio:o.qcow2",
        "qemu-io -f qcow2 -c 'write -P 5 3500k 1k' -c 'write -P 5 3500k 1k' -c 'read -P 5 3500k 1k' blkdebug:c_write_aio:a.qcow2",
        "qemu-io -f qcow2 -c 'read 0 64k' -c 'read 1M 64k' -c 'read 1M 64k' blkdebug:by_sector:a.qcow2",
        "qemu-io -f qcow2 -c 'write 0 512' -c 'write 0 512' -c 'write 0 512' blkdebug:by_state:a.qcow2",
        "qemu-io -f raw -c 'read 0 512' -c 'read 0 512' blkdebug:c_read_aio:r.raw",
        "qemu-io -f raw -c 'write 0 512' -c 'write 0 512' blkdebug:c_write_aio:r.raw",
        "qemu-io -f qcow2 -c 'read 0 512' blkdebug::a.qcow2",
        `qemu-io -c 'read 0 512' 'json:{"driver":"qcow2","file":{"driver":"blkdebug","image":{"driver":"file","filename":"a.qcow2"},"inject-error":[{"event":"read_aio","errno":28}]}}'`,
        "qemu-io -c 'open -o driver=qcow2,file.driver=blkdebug,file.image.filename=a.qcow2,file.inject-error.0.event=read_aio,file.inject-error.0.errno=5,file.inject-error.0.once=on' -c 'read 0 512' -c 'read 0 512'",
      ],
    ],
    [
      "limits of requests",
      [
        "qemu-io -c 'open -o driver=qcow2,file.driver=blkdebug,file.image.filename=a.qcow2,file.align=3' -c 'read 0 512'",
        "qemu-io -c 'open -o driver=qcow2,file.driver=blkdebug,file.image.filename=a.qcow2,file.align=4096,file.max-transfer=1000' -c 'read 0 512'",
        "qemu-io -c 'open -o driver=qcow2,file.driver=blkdebug,file.image.filename=a.qcow2,file.align=4096,file.max-transfer=8192,file.max-write-zero=8192,file.opt-write-zero=4096,file.max-discard=64k,file.opt-discard=4k' -c 'write -P 4 100 70000' -c 'read -P 4 100 70000' -c 'write -z 200 66000' -c 'read -P 0 200 66000'",
        "qemu-io -c 'open -o driver=raw,file.driver=blkdebug,file.image.filename=r.raw,file.align=4096,file.max-transfer=8192' -c 'write -P 4 100 70000' -c 'read -P 4 100 70000' -c 'write -z 200 66000' -c 'read -P 0 200 66000' -c 'discard 0 128k'",
        "qemu-io -c 'open -o driver=blkdebug,image.filename=r.raw' -c length -c 'read 0 512' -c 'write 0 512'",
      ],
    ],
    [
      "fault configurations that are none",
      [
        "qemu-io -f qcow2 -c info blkdebug:a.qcow2",
        "qemu-io -f qcow2 -c info blkdebug:nofile:a.qcow2",
        "qemu-io -f qcow2 -c info blkdebug:c_read_aio:nofile",
        "qemu-io -f qcow2 -c 'read 0 1' blkdebug:bad_event:a.qcow2",
        "qemu-io -f qcow2 -c 'read 0 1' blkdebug:bad_group:a.qcow2",
        "qemu-io -f qcow2 -c 'read 0 1' blkdebug:bad_start:a.qcow2",
        "qemu-io -f qcow2 -c 'read 0 1' blkdebug:bad_name:a.qcow2",
        "qemu-io -f qcow2 -c 'read 0 1' blkdebug:bad_state:a.qcow2",
        "qemu-io -f qcow2 -c 'read 0 1' blkdebug:bad_once:a.qcow2",
        "qemu-io -c 'open -o driver=blkdebug,image.filename=r.raw,bogus=1' -c 'open -o driver=blkdebug' -c length",
      ],
    ],
    [
      "breakpoints",
      [
        "qemu-io -c 'open -o driver=qcow2,file.driver=blkdebug,file.image.filename=a.qcow2' -c 'break write_aio A' -c 'aio_write 0 512' -c 'wait_break A' -c 'read 1M 512' -c 'resume A' -c aio_flush -c 'read -P 0xcd 0 512'",
        "qemu-io -c 'open -o driver=qcow2,file.driver=blkdebug,file.image.filename=a.qcow2' -c 'break bogus A' -c 'resume A' -c 'remove_break A' -c 'break write_aio A' -c 'remove_break A' -c 'write 0 512' -c 'break l2_load B' -c 'aio_read 0 512' -c aio_flush",
        "qemu-io -c 'open -o driver=qcow2,file.driver=blkdebug,file.image.filename=a.qcow2' -c 'break write_aio A' -c 'aio_write 0 512' -c 'wait_break A' -c 'remove_break A' -c aio_flush",
      ],
    ],
    [
      "signals and times",
      [
        "qemu-io -c 'sigraise x' -c 'sigraise 0' -c 'sigraise 999' -c 'sigraise 65' -c 'sigraise 5 5' a.qcow2",
        "qemu-io -c 'sleep x' -c 'sleep -5' -c 'sleep 0x1' -c 'sleep 01' a.qcow2",
      ],
    ],
    [
      "breakpoints where there can be none",
      ["qemu-io -c 'break read_aio A' -c 'resume A' -c 'remove_break A' -f qcow2 a.qcow2"],
    ],
    [
      "words",
      [
        "qemu-io -c 'help read extra' -c '? nope' -c '?  quit' a.qcow2",
        "qemu-io -c '  read   0   512  ' -c 'read \"0\" 512' -c '# comment' -c 'help; quit' -f qcow2 a.qcow2",
        "qemu-io -c 'q x'",
      ],
    ],
  ])("%s", (_what, lines) => expectSame(lines));

  it.each([
    "qemu-io --bogus",
    "qemu-io a b c",
    "qemu-io -Z",
    "qemu-io -rqZ",
    "qemu-io -c",
    "qemu-io --cmd",
    "qemu-io --read-only=yes",
  ])("%s: the same complaint, and help", async (line) => {
    const { stock, own } = await tools.bothRun(line);
    expect([own.stderr, own.code]).toEqual([stock.stderr, stock.code]);
    expect([own.stdout, stock.stdout]).toEqual([
      expect.stringMatching(/^usage: qemu-io \[OPTION\]/),
      expect.stringMatching(/^Usage: qemu-io/),
    ]);
  });

  it("lists the same commands, and those for zones", async () => {
    const { stock, own } = await tools.bothRun("qemu-io -c help");
    const withoutZones = own.stdout.split("\n").filter((line) => !line.startsWith("zone_"));
    expect(withoutZones).toEqual(stock.stdout.split("\n"));
  });
});
