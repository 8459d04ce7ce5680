import { mkdirSync, writeFileSync } from "node:fs";
import { afterEach, describe, expect, test } from "vitest";
import { parseChapSecret } from "../../src/protocols/nvme/auth/chap-secret.js";
import { DhHmacChap } from "../../src/protocols/nvme/auth/dh-hmac-chap.js";
import type { AuthenticationContext } from "../../src/protocols/nvme/subsystem.js";
import { dhPrime } from "../../src/servers/nvme-tcp/security/dh-groups.js";
import { nodeChapCrypto } from "../../src/servers/nvme-tcp/security/node-chap-crypto.js";
import { parseTlsKey } from "../../src/servers/nvme-tcp/security/tls-key.js";
import { pskDigest, retainedPsk, tlsIdentity, tlsPsk } from "../../src/servers/nvme-tcp/security/tls-psk.js";
import { authenticateHost, secretText } from "../support/chap-host.js";
import { connectQueue, HOST_NQN, type HostQueue, ioCommand, NvmeHost } from "../support/nvme-initiator.js";
import { BLOCK, DISK_NQN, TestService, zonedImage } from "../support/nvme-service.js";
import { rawSocket, tcpStream, tlsStream } from "../support/nvme-sockets.js";
import { runTool } from "../support/stock-tools.js";
import { temporaryFolder } from "../support/temporary-folder.js";

const inFolder = temporaryFolder();
let served: TestService;
let count = 0;

async function start(subsystem: object, options: object = {}): Promise<void> {
  const folder = inFolder(`test-${count++}`);
  mkdirSync(folder);
  served = await TestService.start(await zonedImage(folder), subsystem, options);
}

afterEach(async () => {
  await served.service.close();
});

async function expectServed(host: NvmeHost): Promise<void> {
  const data = new Uint8Array(64 * BLOCK).fill(0x77);
  expect((await host.io.command(ioCommand.write(1, 0, 64, data))).status).toBe(0);
  expect((await host.io.command(ioCommand.read(1, 0, 64, BLOCK))).data).toEqual(data);
}

describe("TLS with a key agreed on beforehand", () => {
  const KEY = parseTlsKey(secretText("NVMeTLSkey-1", 5));
  const WRONG_KEY = parseTlsKey(secretText("NVMeTLSkey-1", 6));
  const startTls = (): Promise<void> =>
    start({}, { tls: { keyOf: (nqn: string) => (nqn === "nqn.stranger" ? undefined : KEY) } });

  function version0(key = KEY, hostNqn = HOST_NQN): { identity: string; psk: Uint8Array } {
    const identity = tlsIdentity(hostNqn, DISK_NQN);
    return { identity, psk: tlsPsk(retainedPsk(key, hostNqn, "standard"), identity, "standard") };
  }

  function version1(): { identity: string; psk: Uint8Array } {
    const retained = retainedPsk(KEY, HOST_NQN, "standard");
    const digest = pskDigest(retained, HOST_NQN, DISK_NQN);
    return {
      identity: tlsIdentity(HOST_NQN, DISK_NQN, digest),
      psk: tlsPsk(retained, `01 ${digest}`, "standard"),
    };
  }

  const connectWith = ({ identity, psk }: { identity: string; psk: Uint8Array }): Promise<NvmeHost> =>
    NvmeHost.connect(() => tlsStream(served.port, identity, psk), { subsystemNqn: DISK_NQN });

  test.each([
    ["without a digest", version0],
    ["with a digest", version1],
  ])("a host with the right key and an identity %s is served", async (_what, credentials) => {
    await startTls();
    await expectServed(await connectWith(credentials()));
  });

  test("a wrong key, a stranger's name and no TLS at all are refused; others do not notice", async () => {
    await startTls();
    const host = await connectWith(version0());
    await expect(connectWith(version0(WRONG_KEY))).rejects.toThrow();
    await expect(connectWith(version0(KEY, "nqn.stranger"))).rejects.toThrow();
    const plain = await rawSocket(served.port);
    plain.on("error", () => undefined);
    const gone = new Promise((resolve) => plain.once("close", resolve));
    plain.write(new Uint8Array(128).fill(1));
    await gone;
    await expectServed(host);
    expect(served.service.server.counters().tlsFailures).toBe(3);
    await served.logged("no key for this TLS identity");
  });

  test("a host cannot take the name of another once it is in", async () => {
    await startTls();
    const { identity, psk } = version0(KEY, "nqn.2026-01.test:thief");
    const connected = await connectQueue(() => tlsStream(served.port, identity, psk), { subsystemNqn: DISK_NQN });
    expect(connected.completion.status).toBe(0x184);
  });

  test("nothing but data follows the handshake, as Linux demands", async () => {
    await startTls();
    const { identity, psk } = version0();
    const { stdout } = await runTool("sh", [
      "-c",
      'printf "" | (cat; sleep 1) | timeout 5 openssl s_client -connect "127.0.0.1:$0" -tls1_3 -psk "$1" -psk_identity "$2" -ciphersuites TLS_AES_128_GCM_SHA256 -msg 2>&1',
      String(served.port),
      Buffer.from(psk).toString("hex"),
      identity,
    ]);
    expect(stdout).toContain("TLS_AES_128_GCM_SHA256");
    expect(stdout).toContain("Finished");
    expect(stdout).not.toContain("NewSessionTicket");
  });
});

