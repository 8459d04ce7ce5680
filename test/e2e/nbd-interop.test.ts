import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { endServers, serve } from "../support/serving-process.js";
import { findTool, qemuImg, qemuIo, runTool } from "../support/stock-tools.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { makeKeys, TestAuthority } from "../support/test-authority.js";
import { BuiltCommand } from "./built-command.js";

const TOOLS = ["qemu-img", "qemu-io", "qemu-nbd", "nbdinfo", "nbdcopy", "nbdkit", "certtool", "psktool"];
const missing = TOOLS.filter((tool) => findTool(tool) === undefined);
if (missing.length > 0) console.warn(`NBD interop tests are skipped: ${missing.join(", ")} not found`);

describe.skipIf(missing.length > 0 || process.env["ZCOW_WITHOUT_STOCK_TOOLS"] === "1")("NBD with stock peers", () => {
  const at = temporaryFolder();
  let command: BuiltCommand;

  beforeAll(async () => {
    command = await BuiltCommand.build(at("build"));
    await qemuImg(["create", "-q", "-f", "qcow2", at("disk.qcow2"), "64M"]);
    await qemuIo(["-c", "write -P 5 1M 3M", "-c", "write -P 6 40M 100k", at("disk.qcow2")]);
    await qemuImg(["convert", "-O", "raw", at("disk.qcow2"), at("disk.raw")]);
    const authority = await TestAuthority.create(at("ca"));
    await authority.directory(at("pki"), {
      server: { commonName: "localhost", dnsName: "localhost" },
      client: { commonName: "client" },
    });
    await makeKeys(at("psk"), ["alice"]);
  });

  afterEach(endServers);

  const uri = (name: string) => `nbd+unix:///?socket=${at(name)}`;

  it("shows stock clients what the stock server shows them", async () => {
    const ours = await serve(
      command.spawn(["nbd", "-k", at("a.sock"), "-e", "1", "-A", "-f", "qcow2", at("disk.qcow2")]),
    );
    const listed = await runTool("nbdinfo", ["--list", uri("a.sock")]);
    expect(listed.stdout).toContain("export-size: 67108864 (64M)");
    expect(JSON.parse((await runTool("nbdinfo", ["--json", uri("a.sock")])).stdout)).toMatchObject({
      exports: [
        { contexts: ["base:allocation", "qemu:allocation-depth"], can_multi_conn: false, "export-size": 67108864 },
      ],
    });
    const map = await runTool("nbdinfo", ["--map", uri("a.sock")]);
    const depth = await runTool("nbdinfo", ["--map=qemu:allocation-depth", uri("a.sock")]);
    await ours.end();
    const stock = await serve(
      spawn("qemu-nbd", ["-t", "-A", "-k", at("b.sock"), "-f", "qcow2", at("disk.qcow2")]),
      at("b.sock"),
    );
    expect(map.stdout).toBe((await runTool("nbdinfo", ["--map", uri("b.sock")])).stdout);
    expect(depth.stdout).toBe((await runTool("nbdinfo", ["--map=qemu:allocation-depth", uri("b.sock")])).stdout);
    const list = ["-L", "-k", at("b.sock")];
    expect((await command.standIn("qemu-nbd", at("."), list)).stdout).toBe((await runTool("qemu-nbd", list)).stdout);
    expect((await command.zcow(at("."), ["map", "--output=json", "-f", "raw", uri("b.sock")])).stdout).toBe(
      (await qemuImg(["map", "--output=json", "-f", "raw", uri("b.sock")])).stdout,
    );
    // The stock tool spells the address in its own way.
    const described = (text: string) => text.split("\n").slice(1);
    const own = await command.zcow(at("."), ["info", uri("b.sock")]);
    expect(described(own.stdout)).toEqual(described((await qemuImg(["info", uri("b.sock")])).stdout));
    await stock.end();
  });

  it("is copied from and to, and written by qemu-io, without a fault", async () => {
    await qemuImg(["create", "-q", "-f", "qcow2", at("copy.qcow2"), "64M"]);
    const source = await serve(command.spawn(["nbd", "-k", at("c.sock"), "-r", "-f", "qcow2", at("disk.qcow2")]));
    const target = await serve(command.spawn(["nbd", "-k", at("d.sock"), "-f", "qcow2", at("copy.qcow2")]));
    expect(await runTool("nbdcopy", [uri("c.sock"), uri("d.sock")])).toMatchObject({ code: 0, stderr: "" });
    const io = [
      "-f",
      "raw",
      "-c",
      "write -P 9 33M 1234567",
      "-c",
      "discard 1M 64k",
      "-c",
      "write -z 2M 512k",
      "-c",
      "flush",
    ];
    expect((await qemuIo([...io, "-c", "read -P 9 33M 1234567", uri("d.sock")])).stdout).not.toContain("failed");
    await source.end();
    await target.end();
    expect((await qemuImg(["check", at("copy.qcow2")])).stdout).toContain("No errors were found");
    const read = [
      "-r",
      "-c",
      "read -P 9 33M 1234567",
      "-c",
      "read -P 0 2M 512k",
      "-c",
      "read -P 6 40M 100k",
      at("copy.qcow2"),
    ];
    const { stdout, code } = await qemuIo(read);
    expect(code).toBe(0);
    expect(stdout).not.toContain("failed");
  });

  it("serves nbdkit's nbd plugin, and uses nbdkit with delays and early ends", async () => {
    const ours = await serve(command.spawn(["nbd", "-k", at("e.sock"), "-f", "qcow2", at("disk.qcow2")]));
    const chained = ["-U", "-", "nbd", `uri=${uri("e.sock")}`, "--run", 'nbdcopy "$uri" - | cmp - ' + at("disk.raw")];
    expect(await runTool("nbdkit", chained)).toMatchObject({ code: 0 });
    await ours.end();
    const filters = [
      "--filter=delay",
      "--filter=error",
      "memory",
      "64M",
      "delay-read=2ms",
      "error-pwrite-rate=100%",
      "error-file=" + at("fail"),
    ];
    const kit = await serve(spawn("nbdkit", ["-f", "-U", at("f.sock"), ...filters]), at("f.sock"));
    const io = (...lines: string[]) =>
      command.zcow(at("."), ["io", "-f", "raw", ...lines.flatMap((line) => ["-c", line]), uri("f.sock")]);
    expect((await io("write -P 1 0 1M", "flush", "read -P 1 0 1M")).code).toBe(0);
    writeFileSync(at("fail"), "");
    expect((await io("write -P 2 0 4k")).code).toBe(1);
    await kit.end();
  });

  it("keeps TLS with certificates, both ways, and asks whose they are", async () => {
    const object = (id: string, end: string) => `tls-creds-x509,id=${id},endpoint=${end},dir=${at("pki")}`;
    const address = (port: number) => `nbds://localhost:${port}/?tls-certificates=${at("pki")}`;
    const ours = await serve(
      command.spawn([
        "nbd",
        "-p",
        "0",
        "--object",
        object("t", "server"),
        "--tls-creds",
        "t",
        "-f",
        "qcow2",
        at("disk.qcow2"),
      ]),
    );
    const port = Number(/:(\d+)\//.exec(ours.said())?.[1]);
    expect((await runTool("nbdinfo", ["--size", address(port)])).stdout).toBe("67108864\n");
    expect((await runTool("nbdinfo", ["--size", `nbd://localhost:${port}/`])).code).not.toBe(0);
    await ours.end();
    const authz = (name: string) => ["--object", `authz-simple,id=a,identity=${name}`, "--tls-authz", "a"];
    for (const [name, code] of [
      ["CN=client", 0],
      ["CN=other", 1],
    ] as const) {
      const guarded = await serve(
        command.spawn([
          "nbd",
          "-p",
          "0",
          "--object",
          object("t", "server"),
          "--tls-creds",
          "t",
          ...authz(name),
          "-r",
          at("disk.qcow2"),
        ]),
      );
      const guardedPort = Number(/:(\d+)\//.exec(guarded.said())?.[1]);
      expect((await runTool("nbdinfo", ["--size", address(guardedPort)])).code).toBe(code);
      expect((await command.zcow(at("."), ["info", address(guardedPort)])).code).toBe(code);
      await guarded.end();
    }
  });

  it("keeps TLS with keys agreed on beforehand, both ways", async () => {
    const ours = await serve(
      command.spawn([
        "nbd",
        "-k",
        at("g.sock"),
        "--object",
        `tls-creds-psk,id=t,endpoint=server,dir=${at("psk")}`,
        "--tls-creds",
        "t",
        "-f",
        "qcow2",
        at("disk.qcow2"),
      ]),
    );
    const address = (socket: string, user: string) =>
      `nbds+unix://${user}@/?socket=${at(socket)}&tls-psk-file=${at("psk/keys.psk")}`;
    expect((await runTool("nbdinfo", ["--size", address("g.sock", "alice")])).stdout).toBe("67108864\n");
    expect((await command.zcow(at("."), ["info", address("g.sock", "alice")])).code).toBe(0);
    await ours.end();
    const kit = await serve(
      spawn("nbdkit", ["-f", "-U", at("h.sock"), "--tls=require", `--tls-psk=${at("psk/keys.psk")}`, "memory", "1M"]),
      at("h.sock"),
    );
    expect((await command.zcow(at("."), ["info", address("h.sock", "alice")])).stdout).toContain("virtual size: 1 MiB");
    await kit.end();
  });

  it("leaves as the stock tool does when its one client has gone, and forks", async () => {
    const forked = await command.standIn("qemu-nbd", at("."), [
      "--fork",
      "--pid-file",
      at("pid"),
      "-k",
      at("i.sock"),
      "-x",
      "name",
      "-f",
      "qcow2",
      at("disk.qcow2"),
    ]);
    expect(forked).toMatchObject({ code: 0, stderr: "" });
    expect((await runTool("nbdinfo", ["--size", `nbd+unix:///name?socket=${at("i.sock")}`])).stdout).toBe("67108864\n");
    for (let turn = 0; turn < 100; turn++) {
      if ((await runTool("test", ["-e", at("i.sock")])).code !== 0) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error("the server did not leave");
  });
});
