import { spawn } from "node:child_process";
import { truncateSync, writeFileSync } from "node:fs";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { endServers, serve } from "../support/serving-process.js";
import { findTool, qemuImg, qemuIo, runTool } from "../support/stock-tools.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { BuiltCommand } from "./built-command.js";

const missing = ["qemu-img", "qemu-io", "qemu-nbd", "nbdinfo"].filter((tool) => findTool(tool) === undefined);
if (missing.length > 0) console.warn(`tests with nbdinfo are skipped: ${missing.join(", ")} not found`);

/** What the image is called in the folder, and how both servers are told to serve it. */
const SERVED: readonly (readonly string[])[] = [
  ["plain.qcow2", "-f", "qcow2", "-r"],
  ["plain.qcow2", "-f", "qcow2", "-e", "5", "-x", "ä/b c", "-D", "a description"],
  ["overlay.qcow2", "-f", "qcow2", "-r", "-A", "-e", "5"],
  ["fine.qcow2", "-f", "qcow2", "-r", "-A", "-B", "b0"],
  ["packed.qcow2", "-f", "qcow2", "-r", "-A"],
  ["sparse.raw", "-f", "raw", "-r"],
  ["sparse.raw", "-f", "raw", "-o", "1048576", "-r"],
  ["plain.qcow2", "-f", "qcow2", "-l", "before"],
];

const QUESTIONS: readonly (readonly string[])[] = [
  ["--list"],
  ["--list", "--json"],
  ["--content"],
  ["--json"],
  ["--size"],
  ["--map"],
  ["--map", "--json"],
  ["--map", "--totals"],
  ["--map=qemu:allocation-depth"],
  ["--map=qemu:dirty-bitmap:b0"],
];

const ABILITIES = ["cache", "df", "fast-zero", "flush", "fua", "multi-conn", "trim", "write", "zero"];

describe.skipIf(missing.length > 0 || process.env["ZCOW_WITHOUT_STOCK_TOOLS"] === "1")("nbdinfo", () => {
  const at = temporaryFolder();
  let command: BuiltCommand;

  beforeAll(async () => {
    command = await BuiltCommand.build(at("build"));
    const make = (name: string, ...args: string[]) =>
      qemuImg(["create", "-q", "-f", "qcow2", ...args, at(name), "16M"]);
    const io = (name: string, ...lines: string[]) => qemuIo([...lines.flatMap((line) => ["-c", line]), at(name)]);
    await make("plain.qcow2");
    await io("plain.qcow2", "write -P 1 0 1M", "write -z 4M 1M", "write -P 2 9M 130k");
    await qemuImg(["snapshot", "-c", "before", at("plain.qcow2")]);
    await io("plain.qcow2", "write -P 3 12M 1M", "write -P 3 64k 64k");
    await make("overlay.qcow2", "-b", at("plain.qcow2"), "-F", "qcow2");
    await io("overlay.qcow2", "write -P 4 2M 64k", "write -z 0 64k", "discard 9M 64k");
    await make("fine.qcow2", "-o", "extended_l2=on,cluster_size=128k");
    await qemuImg(["bitmap", "--add", at("fine.qcow2"), "b0"]);
    await io("fine.qcow2", "write -P 4 8k 12k", "write -P 5 3M 300k");
    await qemuImg(["convert", "-c", "-O", "qcow2", at("plain.qcow2"), at("packed.qcow2")]);
    writeFileSync(at("sparse.raw"), Buffer.alloc(2_500_000, 7));
    truncateSync(at("sparse.raw"), 12 << 20);
  });
  afterEach(endServers);

  const uri = (socket: string, name = "") => `nbd+unix:///${encodeURIComponent(name)}?socket=${at(socket)}`;

  /** Answers to all questions, without what the servers need not agree on. */
  async function answers(socket: string, name: string): Promise<unknown[]> {
    const asked = [...QUESTIONS, ...ABILITIES.map((ability) => ["--can", ability])];
    const more = [
      ["--is", "read-only"],
      ["--is", "rotational"],
      ["--is", "tls"],
      ["--has", "structured-reply"],
    ];
    const said: unknown[] = [];
    for (const question of [...asked, ...more]) {
      const { code, stdout, stderr } = await runTool("nbdinfo", [...question, uri(socket, name)]);
      // Ours prefers whole clusters.
      const comparable = stdout.replace(/"?block_size_preferred"?: \d+,?\n/, "").replaceAll(at(socket), "SOCKET");
      said.push([question, code, comparable, stderr.replaceAll(at(socket), "SOCKET")]);
    }
    return said;
  }

  it.each(SERVED)("hears from ours what it hears from the stock server: %s %s %s %s %s", async (image, ...options) => {
    const shared = options.includes("-e") ? [] : ["-e", "1"];
    const name = options.includes("-x") ? "ä/b c" : "";
    const own = await serve(command.spawn(["nbd", "-k", at("own.sock"), ...shared, ...options, at(image)]));
    const heard = await answers("own.sock", name);
    // Both at one time would be refused the lock of a writable image.
    await own.end();
    const stock = ["-t", "-k", at("stock.sock"), ...shared, ...options, at(image)];
    await serve(spawn("qemu-nbd", stock), at("stock.sock"));
    expect(heard).toEqual(await answers("stock.sock", name));
  });

  it("shows the zones of a zoned image", async () => {
    const zones = "zone.mode=host-managed,zone.size=4M,zone.capacity=3M,zone.conventional_zones=1";
    await command.zcow(at("."), ["create", "-q", "-f", "qcow2", "-o", zones, at("zoned.qcow2"), "16M"]);
    await command.zcow(at("."), ["io", "-c", "write 4M 64k", at("zoned.qcow2")]);
    await serve(command.spawn(["nbd", "-k", at("zoned.sock"), "-f", "qcow2", at("zoned.qcow2")]));
    const { stdout } = await runTool("nbdinfo", ["--map=zcow:zones", uri("zoned.sock")]);
    expect(stdout.split("\n").map((line) => line.trim().split(/ +/).map(Number))).toEqual([
      [0, 3145728, 0x001],
      [3145728, 1048576, 0x201],
      [4194304, 65536, 0x142],
      [4259840, 3080192, 0x042],
      [7340032, 1048576, 0x242],
      [8388608, 3145728, 0x012],
      [11534336, 1048576, 0x212],
      [12582912, 3145728, 0x012],
      [15728640, 1048576, 0x212],
      [0],
    ]);
    const listed = JSON.parse((await runTool("nbdinfo", ["--json", uri("zoned.sock")])).stdout);
    expect(listed).toMatchObject({ exports: [{ contexts: ["base:allocation", "zcow:zones"], is_read_only: true }] });
  });
});
