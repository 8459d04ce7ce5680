import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { BuiltCommand } from "../e2e/built-command.js";
import { describeWithStock, runTool, temporaryDirectory } from "./stock-tools.js";

type Signal = "SIGINT" | "SIGTERM" | "SIGKILL";

const MiB = 1024 * 1024;
const FILES = ["base.qcow2", "other.qcow2", "over.qcow2", "roomy.qcow2", "small.qcow2", "data.raw"];

/** A command that takes a while, and what must be left of it wherever it ends. */
interface Work {
  readonly name: string;
  readonly args: readonly string[];
  /** Images that must be sound afterwards, lost clusters aside. */
  readonly sound: readonly string[];
  /** Images that must read as before. */
  readonly same: readonly string[];
  /** Files that must be as before to the byte. */
  readonly untouched: readonly string[];
  /** An image of zeros that `data.raw` is copied to: each sector is still zeros, or copied. */
  readonly copied?: string;
}

const WORKS: readonly Work[] = [
  {
    name: "convert",
    args: ["convert", "-O", "qcow2", "over.qcow2", "copy.qcow2"],
    sound: [],
    same: [],
    untouched: ["over.qcow2", "base.qcow2"],
  },
  {
    name: "convert -c",
    args: ["convert", "-c", "-O", "qcow2", "over.qcow2", "copy.qcow2"],
    sound: [],
    same: [],
    untouched: ["over.qcow2", "base.qcow2"],
  },
  {
    name: "convert -n",
    args: ["convert", "-n", "-O", "qcow2", "data.raw", "roomy.qcow2"],
    sound: ["roomy.qcow2"],
    same: [],
    untouched: ["data.raw"],
  },
  {
    // Tables are written all the time, so that the image is really in the middle of it.
    name: "convert -n, small clusters, tiny cache",
    args: [
      "convert",
      "-n",
      "-f",
      "raw",
      "--target-image-opts",
      "data.raw",
      "driver=qcow2,file.filename=small.qcow2,l2-cache-size=2k",
    ],
    sound: ["small.qcow2"],
    same: [],
    untouched: ["data.raw"],
    copied: "small.qcow2",
  },
  {
    name: "commit",
    args: ["commit", "over.qcow2"],
    sound: ["over.qcow2", "base.qcow2"],
    same: ["over.qcow2"],
    untouched: [],
  },
  {
    name: "rebase",
    args: ["rebase", "-b", "other.qcow2", "-F", "qcow2", "over.qcow2"],
    sound: ["over.qcow2"],
    same: ["over.qcow2"],
    untouched: ["base.qcow2", "other.qcow2"],
  },
  {
    name: "resize",
    args: ["resize", "--preallocation=full", "over.qcow2", "+64M"],
    sound: ["over.qcow2"],
    same: ["over.qcow2"],
    untouched: ["base.qcow2"],
  },
  {
    name: "snapshot -c",
    args: ["snapshot", "-c", "now", "over.qcow2"],
    sound: ["over.qcow2"],
    same: ["over.qcow2"],
    untouched: ["base.qcow2"],
  },
  {
    name: "amend",
    args: ["amend", "-o", "refcount_bits=64", "over.qcow2"],
    sound: ["over.qcow2"],
    same: ["over.qcow2"],
    untouched: ["base.qcow2"],
  },
  {
    name: "compact",
    args: ["compact", "roomy.qcow2"],
    sound: ["roomy.qcow2"],
    same: ["roomy.qcow2"],
    untouched: [],
  },
];

const SIGNALS: readonly Signal[] = ["SIGKILL", "SIGINT", "SIGTERM"];

