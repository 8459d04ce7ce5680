import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { BothFolders } from "../support/both-folders.js";
import { describeWithStock, runTool, temporaryDirectory } from "../support/stock-tools.js";
import { BuiltCommand } from "./built-command.js";

const PER_CENT = /^(?: {4}\(\d+\.\d\d\/100%\)\n)+$/;
/** Between two signals, in milliseconds. */
const PAUSE = 40;
/** What the start of Node.js takes at most, in milliseconds. */
const BOOT = 500;
const FILE = /\.(raw|qcow2)$/;

/** Whether a process has a handler for SIGUSR1 (10): without one it would be ended. */
function catchesUserSignal(pid: number | undefined): boolean {
  try {
    const caught = /^SigCgt:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "0";
    return (BigInt(`0x${caught}`) & (1n << 9n)) !== 0n;
  } catch {
    return false;
  }
}

describeWithStock("progress", () => {
  const root = temporaryDirectory();
  const folders = new BothFolders();
  let command: BuiltCommand;

  beforeAll(async () => {
    command = await BuiltCommand.build(join(root, "built"));
    await folders.make(
      "qemu-img create -q -f raw a.raw 8M",
      "qemu-io -f raw -c 'write -q 0 8M' a.raw",
      "qemu-img convert -f raw -O qcow2 a.raw a.qcow2",
      "qemu-img create -q -f qcow2 base.qcow2 8M",
      "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 over.qcow2",
      "qemu-img create -q -f qcow2 below.qcow2 8M",
      "qemu-img create -q -f qcow2 -b below.qcow2 -F qcow2 above.qcow2",
      "qemu-io -c 'write -q 0 8M' above.qcow2",
      "qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 empty.qcow2",
    );
  });

  /** Sends SIGUSR1 over and over, from when there is something to be told. */
  async function signalled(args: readonly string[]): Promise<{ code: number | null; out: string; err: string }> {
    const child = command.spawn(args.map((arg) => (FILE.test(arg) ? join(folders.ours, arg) : arg)));
    let [out, err] = ["", ""];
    child.stdout?.on("data", (data: Uint8Array) => (out += new TextDecoder().decode(data)));
    child.stderr?.on("data", (data: Uint8Array) => (err += new TextDecoder().decode(data)));
    // Node.js itself takes the signal before the command begins; before that, and on a busy machine long, nobody does.
    const start = performance.now();
    const timer = setInterval(() => {
      if (performance.now() - start > BOOT && catchesUserSignal(child.pid)) child.kill("SIGUSR1");
    }, PAUSE);
    const [code] = (await once(child, "close")) as [number | null];
    clearInterval(timer);
    return { code, out, err };
  }

  describe("is told on standard error when SIGUSR1 asks for it", () => {
    it.each([
      ["convert", ["convert", "-r", "8M", "-f", "raw", "-O", "qcow2", "a.raw", "slow.qcow2"]],
      ["commit", ["commit", "-q", "-d", "-r", "8M", "above.qcow2"]],
    ])("%s", async (_name, args) => {
      const { code, out, err } = await signalled(args);
      expect([code, out]).toEqual([0, ""]);
      expect(err).toMatch(PER_CENT);
    });
  });

  it("the signal does no harm to a command without progress", async () => {
    const { code, out, err } = await signalled(["io", "-c", "sleep 1200", "-c", "read -q 0 4k", "a.qcow2"]);
    expect([code, out, err]).toEqual([0, "", ""]);
  });

  describe("is shown by -p as by the stock tool, and the line is left when the command fails", () => {
    it.each([
      "convert -p missing x",
      "convert -p -f qcow2 a.raw x",
      "convert -p -O bogus a.raw x",
      "convert -p a.raw /missing/x",
      "convert -p a.raw b.raw",
      "convert -q -p a.raw c.raw",
      "compare -p missing a.raw",
      "compare -p a.raw a.qcow2",
      "compare -p a.raw base.qcow2",
      "rebase -p -b missing -F raw over.qcow2",
      "rebase -p -b base.qcow2 -F qcow2 empty.qcow2",
      "commit -p missing",
      "commit -p over.qcow2",
      "amend -p -o bogus=9 a.qcow2",
      "amend -p -o lazy_refcounts=on a.qcow2",
      "amend -q -p -o lazy_refcounts=off a.qcow2",
      "amend -p -o compat=1.1 missing",
      "resize -p a.raw 9M",
      "check -p a.qcow2",
      "dd -p if=a.raw of=d.raw",
    ])("%s", async (line) => {
      await folders.expectSame(line);
    });
  });

  it("leaves the images sound", async () => {
    for (const name of ["a.qcow2", "over.qcow2", "empty.qcow2", "slow.qcow2"]) {
      expect((await runTool("qemu-img", ["check", "-q", join(folders.ours, name)])).code).toBe(0);
    }
  });
});
