import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { ioCommand, type NvmeHost, parseZoneReport } from "../support/nvme-initiator.js";
import { NvmeServerProcess } from "../support/nvme-server-process.js";
import { BLOCK, ZONE_BLOCKS, ZONE_BYTES, zonedImage } from "../support/nvme-service.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { BuiltCommand } from "./built-command.js";

const SEQUENTIAL = 2;
const ZONE_NOTICE = 1 << 27;
const inFolder = temporaryFolder();
let command: BuiltCommand;
let folder: string;
let server: NvmeServerProcess | undefined;
let host: NvmeHost;
let image: string;
let count = 0;

beforeAll(async () => {
  command = await BuiltCommand.build(inFolder("build"));
});

afterEach(async () => {
  await server?.stop("SIGKILL");
  server = undefined;
});

async function start(...args: string[]): Promise<NvmeServerProcess> {
  folder = inFolder(`test-${count++}`);
  mkdirSync(folder);
  image = await zonedImage(folder);
  server = await NvmeServerProcess.start(command, ["--control", `${folder}/socket`, ...args, image]);
  host = await server.host();
  return server;
}

async function control(...args: string[]): Promise<unknown> {
  const { code: status, stdout, stderr } = await command.zcow(folder, ["control", "socket", ...args]);
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as unknown;
}

const setState = (offset: number, state: string) =>
  command.zcow(folder, ["zone", "set-state", "--control", "socket", "zoned.qcow2", String(offset), state]);