/** Ends each command at `moments` moments of its run, with every signal, or with one of them each. */
export function endedMidwaySuite({ moments, everySignal }: { moments: number; everySignal: boolean }): void {
  describeWithStock("a command that is ended midway", () => {
    const root = temporaryDirectory();
    const stored = join(root, "stored");
    let command: BuiltCommand;

    beforeAll(async () => {
      command = await BuiltCommand.build(join(root, "built"));
      mkdirSync(stored);
      writeFileSync(join(stored, "data.raw"), noise(24 * MiB));
      await inShell(
        stored,
        `qemu-img convert -f raw -O qcow2 data.raw base.qcow2
        qemu-img create -q -f qcow2 other.qcow2 24M
        qemu-io -f qcow2 -c 'write -q -P 7 1M 9M' other.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 -o cluster_size=4k over.qcow2
        qemu-io -f qcow2 -c 'write -q -P 9 3M 12M' over.qcow2
        qemu-img create -q -f qcow2 -o cluster_size=1k small.qcow2 24M
        qemu-img create -q -f qcow2 roomy.qcow2 24M
        qemu-io -f qcow2 -c 'write -q -P 1 0 12M' -c 'write -q -P 2 12M 12M' -c 'discard -q 0 12M' roomy.qcow2
        for i in over roomy; do qemu-img convert -O raw $i.qcow2 $i.expected; done`,
      );
    });

    const cases = WORKS.flatMap((work, index) =>
      SIGNALS.filter((_, turn) => everySignal || turn === index % SIGNALS.length).map((signal) => ({ work, signal })),
    );

    describe("leaves what it worked on whole, and nothing locked", () => {
      it.each(cases)("$work.name, by $signal", async ({ work, signal }) => {
        const whole = await run(command, fresh(root, stored), work, undefined);
        expect(whole.status).toBe("0");
        for (let moment = 1; moment <= moments; moment++) {
          const folder = fresh(root, stored);
          const delay = (whole.milliseconds * (moment + 1)) / (moments + 2);
          const { status } = await run(command, folder, work, { signal, delay });
          // It may have been faster than the first time.
          expect(["0", signal]).toContain(status);
          await expectIntact(folder, stored, work);
          // Nothing holds it back: the same again, to its end. A snapshot is there twice then.
          expect((await run(command, folder, work, undefined)).status).toBe("0");
          await expectIntact(folder, stored, work);
          if (work.copied !== undefined) expect(await sectorsLeftOut(folder, work.copied)).toBe(0);
        }
      });
    });
  });
}

let folders = 0;

function fresh(root: string, stored: string): string {
  const folder = join(root, `run-${(folders += 1)}`);
  mkdirSync(folder);
  for (const name of FILES) copyFileSync(join(stored, name), join(folder, name));
  return folder;
}

async function run(
  command: BuiltCommand,
  cwd: string,
  { args }: Work,
  end: { readonly signal: Signal; readonly delay: number } | undefined,
): Promise<{ readonly status: string; readonly milliseconds: number }> {
  const [program = "", ...rest] = command.commandLine(args);
  const start = performance.now();
  const child = spawn(program, rest, { cwd, stdio: "ignore" });
  const timer = end === undefined ? undefined : setTimeout(() => child.kill(end.signal), end.delay);
  const [code, signal] = (await once(child, "exit")) as [number | null, Signal | null];
  clearTimeout(timer);
  return { status: signal ?? String(code), milliseconds: performance.now() - start };
}

async function expectIntact(folder: string, stored: string, { sound, same, untouched, copied }: Work): Promise<void> {
  for (const name of untouched) {
    expect(readFileSync(join(folder, name)).equals(readFileSync(join(stored, name))), name).toBe(true);
  }
  for (const name of sound) {
    // 3: lost clusters, and nothing else.
    const { code, stderr } = await runTool("qemu-img", ["check", "-q", "-U", "-f", "qcow2", join(folder, name)]);
    expect([0, 3], stderr).toContain(code);
    const locked = await runTool("qemu-io", ["-f", "qcow2", "-c", "flush", join(folder, name)]);
    expect(locked).toEqual({ code: 0, stdout: "", stderr: "" });
  }
  for (const name of same) {
    const expected = join(stored, name.replace(".qcow2", ".expected"));
    const compared = await runTool("qemu-img", ["compare", "-F", "raw", "-f", "qcow2", join(folder, name), expected]);
    expect(compared.stdout).toContain("Images are identical.");
  }
  if (copied !== undefined) await sectorsLeftOut(folder, copied);
}

/** Sectors of `data.raw` that the image has zeros in place of. Throws where it has anything else. */
async function sectorsLeftOut(folder: string, image: string): Promise<number> {
  await inShell(folder, `qemu-img convert -f qcow2 -O raw ${image} copied.raw`);
  const data = readFileSync(join(folder, "data.raw"));
  const copied = readFileSync(join(folder, "copied.raw"));
  expect(copied.length).toBe(data.length);
  let leftOut = 0;
  for (let at = 0; at < data.length; at += 512) {
    const sector = copied.subarray(at, at + 512);
    if (sector.equals(data.subarray(at, at + 512))) continue;
    if (sector.some((byte) => byte !== 0)) throw new Error(`${image} holds at ${at} what nobody wrote there`);
    leftOut += 1;
  }
  return leftOut;
}

async function inShell(folder: string, script: string): Promise<void> {
  const made = await runTool("env", ["-C", folder, "sh", "-ec", script]);
  if (made.code !== 0) throw new Error(made.stderr);
}

/** Bytes that do not shrink. */
function noise(length: number): Uint8Array {
  const words = new Uint32Array(length / 4);
  let state = 1;
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[i] = state;
  }
  return new Uint8Array(words.buffer);
}
