import { spawn } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { endServers, serve } from "../support/serving-process.js";
import { expectCleanCheck, findTool, qemuImg, qemuIo, runTool } from "../support/stock-tools.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { BuiltCommand } from "./built-command.js";

const missing = ["qemu-img", "qemu-io", "nbdkit", "nbdcopy"].filter((tool) => findTool(tool) === undefined);
if (missing.length > 0) console.warn(`tests with nbdkit are skipped: ${missing.join(", ")} not found`);

/** Servers that a client must get along with, by nbdkit's options. */
const PECULIAR: readonly (readonly [string, readonly string[], readonly string[]])[] = [
  ["is slow", ["--filter=delay"], ["rdelay=2ms", "wdelay=2ms", "delay-zero=5ms", "delay-open=300ms"]],
  ["takes one client", ["--filter=limit"], ["limit=1"]],
  ["has simple replies only", ["--no-sr"], []],
  ["has neither fixed newstyle options nor short handshakes", ["--mask-handshake=1"], []],
  ["has no zeroing", ["--filter=nozero"], []],
  ["zeroes by writing", ["--filter=nozero"], ["zeromode=emulate"]],
  ["tells nothing of holes", ["--filter=noextents"], []],
  ["flushes after each write", ["--filter=fua"], ["fuamode=force"]],
  ["takes blocks of 4 KiB", ["--filter=blocksize-policy"], ["blocksize-error-policy=error", "blocksize-minimum=4096"]],
  [
    "takes 64 KiB at most",
    ["--filter=blocksize-policy"],
    ["blocksize-error-policy=error", "blocksize-minimum=512", "blocksize-maximum=65536"],
  ],
];

