import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { Guest } from "./guest.js";
import { chosenKernels } from "./kernels.js";
import { RoguePeers } from "./rogue-peers.js";
import { type ImageWish, ServedImages } from "./served-images.js";

const ORDINARY: ImageWish = { name: "ordinary.qcow2", size: "256M" };
const SPARE: ImageWish = { name: "spare.qcow2", size: "64M" };
/** kit/build.sh gives every guest this name. */
const GUEST_NQN = "nqn.2014-08.org.nvmexpress:uuid:5f2c6ad4-6f2e-4b52-9a3e-6d1f0a9d7c01";
const STRANGER_NQN = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-000000000001";
const usage = ". /job/access.sh; set -e";
const readBack =
  "dd if=/dev/urandom of=data bs=64k count=4 status=none; dd if=data of=$(namespace 1) bs=64k oflag=direct status=none; dd if=$(namespace 1) bs=64k count=4 iflag=direct status=none | cmp - data";

describe.each(chosenKernels())("access of %s to a served image", (kernel) => {
  let guest: Guest;
  beforeAll(async () => {
    guest = await Guest.boot(kernel);
  });
  afterEach(async () => {
    await guest.run("disconnect");
  });
  afterAll(async () => {
    await guest?.powerCut();
  });

  test("finds the subsystem by discovery", async () => {
    await using served = await ServedImages.start([ORDINARY]);
    const log = await guest.expect(`modprobe nvme-tcp; nvme discover -t tcp -a 10.0.2.2 -s ${served.port}`);
    expect(log).toContain(served.nqn);
  });

  test("is refused under the name of another subsystem, and the next attempt is served", async () => {
    await using served = await ServedImages.start([ORDINARY]);
    await guest.expect(`${usage}; refused "subsystem|invalid" attach ${served.port} -n ${served.nqn}-not`);
    await guest.expect(`connect ${served.port} ${served.nqn} 1; ${readBack}`);
  });

  test("is refused to a second host while the first goes on", async () => {
    await using served = await ServedImages.start([ORDINARY]);
    await guest.expect(`connect ${served.port} ${served.nqn} 1`);
    const second = `attach ${served.port} -n ${served.nqn} "\${other_host[@]}"`;
    await guest.expect(`${usage}; refused "not allowed|refused|invalid|denied" ${second}; ${readBack}`);
  });

  test("is refused to a host that is not on the list", async () => {
    await using served = await ServedImages.start([ORDINARY], ["--host", STRANGER_NQN]);
    await guest.expect(`${usage}; refused "not allowed" attach ${served.port} -n ${served.nqn}`);
  });

  test("with DH-HMAC-CHAP takes the right secret, both ways, and no other", async () => {
    const secretOf = async (hash: number) => (await guest.expect(`nvme gen-dhchap-key --hmac=${hash}`)).trim();
    const [host, controller, wrong] = [await secretOf(1), await secretOf(2), await secretOf(1)];
    await using served = await ServedImages.start(
      [ORDINARY],
      ["--host", `${GUEST_NQN},dhchap=${host},dhchap-ctrl=${controller}`],
    );
    const attach = `attach ${served.port} -n ${served.nqn}`;
    await guest.expect(`${usage}; refused "auth" ${attach}`);
    await guest.expect(`${usage}; refused "auth" ${attach} --dhchap-secret=${wrong}`);
    await guest.expect(`connect ${served.port} ${served.nqn} 1 --dhchap-secret=${host}; ${readBack}; disconnect`);
    const both = `--dhchap-secret=${host} --dhchap-ctrl-secret`;
    await guest.expect(`connect ${served.port} ${served.nqn} 1 ${both}=${controller}; ${readBack}; disconnect`);
    await guest.expect(`${usage}; refused "auth" ${attach} ${both}=${wrong}`);
  });

  test.each([0, 1])(
    "with TLS and a key of identity version %i takes that key and no plain connection",
    async (version) => {
      const key = (await guest.expect("nvme gen-tls-key --hmac=1")).split("\n").at(-1) ?? "";
      // The nvme-cli of that guest derives keys in the way of its time, which only version 1 tells the server.
      const compatible = kernel === "linux-6.12" && version === 0 ? ["--tls-compat"] : [];
      await using served = await ServedImages.start([ORDINARY], ["--tls-psk", key, ...compatible]);
      const names = `--hostnqn=${GUEST_NQN} --subsysnqn=${served.nqn}`;
      await guest.expect(`${usage}; start_tlshd`);
      await guest.expect(`nvme check-tls-key --keydata=${key} ${names} --identity=${version} --insert`);
      await guest.expect(`connect ${served.port} ${served.nqn} 1 --tls; ${readBack}; disconnect`);
      await guest.expect(`${usage}; ! attach ${served.port} -n ${served.nqn}`, 120);
    },
  );

  test("outlives a server that is silent longer than the keep-alive time, with no error to the program", async () => {
    await using served = await ServedImages.start([ORDINARY], ["--multipath"]);
    const connect = `connect ${served.port} ${served.nqn} 1 --reconnect-delay=1`;
    await guest.expect(`${connect}; ${usage}; start_rewriting 32`);
    await sleep(2000);
    served.pauseServer();
    await sleep(14_000);
    served.resumeServer();
    await guest.expect(`${usage}; expect_rewritten`, 240);
  });

  // Only writes that ask for it are safe at once: those that the image holds in its cache die with the process.
  test("outlives a server that is killed and started again, with no error to a program that writes synchronously", async () => {
    await using served = await ServedImages.start([ORDINARY]);
    const connect = `connect ${served.port} ${served.nqn} 1 --reconnect-delay=1`;
    await guest.expect(`${connect}; ${usage}; start_rewriting 16 --sync=1`);
    for (let kill = 0; kill < 3; kill++) {
      await sleep(2000);
      await served.killServer();
      await sleep(1000);
      await served.startServer();
    }
    await guest.expect(`${usage}; expect_rewritten; disconnect`, 240);
    await served.stopServer();
    await served.expectClean();
  });

  test("loses the disk when what it had acknowledged is lost, and finds another one under the same UUID", async () => {
    await using served = await ServedImages.start([ORDINARY]);
    const connect = `connect ${served.port} ${served.nqn} 1 --reconnect-delay=1`;
    await guest.expect(`${connect}; ${usage}; note_identity; write_block; start_holding`);
    await served.killServer();
    served.loseJournals();
    await served.startServer();
    await guest.expect(`${usage}; expect_disk_gone`, 180);
    await guest.expect(`disconnect; ${connect}; ${usage}; expect_other_disk; write_block; disconnect`);
    await served.stopServer();
    await served.expectClean();
  });

  test("goes on unharmed while other peers send garbage and leave in the middle of their data", async () => {
    await using served = await ServedImages.start([ORDINARY, SPARE], ["--shared"]);
    const connect = `connect ${served.port} ${served.nqn} 2`;
    await guest.expect(`dmesg --clear; ${connect}; ${usage}; start_rewriting 32`);
    const rogues = new RoguePeers(served.port, served.nqn, 2);
    await guest.expect(`${usage}; expect_rewritten; expect_zeros 2 32768; no_io_errors; disconnect`, 240);
    const { garbage, cutWrites } = await rogues.stop();
    expect(garbage).toBeGreaterThan(10);
    expect(cutWrites).toBeGreaterThan(5);
    expect(served.log).not.toContain("internal-error");
    await served.stopServer();
    await served.expectClean();
  });
});
