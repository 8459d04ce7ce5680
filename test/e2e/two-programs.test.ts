import { spawn } from "node:child_process";
import { once } from "node:events";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openImage } from "../../src/formats/open-image.js";
import { nativeCalls } from "../../src/host/native.js";
import { standInHere } from "../support/stand-in-here.js";
import { describeWithStock, runTool, type ToolResult, temporaryDirectory } from "../support/stock-tools.js";
import { wordsOf } from "../support/tool-lines.js";

/** What changes `disk.qcow2`, or a file that takes its place. */
const WRITERS = [
  "qemu-io -f qcow2 -c 'write 0 512' disk.qcow2",
  "qemu-io -c 'open -o driver=qcow2 disk.qcow2' -c 'write 0 512'",
  "qemu-img check -f qcow2 -r all disk.qcow2",
  "qemu-img check -f qcow2 -r leaks disk.qcow2",
  "qemu-img amend -f qcow2 -o lazy_refcounts=on disk.qcow2",
  "qemu-img resize -f qcow2 disk.qcow2 2M",
  "qemu-img snapshot -c s1 disk.qcow2",
  "qemu-img snapshot -a s0 disk.qcow2",
  "qemu-img snapshot -d s0 disk.qcow2",
  "qemu-img bitmap -f qcow2 --add disk.qcow2 b1",
  "qemu-img convert -n -f raw -O qcow2 other.raw disk.qcow2",
  "qemu-img convert -f raw -O qcow2 other.raw disk.qcow2",
  "qemu-img create -q -f qcow2 disk.qcow2 1M",
  "qemu-img rebase -u -f qcow2 -b '' disk.qcow2",
  "qemu-img dd if=other.raw of=disk.qcow2",
];

/** What only looks at it. */
const READERS = [
  "qemu-io -r -f qcow2 -c 'read 0 512' disk.qcow2",
  "qemu-img info disk.qcow2",
  "qemu-img check -f qcow2 disk.qcow2",
  "qemu-img map -f qcow2 disk.qcow2",
  "qemu-img snapshot -l disk.qcow2",
  "qemu-img compare -f qcow2 -F raw disk.qcow2 other.raw",
  "qemu-img convert -f qcow2 -O raw disk.qcow2 copy.raw",
];

/** The same, whoever writes meanwhile. */
const FORCED = [
  "qemu-io -r -U -f qcow2 -c 'read 0 512' disk.qcow2",
  "qemu-io -U -f qcow2 -c 'read 0 512' disk.qcow2",
  "qemu-img info -U disk.qcow2",
  "qemu-img check -U -f qcow2 disk.qcow2",
  "qemu-img map -U -f qcow2 disk.qcow2",
  "qemu-img snapshot -U -l disk.qcow2",
  "qemu-img compare -U -f qcow2 -F raw disk.qcow2 other.raw",
  "qemu-img convert -U -f qcow2 -O raw disk.qcow2 copy.raw",
  "qemu-img measure -U -f qcow2 -O qcow2 disk.qcow2",
  "qemu-img dd -U -f qcow2 bs=64k if=disk.qcow2 of=part.raw",
  "qemu-img info -U --backing-chain over.qcow2",
  "qemu-img map -U --image-opts driver=qcow2,file.filename=disk.qcow2,cache.direct=off",
  "qemu-img check --image-opts driver=qcow2,file.filename=disk.qcow2,force-share=on",
  `qemu-img info -U 'json:{"driver":"qcow2","file":{"driver":"file","filename":"disk.qcow2"}}'`,
];

/** What makes an image that refers to it. */
const REFERRING = [
  "qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 new.qcow2",
  "qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 new.qcow2 2M",
];

const LOCK_FAILURE = /Failed to get (shared )?"\w+" lock/;
const withoutRates = (text: string): string => text.replaceAll(/ops; .*$/gm, "ops");
const shown = ({ stdout, stderr, code }: ToolResult): ToolResult => ({ stdout: withoutRates(stdout), stderr, code });

const hasLocks = nativeCalls() !== undefined;