describe.skipIf(missing.length > 0 || process.env["ZCOW_WITHOUT_STOCK_TOOLS"] === "1")("nbdkit", () => {
  const at = temporaryFolder();
  let command: BuiltCommand;

  beforeAll(async () => {
    command = await BuiltCommand.build(at("build"));
    await qemuImg(["create", "-q", "-f", "qcow2", at("disk.qcow2"), "8M"]);
    await qemuIo([
      "-c",
      "write -P 5 1M 1500k",
      "-c",
      "write -P 6 6M 100k",
      "-c",
      "write -P 7 8191k 1k",
      at("disk.qcow2"),
    ]);
    await qemuImg(["convert", "-O", "raw", at("disk.qcow2"), at("disk.raw")]);
  });
  afterEach(endServers);

  const uri = (socket: string) => `nbd+unix:///?socket=${at(socket)}`;
  const zcow = (...args: string[]) => command.zcow(at("."), args);
  const disk = () => readFileSync(at("disk.raw"));
  async function kit(socket: string, filters: readonly string[], options: readonly string[], file: string) {
    rmSync(at(socket), { force: true });
    return serve(spawn("nbdkit", ["-f", "-U", at(socket), ...filters, "file", at(file), ...options]), at(socket));
  }
  function freshFile(name: string): void {
    writeFileSync(at(name), Buffer.alloc(8 << 20, 0xee));
  }

  it.each(PECULIAR)("is a target and a source when it %s", async (_, filters, options) => {
    freshFile("target.raw");
    await kit("peculiar.sock", filters, options, "target.raw");
    const into = await zcow("convert", "-n", "-f", "qcow2", "-O", "raw", "disk.qcow2", uri("peculiar.sock"));
    expect([into.code, into.stderr]).toEqual([0, ""]);
    expect(readFileSync(at("target.raw")).equals(disk())).toBe(true);
    const out = await zcow("convert", "-f", "raw", "-O", "qcow2", uri("peculiar.sock"), "back.qcow2");
    expect([out.code, out.stderr]).toEqual([0, ""]);
    expect((await qemuImg(["compare", at("back.qcow2"), at("disk.qcow2")])).stdout).toContain("identical");
    // Odd requests: parts of blocks, and neighbours that must stay.
    const lines = ["write -P 9 100 1", "write -z 1048577 70001", "read -P 9 100 1", "read -P 5 1M 1", "flush"];
    const io = await zcow("io", "-f", "raw", ...lines.flatMap((line) => ["-c", line]), uri("peculiar.sock"));
    expect([io.code, io.stdout.includes("failed")]).toEqual([0, false]);
    const expected = disk();
    expected[100] = 9;
    expected.fill(0, 1048577, 1048577 + 70001);
    expect(readFileSync(at("target.raw")).equals(expected)).toBe(true);
  });

  it("is asked again when it is gone, by a client at work", async () => {
    freshFile("leaving.raw");
    const start = () =>
      kit(
        "leaving.sock",
        ["--filter=exitwhen", "--filter=delay"],
        [`exit-when-file-created=${at("leave")}`, "exit-when-poll=1", "wdelay=20ms"],
        "leaving.raw",
      );
    await start();
    const lines = Array.from({ length: 100 }, (_, index) => [`write -q -P ${index + 1} ${index}k 1k`, "flush"]).flat();
    const work = zcow("io", "-f", "raw", ...lines.flatMap((line) => ["-c", line]), uri("leaving.sock"));
    await new Promise((resolve) => setTimeout(resolve, 700));
    writeFileSync(at("leave"), "");
    // nbdkit lets its clients go on; only new ones find nobody.
    await new Promise((resolve) => setTimeout(resolve, 1200));
    rmSync(at("leave"));
    await start();
    const { code, stdout } = await work;
    expect([code, stdout.includes("failed")]).toEqual([0, false]);
    const written = readFileSync(at("leaving.raw"));
    for (let index = 0; index < 100; index++) expect(written[index * 1024 + 512]).toBe(index + 1);
  });

  it.each([
    ["pread", "EIO", ["io", "-f", "raw", "-c", "read 0 4k"]],
    ["pwrite", "ENOSPC", ["io", "-f", "raw", "-c", "write 0 4k"]],
    ["zero", "EPERM", ["io", "-f", "raw", "-c", "write -z 0 4k"]],
    ["extents", "EIO", ["map", "-f", "raw"]],
  ])("is believed when it fails a %s with %s", async (request, errno, args) => {
    freshFile("failing.raw");
    await kit(
      "failing.sock",
      ["--filter=error"],
      [`error-${request}=${errno}`, `error-${request}-rate=100%`],
      "failing.raw",
    );
    const { code, stdout, stderr } = await zcow(...args, uri("failing.sock"));
    expect(code).toBe(1);
    const words = { EIO: "Input/output error", ENOSPC: "No space left", EPERM: "not permitted" }[errno] as string;
    expect(stdout + stderr).toMatch(new RegExp(`${errno}|${words}`));
    const { code: after } = await zcow("info", "-f", "raw", uri("failing.sock"));
    expect(after).toBe(0);
  });

  it("is refused in words when it speaks the oldest form", async () => {
    freshFile("old.raw");
    await kit("old.sock", ["-o"], [], "old.raw");
    const { code, stderr } = await zcow("info", uri("old.sock"));
    expect([code, stderr]).toEqual([1, expect.stringContaining("too old")]);
  });

  it.each([[[]], [["shared=true"]]])("is a client with its nbd plugin %j", async (options) => {
    await qemuImg(["create", "-q", "-f", "qcow2", at("served.qcow2"), "8M"]);
    const ours = await serve(command.spawn(["nbd", "-k", at("ours.sock"), "-f", "qcow2", at("served.qcow2")]));
    rmSync(at("plugin.sock"), { force: true });
    const plugin = spawn("nbdkit", ["-f", "-U", at("plugin.sock"), "nbd", `uri=${uri("ours.sock")}`, ...options]);
    const chain = await serve(plugin, at("plugin.sock"));
    expect((await runTool("nbdcopy", [at("disk.raw"), uri("plugin.sock")])).stderr).toBe("");
    expect((await runTool("nbdcopy", [uri("plugin.sock"), at("back.raw")])).stderr).toBe("");
    expect(readFileSync(at("back.raw")).equals(disk())).toBe(true);
    const map = (socket: string) => runTool("nbdinfo", ["--map", uri(socket)]);
    expect((await map("plugin.sock")).stdout).toBe((await map("ours.sock")).stdout);
    const io = ["-f", "raw", "-c", "write -P 8 3M 64k", "-c", "discard 1M 1M", "-c", "write -z 6M 64k", "-c", "flush"];
    expect((await qemuIo([...io, uri("plugin.sock")])).stdout).not.toContain("failed");
    await chain.end();
    await ours.end();
    await expectCleanCheck(at("served.qcow2"));
    const read = ["-r", "-c", "read -P 8 3M 64k", "-c", "read -P 0 1M 1M", "-c", "read -P 0 6M 64k"];
    expect((await qemuIo([...read, at("served.qcow2")])).stdout).not.toContain("failed");
  });
});
