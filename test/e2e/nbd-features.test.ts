import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { openNbdStorage } from "../../src/storage/nbd/nbd-storage.js";
import { Random, taggedBytes } from "../support/random.js";
import { endServers, serve } from "../support/serving-process.js";
import { expectSameContents, findTool, qemuImg, qemuIo, runTool } from "../support/stock-tools.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { BuiltCommand } from "./built-command.js";

const MIB = 1024 * 1024;
const TOOLS = ["qemu-img", "qemu-io", "qemu-nbd", "nbdinfo"];
const missing = TOOLS.filter((tool) => findTool(tool) === undefined);
if (missing.length > 0) console.warn(`tests of NBD features are skipped: ${missing.join(", ")} not found`);

describe.skipIf(missing.length > 0 || process.env["ZCOW_WITHOUT_STOCK_TOOLS"] === "1")("NBD beyond plain disks", () => {
  const at = temporaryFolder();
  const uri = (name: string) => `nbd+unix:///?socket=${at(name)}`;
  let command: BuiltCommand;

  beforeAll(async () => {
    command = await BuiltCommand.build(at("build"));
  });

  afterEach(endServers);

  const zcow = (...args: string[]) => command.zcow(at("."), args);
  const dirty = async (socket: string) =>
    (await runTool("nbdinfo", ["--map=qemu:dirty-bitmap:b0", uri(socket)])).stdout;

  it("shows a bitmap as the stock server does, and follows writes while it is served", async () => {
    const image = at("tracked.qcow2");
    await qemuImg(["create", "-q", "-f", "qcow2", image, "10M"]);
    await qemuImg(["bitmap", "--add", image, "b0"]);
    await qemuIo(["-c", "write 1M 64k", "-c", "write 9M 1M", image]);
    const reading = await serve(command.spawn(["nbd", "-r", "-k", at("a.sock"), "-B", "b0", "-f", "qcow2", image]));
    const ours = await dirty("a.sock");
    await reading.end();
    const stock = await serve(spawn("qemu-nbd", ["-t", "-k", at("b.sock"), "-B", "b0", image]), at("b.sock"));
    expect(ours).toBe(await dirty("b.sock"));
    await stock.end();
    const writing = await serve(command.spawn(["nbd", "-k", at("c.sock"), "-B", "b0", "-f", "qcow2", image]));
    await qemuIo(["-f", "raw", "-c", "write 3M 64k", uri("c.sock")]);
    expect(await dirty("c.sock")).toMatch(/3145728 +65536 +1 +dirty/);
    await writing.end();
    expect((await qemuImg(["check", image])).stdout).toContain("No errors were found");
    for (const args of [
      ["-B", "other", image],
      ["-B", "b0", "-f", "raw", image],
    ]) {
      const all = ["-r", "-k", at("d.sock"), ...args];
      const refused = await command.standIn("qemu-nbd", at("."), all);
      expect(refused).toMatchObject({ code: 1, stderr: (await runTool("qemu-nbd", all)).stderr });
    }
  });

  it("follows writes to a zoned image in its bitmap", async () => {
    const image = at("zoned.qcow2");
    expect(
      (await zcow("create", "-q", "-f", "qcow2", "-o", "zone.mode=host-managed,zone.size=1M", image, "8M")).code,
    ).toBe(0);
    expect((await zcow("bitmap", "--add", image, "b0")).code).toBe(0);
    const writing = await serve(
      command.spawn(["nbd", "--zoned-writes", "-k", at("z.sock"), "-B", "b0", "-f", "qcow2", image]),
    );
    expect(await dirty("z.sock")).toMatch(/^ +0 +8388608 +0 +clean$/m);
    await qemuIo(["-f", "raw", "-c", "write 2M 64k", uri("z.sock")]);
    expect(await dirty("z.sock")).toMatch(/2097152 +65536 +1 +dirty/);
    await writing.end();
    const reading = await serve(command.spawn(["nbd", "-k", at("y.sock"), "-B", "b0", "-f", "qcow2", image]));
    expect(await dirty("y.sock")).toMatch(/2097152 +65536 +1 +dirty/);
    await reading.end();
    expect((await zcow("check", image)).code).toBe(0);
  });

  it("forgets what was written to a temporary overlay (-s)", async () => {
    const image = at("kept.qcow2");
    await qemuImg(["create", "-q", "-f", "qcow2", image, "8M"]);
    await qemuIo(["-c", "write -P 3 0 1M", image]);
    const digest = () => createHash("sha256").update(readFileSync(image)).digest("hex");
    const before = digest();
    const server = await serve(command.spawn(["nbd", "-s", "-k", at("s.sock"), "-f", "qcow2", image]));
    const lines = ["write -P 4 512k 1M", "read -P 3 0 512k", "read -P 4 512k 1M", "flush"];
    const { stdout } = await qemuIo(["-f", "raw", ...lines.flatMap((line) => ["-c", line]), uri("s.sock")]);
    expect(stdout).not.toContain("failed");
    await server.end();
    expect(digest()).toBe(before);
  });

  it("takes exports for new images, backing files and data files, as the stock tools do", async () => {
    writeFileSync(at("export.raw"), "");
    truncateSync(at("export.raw"), 64 * 1024 * 1024);
    await serve(spawn("qemu-nbd", ["-t", "-e", "4", "-k", at("x.sock"), "-f", "raw", at("export.raw")]), at("x.sock"));
    const target = uri("x.sock");
    const large = await command.standIn("qemu-img", at("."), ["create", "-q", "-f", "raw", target, "200M"]);
    const stockLarge = await runTool("qemu-img", ["create", "-q", "-f", "raw", target, "200M"]);
    expect([large.code, large.stderr]).toEqual([stockLarge.code, stockLarge.stderr]);
    expect((await zcow("create", "-q", "-f", "qcow2", target, "32M")).code).toBe(0);
    expect((await qemuIo(["-f", "qcow2", "-c", "write -P 7 1M 64k", target])).stdout).not.toContain("failed");
    expect((await qemuImg(["check", "-f", "qcow2", target])).stdout).toContain("No errors were found");
    expect((await zcow("check", target)).code).toBe(0);
    const described = `json:${JSON.stringify({
      driver: "qcow2",
      file: { driver: "nbd", server: { type: "unix", path: at("x.sock") }, export: "" },
    })}`;
    for (const [index, backing] of [target, described].entries()) {
      const overlay = at(`overlay-${index}.qcow2`);
      expect((await zcow("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing, overlay)).code).toBe(0);
      expect((await zcow("io", "-c", "read -P 7 1M 64k", overlay)).stdout).not.toContain("failed");
      expect((await qemuIo(["-c", "read -P 7 1M 64k", overlay])).stdout).not.toContain("failed");
      expect((await zcow("info", "--backing-chain", overlay)).stdout).toContain("virtual size: 32 MiB");
    }
    expect(
      (await zcow("create", "-q", "-f", "qcow2", "-o", `data_file=${target}`, at("split.qcow2"), "32M")).code,
    ).toBe(0);
    const io = ["io", "-c", "write -P 9 0 64k", "-c", "read -P 9 0 64k", at("split.qcow2")];
    expect((await zcow(...io)).stdout).not.toContain("failed");
    expect((await zcow("check", at("split.qcow2"))).code).toBe(0);
  });

  it("lets an image inside a raw export grow as in a file (--resizable), and stock clients see nothing of it", async () => {
    writeFileSync(at("room.raw"), "");
    await serve(command.spawn(["nbd", "--resizable", "-k", at("r.sock"), "-f", "raw", at("room.raw")]), at("r.sock"));
    const target = uri("r.sock");
    expect(await zcow("create", "-q", "-f", "qcow2", target, "32M")).toMatchObject({ code: 0 });
    const written = await zcow("io", "-f", "qcow2", "-c", "write -P 7 1M 3M", "-c", "read -P 7 1M 3M", target);
    expect(written.stdout + written.stderr).not.toContain("failed");
    expect((await qemuImg(["check", "-U", "-f", "qcow2", at("room.raw")])).stdout).toContain("No errors were found");
    expect((await qemuIo(["-r", "-f", "qcow2", "-c", "read -P 7 1M 3M", target])).stdout).not.toContain("failed");
    const size = readFileSync(at("room.raw")).length;
    expect(JSON.parse((await runTool("nbdinfo", ["--json", target])).stdout).exports[0]["export-size"]).toBe(size);
    expect((await zcow("resize", "-f", "raw", target, "8M")).code).toBe(0);
    expect(readFileSync(at("room.raw"))).toHaveLength(8 * 1024 * 1024);
    const smaller = await zcow("resize", "-f", "raw", "--shrink", target, "4M");
    expect(smaller).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("cannot be made 4194304 bytes long") as string,
    });
  });

  it("lets clients make a qcow2 disk larger that is served, with all that belongs to it (--resizable)", async () => {
    await qemuImg(["create", "-q", "-f", "raw", at("below.raw"), "48M"]);
    await qemuIo(["-f", "raw", "-c", "write -P 5 0 48M", at("below.raw")]);
    const image = at("served.qcow2");
    await qemuImg(["create", "-q", "-f", "qcow2", "-F", "raw", "-b", at("below.raw"), image, "20M"]);
    await qemuImg(["bitmap", "--add", image, "b0"]);
    await qemuImg(["snapshot", "-c", "before", image]);
    const args = ["nbd", "--resizable", "-k", at("q.sock"), "-B", "b0", "-f", "qcow2", image];
    const server = await serve(command.spawn(args), at("q.sock"));
    const target = uri("q.sock");
    const sizeOf = async () => (await runTool("nbdinfo", ["--size", target])).stdout.trim();
    expect(await zcow("resize", "-f", "raw", target, "2G")).toMatchObject({ code: 0, stdout: "Image resized.\n" });
    expect(await sizeOf()).toBe(String(2 ** 31));
    const stock = await qemuIo(["-f", "raw", "-c", "write -P 9 2047M 64k", "-c", "read -P 0 20M 40M", target]);
    expect(stock.stdout + stock.stderr).not.toMatch(/failed/);
    expect((await runTool("nbdinfo", ["--map=qemu:dirty-bitmap:b0", target])).stdout).toMatch(/2146435072 +65536 +1/);
    expect((await zcow("resize", "-f", "raw", target, "+1M")).code).toBe(0);
    expect(await sizeOf()).toBe(String(2 ** 31 + 2 ** 20));
    const smaller = await zcow("resize", "-f", "raw", "--shrink", target, "1G");
    expect(smaller).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("cannot be made 1073741824 bytes long") as string,
    });
    await server.end();
    expect((await qemuImg(["check", image])).stdout).toContain("No errors were found");
    const read = ["-c", "read -P 5 0 20M", "-c", "read -P 0 20M 2027M", "-c", "read -P 9 2047M 64k"];
    expect((await qemuIo(["-r", "-f", "qcow2", ...read, image])).stdout).not.toContain("failed");
    expect((await zcow("info", "--backing-chain", image)).stdout).toContain("virtual size: 2 GiB (2148532224 bytes)");
  });

  it("refuses --resizable for what cannot grow while it is served, and to be told by the stock tool's name", async () => {
    const zoned = ["-o", "zone.mode=host-managed,zone.size=1M"];
    expect((await zcow("create", "-q", "-f", "qcow2", ...zoned, at("fixed.qcow2"), "4M")).code).toBe(0);
    await qemuImg(["create", "-q", "-f", "vpc", at("fixed.vhd"), "4M"]);
    const refused = (...args: string[]) => zcow("nbd", "--resizable", "-k", at("n.sock"), ...args);
    const texts = [
      await refused("--zoned-writes", "-f", "qcow2", at("fixed.qcow2")),
      await refused("-r", "-f", "qcow2", at("fixed.qcow2")),
      await refused("-r", "-f", "vpc", at("fixed.vhd")),
    ].map(({ code, stderr }) => `${code} ${stderr}`);
    expect(texts[0]).toMatch(/^1 .*is zoned: its size follows from its zones, and cannot grow while it is served/);
    expect(texts[1]).toMatch(/^1 .*is served for reading only/);
    expect(texts[2]).toMatch(/^1 .*is served for reading only/);
    for (const args of [["--resizable", at("fixed.qcow2")], ["--resiz", "x"], ["--nonsense"], ["-e"], []]) {
      const stock = await runTool("env", ["-C", at("."), "qemu-nbd", ...args]);
      expect(await command.standIn("qemu-nbd", at("."), args)).toMatchObject({
        code: stock.code,
        stderr: stock.stderr,
      });
    }
  });

  it("takes the socket that systemd hands over", async () => {
    await qemuImg(["create", "-q", "-f", "qcow2", at("socket.qcow2"), "8M"]);
    // What a socket unit does: listen, and start the server with the socket as descriptor 3.
    const script = [
      "import os, socket, sys",
      "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(4)",
      "os.dup2(s.fileno(), 3); os.set_inheritable(3, True)",
      "os.environ['LISTEN_FDS'] = '1'; os.environ['LISTEN_PID'] = str(os.getpid())",
      "os.execv(sys.argv[2], sys.argv[2:])",
    ].join("\n");
    const own = command.commandLine(["nbd", "-f", "qcow2", at("socket.qcow2")]);
    const server = await serve(spawn("python3", ["-c", script, at("unit.sock"), ...own]));
    expect(server.said()).toBe(`serving ${uri("unit.sock")} (8388608 bytes)\n`);
    expect((await runTool("nbdinfo", ["--size", uri("unit.sock")])).stdout).toBe("8388608\n");
    await server.end();
    expect(existsSync(at("unit.sock"))).toBe(true);
  });

  it("loses nothing that was flushed when it is killed under load, and clients go on with its successor", async () => {
    const image = at("killed.qcow2");
    await qemuImg(["create", "-q", "-f", "qcow2", image, "64M"]);
    const start = () => command.spawn(["nbd", "-k", at("kill.sock"), "-f", "qcow2", image]);
    const first = start();
    await serve(first);
    const lines = Array.from({ length: 60 }, (_, index) => [`write -q -P ${index + 1} ${index}M 1M`, "flush"]).flat();
    const load = zcow("io", "-f", "raw", ...lines.flatMap((line) => ["-c", line]), uri("kill.sock"));
    await new Promise((resolve) => setTimeout(resolve, 500));
    first.kill("SIGKILL");
    await new Promise((resolve) => first.once("close", resolve));
    const second = await serve(start());
    const { code, stdout } = await load;
    expect([code, stdout.includes("failed")]).toEqual([0, false]);
    await second.end();
    // Clusters that were about to be used are leaked, and nothing else is wrong.
    expect([0, 3]).toContain((await qemuImg(["check", image])).code);
    const reads = Array.from({ length: 60 }, (_, index) => ["-c", `read -P ${index + 1} ${index}M 1M`]).flat();
    const read = await qemuIo(["-r", ...reads, image]);
    expect([read.code, read.stdout.includes("failed")]).toEqual([0, false]);
  });

  it("has an old size or the new one when it is killed while its disk grows, and clients go on with its successor", async () => {
    const image = at("growing.qcow2");
    const first = 4 * MIB;
    await qemuImg(["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", image, String(first)]);
    const start = () => command.spawn(["nbd", "--resizable", "-k", at("g.sock"), "-f", "qcow2", image]);
    let running = start();
    await serve(running, at("g.sock"));
    const storage = await openNbdStorage(uri("g.sock"), { writable: true });
    const expected = new Uint8Array(100 * MIB);
    const random = new Random(5);
    for (let round = 1; round <= 6; round++) {
      const old = storage.size();
      const jobs = Array.from({ length: 30 }, (_, index) => {
        const bytes = taggedBytes(round, index, 8192);
        const offset = (index * Math.floor(old / 30)) & ~511;
        expected.set(bytes, offset);
        return storage.write(offset, bytes);
      });
      const grown = [1, 2, 3].map((step) => storage.truncate(old + step * random.between(1, 5) * MIB));
      await new Promise((resolve) => setTimeout(resolve, random.below(30)));
      running.kill("SIGKILL");
      await new Promise((resolve) => running.once("close", resolve));
      expect([0, 3]).toContain((await qemuImg(["check", image])).code);
      running = start();
      const next = await serve(running);
      await Promise.allSettled(grown);
      await Promise.all(jobs);
      const size = storage.size();
      await storage.write(size - 512, taggedBytes(round, size, 512));
      expected.set(taggedBytes(round, size, 512), size - 512);
      await storage.flush();
      if (round < 6) continue;
      const back = new Uint8Array(size);
      await storage.read(0, back);
      expect(Buffer.compare(back, expected.subarray(0, size))).toBe(0);
      await storage.close();
      await next.end();
      expect([0, 3]).toContain((await qemuImg(["check", image])).code);
      writeFileSync(at("growing.raw"), expected.subarray(0, size));
      await expectSameContents(image, "qcow2", at("growing.raw"), "raw");
    }
  });
});