describe("DH-HMAC-CHAP over the wire", () => {
  const HOST_SECRET = secretText("DHHC-1", 1);
  const CONTROLLER_SECRET = secretText("DHHC-1", 2);
  const AUTHENTICATION_REQUIRED = 1 << 17;

  const startChap = (): Promise<void> => {
    const options = {
      crypto: nodeChapCrypto,
      hostSecret: parseChapSecret(HOST_SECRET),
      controllerSecret: parseChapSecret(CONTROLLER_SECRET),
    };
    const authenticate = (names: AuthenticationContext): DhHmacChap => new DhHmacChap({ ...options, ...names });
    return start({ hosts: new Map([[HOST_NQN, { authenticate }]]) });
  };

  const send = (queue: HostQueue, message: Uint8Array) =>
    queue.command({ opcode: 0x7f, nsid: 0x05, dword10: 0xe901_0100, dword11: message.length, data: message });
  const receive = (queue: HostQueue, room = 4096) =>
    queue.command({ opcode: 0x7f, nsid: 0x06, dword10: 0xe901_0100, dword11: room, room });

  const authenticate = (queue: HostQueue, secret = HOST_SECRET, proof = {}): Promise<Buffer> =>
    authenticateHost(
      {
        send: async (message) => expect((await send(queue, message)).status).toBe(0),
        receive: async () => (await receive(queue)).data,
      },
      {
        hash: "sha256",
        groupId: 1,
        prime: dhPrime("ffdhe2048"),
        hostNqn: HOST_NQN,
        subsystemNqn: DISK_NQN,
        secret,
        ...proof,
      },
    );

  const open = (queueId = 0, controllerId = 0xffff) =>
    connectQueue(() => tcpStream(served.port), { subsystemNqn: DISK_NQN, queueId, controllerId });

  test("each queue must authenticate before it may do anything", async () => {
    await startChap();
    const { queue: admin, completion } = await open();
    expect(completion.low & AUTHENTICATION_REQUIRED).not.toBe(0);
    const enable = { opcode: 0x7f, nsid: 0, dword11: 0x14, dword12: 0x0046_0061 };
    expect((await admin.command(enable)).status).toBe(0x191);
    expect((await authenticate(admin))[1]).toBe(3);
    expect((await admin.command(enable)).status).toBe(0);
    const { queue: io } = await open(1, completion.low & 0xffff);
    expect((await io.command(ioCommand.read(1, 0, 1, BLOCK))).status).toBe(0x191);
    expect((await authenticate(io, HOST_SECRET, { controllerSecret: CONTROLLER_SECRET }))[8]).toBe(1);
    expect((await io.command(ioCommand.read(1, 0, 1, BLOCK))).status).toBe(0);
  });

  test("a wrong secret is told so, cut off and logged without the secret", async () => {
    await startChap();
    const { queue } = await open();
    const answer = await authenticate(queue, secretText("DHHC-1", 3));
    expect([answer[0], answer[1], answer[7]]).toEqual([0, 0xf1, 1]);
    await queue.untilClosed();
    await served.logged("authentication-failed");
    expect(served.log.join("")).not.toContain(secretText("DHHC-1", 1).slice(10, 30));
  });
});

test("a secret on the command line is never shown, however wrong it is", async () => {
  // Closed by afterEach.
  await start({});
  const { accessOptions, tlsOptions } = await import("../../src/cli/nvme-options.js");
  const { NVME_MANUAL } = await import("../../src/cli/commands/nvme.js");
  const { optionsOf } = await import("../../src/cli/manual.js");
  const { parseArguments } = await import("../../src/cli/options.js");
  const parsed = (...args: string[]) => parseArguments([...args, "image"], optionsOf(NVME_MANUAL));
  const SECRET = secretText("DHHC-1", 1);
  const file = inFolder("secret");
  writeFileSync(file, `${SECRET}\n`);
  expect(accessOptions(parsed("--host", HOST_NQN, "--dhchap-secret", file))).toBeInstanceOf(Map);
  for (const wrong of [SECRET.replace("DHHC", "DHHX"), SECRET.slice(0, -3), `${SECRET}x`]) {
    for (const option of ["--dhchap-secret", "--tls-psk"]) {
      let shown = "";
      try {
        const options = parsed("--host", HOST_NQN, option, wrong);
        accessOptions(options);
        tlsOptions(options);
      } catch (error) {
        shown = String(error);
      }
      expect(shown).not.toBe("");
      expect(shown).not.toContain(SECRET.slice(12, 30));
    }
  }
});
