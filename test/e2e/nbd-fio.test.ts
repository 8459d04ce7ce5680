import { readFileSync, writeFileSync } from "node:fs";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { endServers, serve } from "../support/serving-process.js";
import { expectCleanCheck, findTool, qemuImg, runTool } from "../support/stock-tools.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { BuiltCommand } from "./built-command.js";

/** Each job has a region of its own, and writes every block of it in random order before it reads all of them back. */
const JOBS = `[global]
ioengine=nbd
uri=\${URI}
rw=randwrite
size=3m
verify=crc32c
verify_fatal=1
randrepeat=1
group_reporting=1
[pages]
bs=4k
iodepth=32
offset=0
[odd]
bsrange=512-24k
bs_unaligned=1
iodepth=8
offset=3m
[sectors]
bs=512
size=512k
iodepth=16
offset=6m
[large]
bs=1m
iodepth=4
offset=8m
[overwritten]
bs=8k
iodepth=16
offset=12m
loops=2
norandommap=0
`;

const missing = ["qemu-img", "fio"].filter((tool) => findTool(tool) === undefined);
if (missing.length > 0) console.warn(`tests with fio are skipped: ${missing.join(", ")} not found`);

describe.skipIf(missing.length > 0 || process.env["ZCOW_WITHOUT_STOCK_TOOLS"] === "1")("fio as a client of NBD", () => {
  const at = temporaryFolder();
  let command: BuiltCommand;

  beforeAll(async () => {
    command = await BuiltCommand.build(at("build"));
    writeFileSync(at("jobs.fio"), JOBS);
  });
  afterEach(endServers);

  async function fio(socket: string, ...options: string[]): Promise<void> {
    const uri = `nbd+unix:///?socket=${at(socket)}`;
    const args = [
      `URI=${uri}`,
      "fio",
      "--output-format=json",
      `--output=${at("fio.json")}`,
      ...options,
      at("jobs.fio"),
    ];
    const { code, stdout, stderr } = await runTool("env", ["-C", at("."), ...args]);
    expect([code, stdout, stderr]).toEqual([0, "", ""]);
    const { jobs } = JSON.parse(readFileSync(at("fio.json"), "utf8").replace(/^[^{]*/, "")) as {
      jobs: { error: number; read: { io_bytes: number } }[];
    };
    expect(jobs.map(({ error }) => error)).toEqual([0]);
    expect(jobs.reduce((sum, { read }) => sum + read.io_bytes, 0)).toBeGreaterThan(10 << 20);
  }

  it.each([
    ["qcow2", []],
    ["qcow2", ["-o", "extended_l2=on,cluster_size=128k"]],
    ["raw", []],
  ] as const)("finds all it has written to %s %j, now and when the image is served again", async (format, more) => {
    await qemuImg(["create", "-q", "-f", format, ...more, at("disk"), "16M"]);
    const args = (socket: string) => ["nbd", "-k", at(socket), "-f", format, at("disk")];
    const first = await serve(command.spawn(args("first.sock")));
    await fio("first.sock");
    await first.end();
    if (format === "qcow2") await expectCleanCheck(at("disk"));
    const second = await serve(command.spawn(args("second.sock")));
    await fio("second.sock", "--verify_only=1");
    await second.end();
  });
});