describeWithStock("two programs at one image", () => {
  const folder = temporaryDirectory();

  beforeAll(async () => {
    const script =
      "qemu-img create -q -f qcow2 disk.qcow2 1M; qemu-img snapshot -c s0 disk.qcow2; truncate -s 1M other.raw;" +
      "qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 over.qcow2";
    expect((await runTool("env", ["-C", folder, "sh", "-ec", script])).code).toBe(0);
    process.chdir(folder);
  });

  /** Stock qemu-io has the image open until the result is called. */
  async function stockHolds(...options: string[]): Promise<() => Promise<void>> {
    const args = [...options, "-f", "qcow2", "disk.qcow2"];
    const holder = spawn("qemu-io", args, { cwd: folder, stdio: ["pipe", "pipe", "inherit"] });
    holder.stdin.write("length\n");
    let printed = "";
    for await (const text of holder.stdout.iterator({ destroyOnReturn: false })) {
      printed += String(text);
      if (printed.includes("1 MiB")) break;
    }
    expect(printed).toContain("1 MiB");
    return async () => {
      const gone = once(holder, "exit");
      holder.stdin.end();
      await gone;
    };
  }

  const stock = (line: string): Promise<ToolResult> => runTool("env", ["-C", folder, ...wordsOf(line)]);

  async function own(line: string): Promise<ToolResult> {
    const [tool = "", ...args] = wordsOf(line);
    return standInHere(tool as "qemu-img" | "qemu-io", args);
  }

  async function expectCommitRefused(): Promise<void> {
    for (const run of [stock, own]) {
      const { stderr, code } = await run("qemu-img commit -f qcow2 over.qcow2");
      expect([code, LOCK_FAILURE.test(stderr)]).toEqual([1, true]);
    }
  }

  describe.skipIf(!hasLocks)("while the stock tool writes", () => {
    let release: (() => Promise<void>) | undefined;
    beforeAll(async () => {
      release = await stockHolds();
    });
    afterAll(() => release?.());

    it.each([...WRITERS, ...READERS])("refused alike: %s", async (line) => {
      const theirs = shown(await stock(line));
      expect(theirs.code).not.toBe(0);
      expect(theirs.stderr).toMatch(LOCK_FAILURE);
      expect(shown(await own(line))).toEqual(theirs);
    });

    it.each(REFERRING)("done alike: %s", async (line) => {
      const theirs = shown(await stock(line));
      expect(theirs.code).toBe(0);
      expect(shown(await own(line))).toEqual(theirs);
    });

    it.each(FORCED)("told alike: %s", async (line) => {
      expect(shown(await own(line))).toEqual(shown(await stock(line)));
    });

    it("commits nothing to it", expectCommitRefused);
  });

  describe.skipIf(!hasLocks)("while the stock tool reads", () => {
    let release: (() => Promise<void>) | undefined;
    beforeAll(async () => {
      release = await stockHolds("-r");
    });
    afterAll(() => release?.());

    it.each(WRITERS)("refused alike: %s", async (line) => {
      const theirs = shown(await stock(line));
      expect(theirs.stderr).toMatch(LOCK_FAILURE);
      expect(shown(await own(line))).toEqual(theirs);
    });

    it.each(READERS)("done alike: %s", async (line) => {
      const theirs = shown(await stock(line));
      expect(theirs.code).toBe(0);
      expect(shown(await own(line))).toEqual(theirs);
    });

    it("commits nothing to it", expectCommitRefused);
  });

  it.skipIf(!hasLocks)("while we write, the stock tool is refused all but what ignores locks", async () => {
    await using device = await openImage("disk.qcow2", { format: "qcow2", readOnly: false });
    await device.write(0, new Uint8Array(512));
    for (const line of [...WRITERS, ...READERS]) {
      const { stderr, code } = await stock(line);
      expect([line, code === 0, LOCK_FAILURE.test(stderr)]).toEqual([line, false, true]);
    }
    expect((await stock("qemu-img info -U disk.qcow2")).code).toBe(0);
  });

  it.skipIf(!hasLocks)("while we read, the stock tool reads and does not write", async () => {
    await using device = await openImage("disk.qcow2", { format: "qcow2", readOnly: true });
    expect(device.readOnly).toBe(true);
    for (const line of READERS) expect([line, (await stock(line)).code]).toEqual([line, 0]);
    for (const line of WRITERS) {
      const { stderr, code } = await stock(line);
      expect([line, code === 0, LOCK_FAILURE.test(stderr)]).toEqual([line, false, true]);
    }
  });
});
