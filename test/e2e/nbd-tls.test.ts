import { spawn } from "node:child_process";
import { cpSync, mkdirSync, readFileSync } from "node:fs";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { endServers, serve } from "../support/serving-process.js";
import { findTool, qemuImg, qemuIo, runTool, type ToolResult } from "../support/stock-tools.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { makeKeys, TestAuthority } from "../support/test-authority.js";
import { BuiltCommand } from "./built-command.js";

const TOOLS = ["qemu-img", "qemu-io", "qemu-nbd", "nbdinfo", "nbdcopy", "nbdkit", "certtool", "psktool"];
const missing = TOOLS.filter((tool) => findTool(tool) === undefined);
if (missing.length > 0) console.warn(`tests of NBD over TLS are skipped: ${missing.join(", ")} not found`);
const skipped = missing.length > 0 || process.env["ZCOW_WITHOUT_STOCK_TOOLS"] === "1";

describe.skipIf(skipped)("NBD over TLS", () => {
  const at = temporaryFolder();
  let command: BuiltCommand;
  let sockets = 0;

  beforeAll(async () => {
    command = await BuiltCommand.build(at("build"));
    await qemuImg(["create", "-q", "-f", "qcow2", at("disk.qcow2"), "16M"]);
    await qemuIo(["-c", "write -P 5 1M 3M", "-c", "write -P 6 10M 100k", at("disk.qcow2")]);
    await qemuImg(["convert", "-O", "raw", at("disk.qcow2"), at("disk.raw")]);
    await makeCredentials(at);
  });
  afterEach(endServers);

  const x509 = (directory: string) => `tls-creds-x509,id=t,dir=${at(directory)}`;
  const psk = (directory: string, user: string) => `tls-creds-psk,id=t,dir=${at(directory)},username=${user}`;
  const required = (object: string) => ["--object", `${object},endpoint=server`, "--tls-creds", "t"];

  /** Our server; its port. */
  async function ours(...options: string[]): Promise<number> {
    const args = ["nbd", "-r", "-p", "0", ...options, "-f", "qcow2", at("disk.qcow2")];
    const server = await serve(command.spawn(args));
    return Number(/^serving nbds:\/\/127\.0\.0\.1:(\d+)\//.exec(server.said())?.[1]);
  }

  /** A stock server; its socket. */
  async function stock(program: "qemu-nbd" | "nbdkit", ...options: string[]): Promise<string> {
    const socket = at(`${++sockets}.sock`);
    const qemu = ["-t", "-r", "-e", "8", "-k", socket, ...options, "-f", "qcow2", at("disk.qcow2")];
    const args = program === "qemu-nbd" ? qemu : ["-f", "-r", "-U", socket, ...options, "file", at("disk.raw")];
    await serve(spawn(program, args), socket);
    return socket;
  }

  const certificates = (directory: string) => `tls-certificates=${at(directory)}`;
  const tcp = (port: number, proof: string, user = "") => `nbds://${user}localhost:${port}/?${proof}`;
  const unix = (socket: string, proof: string, user = "") => `nbds+unix://${user}/?socket=${socket}&${proof}`;
  const keys = (directory: string) => `tls-psk-file=${at(`${directory}/keys.psk`)}`;
  const gotIn = async (result: Promise<ToolResult>) => (await result).code === 0;
  const nbdinfo = (uri: string) => gotIn(runTool("nbdinfo", ["--size", uri]));
  const zcow = (uri: string) => gotIn(command.zcow(at("."), ["info", uri]));
  const qemu = (port: number, object: string) => {
    const image = `driver=nbd,host=localhost,port=${port},tls-creds=t`;
    return gotIn(qemuImg(["info", "--object", `${object},endpoint=client`, "--image-opts", image]));
  };

  type Proof = "certificates" | "keys";
  const serverOf = (proof: Proof) => (proof === "keys" ? `tls-creds-psk,id=t,dir=${at("psk")}` : x509("good"));
  const clientOf = (proof: Proof) =>
    proof === "keys"
      ? { object: psk("psk", "alice"), user: "alice@", query: keys("psk") }
      : { object: x509("good"), user: "", query: certificates("good") };
  const PROOFS: readonly Proof[] = ["certificates", "keys"];

  it.each(PROOFS)("gives every client the disk by %s", async (proof) => {
    const { object, user, query } = clientOf(proof);
    const port = await ours(...required(serverOf(proof)));
    const address = tcp(port, query, user);
    const disk = readFileSync(at("disk.raw"));
    expect((await runTool("nbdcopy", [address, at("copy.raw")])).stderr).toBe("");
    expect(readFileSync(at("copy.raw")).equals(disk)).toBe(true);
    const opts = `driver=nbd,host=localhost,port=${port},tls-creds=t`;
    const convert = ["convert", "--object", `${object},endpoint=client`, "--image-opts", opts, "-O", "raw"];
    expect((await qemuImg([...convert, at("qemu.raw")])).stderr).toBe("");
    expect(readFileSync(at("qemu.raw")).equals(disk)).toBe(true);
    expect((await command.zcow(at("."), ["convert", "-O", "raw", address, at("own.raw")])).stderr).toBe("");
    expect(readFileSync(at("own.raw")).equals(disk)).toBe(true);
    expect(await nbdinfo(address)).toBe(true);
  });

  it.each(PROOFS)("is spoken with stock servers by %s", async (proof) => {
    const { user, query } = clientOf(proof);
    const kit = proof === "keys" ? `--tls-psk=${at("psk/keys.psk")}` : `--tls-certificates=${at("good")}`;
    for (const socket of [
      await stock("qemu-nbd", ...required(serverOf(proof))),
      await stock("nbdkit", "--tls=require", kit, "--tls-verify-peer"),
    ]) {
      const convert = ["convert", "-f", "raw", "-O", "raw", unix(socket, query, user), at("from-stock.raw")];
      expect((await command.zcow(at("."), convert)).stderr).toBe("");
      expect(readFileSync(at("from-stock.raw")).equals(readFileSync(at("disk.raw")))).toBe(true);
    }
  });

  it("lets in by certificate whom the stock server lets in, whichever the client", async () => {
    const port = await ours(...required(x509("good")));
    const socket = await stock("qemu-nbd", ...required(x509("good")));
    for (const [directory, allowed] of [
      ["good", true],
      ["nothing", false],
      ["imposter", false],
      ["expired", false],
      ["good", true],
    ] as const) {
      const verdicts = {
        nbdinfo: await nbdinfo(tcp(port, certificates(directory))),
        zcow: await zcow(tcp(port, certificates(directory))),
        "nbdinfo of qemu-nbd": await nbdinfo(unix(socket, certificates(directory))),
        "zcow of qemu-nbd": await zcow(unix(socket, certificates(directory))),
      };
      for (const [who, verdict] of Object.entries(verdicts))
        expect([directory, who, verdict]).toEqual([directory, who, allowed]);
    }
    expect(await qemu(port, x509("good"))).toBe(true);
    expect(await qemu(port, x509("imposter"))).toBe(false);
    // In the clear nobody gets anything.
    expect(await nbdinfo(`nbd://localhost:${port}`)).toBe(false);
    expect(await zcow(`nbd://localhost:${port}`)).toBe(false);
  });

  it.each([
    ["authz-simple,id=a,identity=CN=client", true, false],
    ["authz-simple,id=a,identity=CN=other", false, false],
    ["authz-simple,id=a,identity=CN=member,,O=Example", false, false],
    ["authz-simple,id=a,identity=O=Example,,CN=member", false, true],
    ["authz-list,id=a,policy=deny,rules.0.match=CN=cl*,rules.0.policy=allow,rules.0.format=glob", true, false],
    ["authz-list,id=a,policy=allow,rules.0.match=CN=client,rules.0.policy=deny,rules.0.format=exact", false, true],
  ])("asks %s", async (authz, client, member) => {
    const options = [...required(x509("good")), "--object", authz, "--tls-authz", "a"];
    const port = await ours(...options);
    const socket = await stock("qemu-nbd", ...options);
    for (const [directory, allowed] of [
      ["good", client],
      ["member", member],
    ] as const) {
      expect([directory, await nbdinfo(unix(socket, certificates(directory)))]).toEqual([directory, allowed]);
      expect([directory, await nbdinfo(tcp(port, certificates(directory)))]).toEqual([directory, allowed]);
      expect([directory, await zcow(tcp(port, certificates(directory)))]).toEqual([directory, allowed]);
    }
  });

  it("lets in nobody with another key, another name, or a certificate in place of a key", async () => {
    const port = await ours(...required(serverOf("keys")));
    for (const [user, proof, allowed] of [
      ["alice@", keys("psk"), true],
      ["bob@", keys("psk"), true],
      ["mallory@", keys("other-psk"), false],
      ["alice@", keys("other-psk"), false],
      ["", certificates("good"), false],
      ["bob@", keys("psk"), true],
    ] as const) {
      expect([user, proof, await nbdinfo(tcp(port, proof, user))]).toEqual([user, proof, allowed]);
      expect([user, proof, await zcow(tcp(port, proof, user))]).toEqual([user, proof, allowed]);
    }
    expect(await qemu(port, psk("psk", "bob"))).toBe(true);
    expect(await qemu(port, psk("other-psk", "alice"))).toBe(false);
  });

  it.each(["expired-server", "early-server", "expired-ca"])("does not begin to serve with '%s'", async (directory) => {
    const args = ["-k", at("unused.sock"), ...required(x509(directory)), "-f", "qcow2", at("disk.qcow2")];
    const refused = await command.standIn("qemu-nbd", at("."), args);
    const { code, stderr } = await runTool("qemu-nbd", args);
    expect([refused.code, refused.stderr]).toEqual([code, stderr]);
    expect(stderr).toMatch(/has expired|is not yet active/);
  });

  it.each(["elsewhere", "expired-server", "stranger"])(
    "trusts no server with the certificate '%s'",
    async (directory) => {
      // A server of another authority takes anybody: it is the client that must refuse.
      const port = await ours(
        "--object",
        `${x509(directory)},endpoint=server,verify-peer=off,sanity-check=off`,
        "--tls-creds",
        "t",
      );
      const address = tcp(port, certificates("good"));
      expect(await nbdinfo(address)).toBe(false);
      expect(await qemu(port, x509("good"))).toBe(false);
      const { code, stderr } = await command.zcow(at("."), ["info", address]);
      expect([code, stderr]).toEqual([1, expect.stringContaining("TLS failed")]);
      expect(await zcow(`${address}&tls-verify-peer=no`)).toBe(true);
      expect(await zcow(`${address}&tls-hostname=elsewhere`)).toBe(directory === "elsewhere");
    },
  );
});

/** Directories of credentials; the names are what the tests call them by. */
async function makeCredentials(at: (name: string) => string): Promise<void> {
  const server = { commonName: "localhost", dnsName: "localhost" };
  const client = { commonName: "client" };
  const authority = await TestAuthority.create(at("ca"));
  const stranger = await TestAuthority.create(at("stranger-ca"));
  await authority.directory(at("good"), { server, client });
  await authority.directory(at("member"), { client: { commonName: "member", organization: "Example" } });
  await authority.directory(at("expired"), { client: { ...client, valid: "past" } });
  await authority.directory(at("elsewhere"), { server: { commonName: "elsewhere", dnsName: "elsewhere" } });
  await authority.directory(at("expired-server"), { server: { ...server, valid: "past" } });
  await authority.directory(at("early-server"), { server: { ...server, valid: "future" } });
  const former = await TestAuthority.create(at("former-ca"), "past");
  await former.directory(at("expired-ca"), { server, client });
  await stranger.directory(at("stranger"), { server, client });
  // Trusts the right authority, and has its own proof from the wrong one.
  cpSync(at("stranger"), at("imposter"), { recursive: true });
  cpSync(at("ca/ca-cert.pem"), at("imposter/ca-cert.pem"));
  mkdirSync(at("nothing"));
  cpSync(at("ca/ca-cert.pem"), at("nothing/ca-cert.pem"));
  await makeKeys(at("psk"), ["alice", "bob"]);
  await makeKeys(at("other-psk"), ["alice", "mallory"]);
}