describe("the control socket", () => {
  test("zones go read-only and offline under a connected host, which is told, and come back", async () => {
    await start();
    const { io, admin } = host;
    const data = new Uint8Array(BLOCK).fill(3);
    expect((await io.command(ioCommand.append(SEQUENTIAL, 0, 1, data))).status).toBe(0);
    await admin.command({ opcode: 0x09, dword10: 0x0b, dword11: ZONE_NOTICE });
    const event = admin.command({ opcode: 0x0c });
    const firstZone = 2 * ZONE_BYTES;
    expect((await setState(firstZone, "read-only")).code).toBe(0);
    // Notice, zone descriptor changed, log page BFh.
    expect((await event).low).toBe(0xbf_ef_02);
    const changed = (await host.logPage(0xbf, 4096, { nsid: SEQUENTIAL })).data;
    expect([changed[0], changed[1], ...changed.subarray(8, 16)]).toEqual([1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expect((await io.command(ioCommand.append(SEQUENTIAL, 0, 1, data))).status).toBe(0x1ba);
    expect((await io.command(ioCommand.read(SEQUENTIAL, 0, 1, BLOCK))).data).toEqual(data);
    expect((await setState(firstZone, "offline")).code).toBe(0);
    expect((await io.command(ioCommand.read(SEQUENTIAL, 0, 1, BLOCK))).status).toBe(0x1bb);
    const { zones } = parseZoneReport((await io.command(ioCommand.zoneReport(SEQUENTIAL, 0, 4096))).data);
    expect(zones.slice(0, 2).map(({ state }) => state)).toEqual([15, 1]);
    const report = (await control("zone-report", "zoned.qcow2", "--count", "1")) as { zones: object[] };
    expect(report.zones).toMatchObject([{ zone: 0, start: firstZone, state: "offline" }]);
    expect((await setState(firstZone, "online")).code).toBe(0);
    expect((await io.command(ioCommand.append(SEQUENTIAL, 0, 1, data))).low).toBe(1);
  });

  test("errors and delays can be put on commands, and taken back", async () => {
    await start();
    const { io } = host;
    const read = (lba: number) => io.command(ioCommand.read(SEQUENTIAL, lba, 1, BLOCK));
    const at = ["--nsid", String(SEQUENTIAL)];
    await control(
      "inject",
      ...at,
      "--operation",
      "read",
      "--status",
      "unrecovered-read-error",
      "--lba",
      "5",
      "--count",
      "2",
    );
    expect((await read(4)).status).toBe(0);
    expect((await read(5)).status).toBe(0x281);
    expect((await read(5)).status).toBe(0x281);
    expect((await read(5)).status).toBe(0);
    await control("inject", ...at, "--operation", "append", "--status", "0x280");
    const append = ioCommand.append(SEQUENTIAL, ZONE_BLOCKS, 1, new Uint8Array(BLOCK));
    expect((await io.command(append)).status).toBe(0x280);
    await control("clear-faults", ...at);
    expect((await io.command(append)).status).toBe(0);
    await control("inject", ...at, "--operation", "read", "--delay", "150");
    const begin = performance.now();
    await read(0);
    expect(performance.now() - begin).toBeGreaterThan(140);
  });

  test("tells what is served and what was done", async () => {
    const { nqn } = await start("--metrics", "0");
    await host.io.command(ioCommand.append(SEQUENTIAL, 0, 1, new Uint8Array(BLOCK)));
    expect(await control("status")).toMatchObject({
      connections: 2,
      subsystems: [
        {
          nqn,
          controllers: [{ ready: true, "io-queues": 1 }],
          namespaces: [{ part: "conventional" }, { part: "sequential", counters: { appends: 1, bytesWritten: BLOCK } }],
        },
      ],
    });
    const port = /event=metrics|metrics host=\S+ port=(\d+)/.exec(server?.log ?? "")?.[1];
    const reply = await fetch(`http://127.0.0.1:${port}/metrics`);
    const metrics = await reply.text();
    expect(reply.headers.get("content-type")).toContain("version=0.0.4");
    expect(metrics).toMatch(/^zcow_nvme_commands_total\{.*nsid="2".*operation="append"\} 1$/m);
    expect(metrics).toMatch(/^zcow_nvme_zones\{.*state="implicitly-open"\} 1$/m);
    for (const line of metrics.trimEnd().split("\n")) {
      expect(line).toMatch(/^(# (HELP|TYPE) \w+ .+|\w+(\{.*\})? -?[\d.e+-]+)$/);
    }
    expect((await fetch(`http://127.0.0.1:${port}/`)).status).toBe(404);
  });

  test("refuses what makes no sense, each with its reason", async () => {
    await start();
    await expect(control("inject", "--nsid", "9", "--delay", "1")).rejects.toThrow("no namespace 9");
    await expect(control("inject", "--nsid", "2")).rejects.toThrow("status or delay");
    await expect(control("inject", "--nsid", "2", "--status", "nonsense")).rejects.toThrow("status");
    await expect(control("zone-report", "other.qcow2")).rejects.toThrow("not served");
    expect((await setState(ZONE_BYTES, "offline")).stderr).toContain("no sequential zone");
    expect((await setState(2 * ZONE_BYTES + 4096, "offline")).stderr).toContain("no sequential zone");
    expect((await setState(2 * ZONE_BYTES, "sideways")).stderr).toContain("sideways");
  });

  test("survives whoever talks nonsense to it, and belongs to its owner alone", async () => {
    await start();
    expect(statSync(`${folder}/socket`).mode & 0o777).toBe(0o600);
    const say = (text: string): Promise<string> =>
      new Promise((resolve) => {
        const socket = connect({ path: `${folder}/socket` });
        let answer = "";
        socket.on("data", (chunk) => {
          answer += chunk.toString();
          socket.end();
        });
        socket.on("error", () => undefined);
        socket.on("close", () => resolve(answer));
        socket.write(text);
      });
    expect(await say("nonsense\n")).toContain("CONTROL_PROTOCOL");
    expect(await say("[]\n")).toContain("CONTROL_PROTOCOL");
    expect(await say('{"command":"__proto__"}\n')).toContain("INVALID_ARGUMENT");
    expect(await say("x".repeat(100_000))).toContain("longer than");
    expect(await control("status")).toHaveProperty("subsystems");
  });

  test("a socket that a killed server left is used again; one in use and other files are not", async () => {
    const first = await start();
    await first.stop("SIGKILL");
    server = await NvmeServerProcess.start(command, ["--control", `${folder}/socket`, image]);
    const again = (path: string): Promise<unknown> =>
      NvmeServerProcess.start(command, ["--read-only", "--control", path, `${folder}/other.qcow2`]);
    const other = await command.zcow(folder, ["create", "-q", "-f", "qcow2", "other.qcow2", "1M"]);
    expect(other.code).toBe(0);
    await expect(again(`${folder}/socket`)).rejects.toThrow("another server listens");
    writeFileSync(`${folder}/file`, "text");
    await expect(again(`${folder}/file`)).rejects.toThrow("cannot listen");
  });

  test("nobody there is said so", async () => {
    await start();
    const { stderr, code: status } = await command.zcow(folder, ["control", "no-socket", "status"]);
    expect([status, stderr]).toEqual([1, expect.stringContaining("no server answers at no-socket")]);
  });
});
