import { readFileSync } from "node:fs";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { SlowNbdClient } from "../support/nbd-slow-client.js";
import { endServers, serve } from "../support/serving-process.js";
import { findTool, qemuImg, qemuIo, runTool } from "../support/stock-tools.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { BuiltCommand } from "./built-command.js";

const TOOLS = ["qemu-img", "qemu-io", "fio"];
const missing = TOOLS.filter((tool) => findTool(tool) === undefined);
if (missing.length > 0) console.warn(`tests of the NBD server's memory are skipped: ${missing.join(", ")} not found`);

const MIB = 1024 * 1024;
/** What docs/guides/nbd.md says. */
const mostMiB = (connections: number): number => 120 + connections;

/** The most memory that a process ever had, MiB. */
function peakMiB(pid: number): number {
  return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1]) / 1024;
}

const usable = process.platform === "linux" && missing.length === 0 && process.env["ZCOW_WITHOUT_STOCK_TOOLS"] !== "1";

describe.skipIf(!usable)("memory of the NBD server", () => {
  const at = temporaryFolder();
  let command: BuiltCommand;
  let pid = 0;

  beforeAll(async () => {
    command = await BuiltCommand.build(at("build"));
    await qemuImg(["create", "-q", "-f", "qcow2", at("disk.qcow2"), "64M"]);
    await qemuIo(["-c", "write -P 5 0 64M", at("disk.qcow2")]);
  });

  beforeEach(async () => {
    const server = command.spawn(["nbd", "-k", at("s.sock"), "-f", "qcow2", at("disk.qcow2")]);
    pid = server.pid as number;
    await serve(server);
  });

  afterEach(endServers);

  for (const kind of ["randread", "randwrite"]) {
    it(`stays within its bound while 16 connections have eight requests of 1 MiB each in flight: ${kind}`, async () => {
      const uri = `--uri=nbd+unix:///?socket=${at("s.sock")}`;
      const load = ["--name=load", "--ioengine=nbd", uri, `--rw=${kind}`, "--bs=1M", "--iodepth=8", "--size=64M"];
      const many = ["--numjobs=16", "--thread", "--io_size=32M", "--norandommap", "--minimal"];
      expect(await runTool("fio", [...load, ...many])).toMatchObject({ code: 0 });
      expect(peakMiB(pid)).toBeLessThanOrEqual(mostMiB(16));
    });
  }

  it("stays within its bound while 16 clients take no answers, or do not finish their writes", async () => {
    const readers = await clients(at("s.sock"), 8);
    const writers = await clients(at("s.sock"), 8);
    for (const reader of readers) for (let index = 0; index < 64; index++) reader.read(index * MIB, MIB);
    const most = new Uint8Array(MIB - 1);
    for (const writer of writers) writer.write(0, 32 * MIB, most);
    await Promise.all([...readers, ...writers].map((client) => client.sent()));
    // When it is answered, the server has looked at what came before.
    const [last] = await clients(at("s.sock"), 1);
    last?.startReading();
    last?.read(0, 4096);
    expect(await last?.answer(4096)).toHaveLength(4096);
    expect(peakMiB(pid)).toBeLessThanOrEqual(mostMiB(17));
    for (const client of [...readers, ...writers, last]) client?.end();
  });
});

async function clients(path: string, count: number): Promise<SlowNbdClient[]> {
  const all: SlowNbdClient[] = [];
  for (let index = 0; index < count; index++) all.push(await SlowNbdClient.connect(path));
  return all;
}
