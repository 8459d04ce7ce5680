import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { TestAuthority } from "../support/test-authority.js";
import { Guest } from "./guest.js";
import { chosenKernels, chosenNumber } from "./kernels.js";
import { type ImageWish, ServedImages } from "./served-images.js";

const MIB = chosenNumber("ZCOW_GUEST_MIB", 128);
const ROUNDS = chosenNumber("ZCOW_GUEST_ROUNDS", 4);
const MINUTES = 60_000;
const ORDINARY: ImageWish = { name: "ordinary.qcow2", size: "1G" };
const SMALL: ImageWish = { name: "small.qcow2", size: "256M" };
/** Where it stands makes it the second disk of its kind; the jobs come with the first. */
const DISK_BEHIND_JOBS = "virtio-blk-pci,drive=n,addr=1f";
const functions = ". /job/filesystems.sh; . /job/nbd.sh";
const safeNames = (said: string) => [...said.matchAll(/^safe (\S+)$/gm)].map(([, name]) => name ?? "");

const nbd = (image: ImageWish, ...options: string[]) => ServedImages.start([image], options, "nbd");

describe.each(chosenKernels())("%s with nbd-client", (kernel) => {
  let guest: Guest;
  beforeAll(async () => {
    guest = await Guest.boot(kernel);
  });
  afterEach(async () => {
    await guest.run(`${functions}; take_away; umount /mnt/disk; await is_detached`);
  });
  afterAll(async () => {
    await guest?.powerCut();
  });

  test("holds what was written to ext4, and its check is clean", { timeout: 10 * MINUTES }, async () => {
    await using served = await nbd(ORDINARY);
    await guest.expect(`${functions}; attach ${served.port}; round_trip ext4 ${MIB}; trim_ext4; detach`, 300);
    await guest.expect(`${functions}; attach ${served.port}; mount_ext4; compare_files ${MIB}`, 120);
    await guest.expect(`${functions}; umount /mnt/disk; check_ext4; detach; kernel_is_content`);
    await served.stopServer();
    await expect(served.expectClean()).resolves.toBeUndefined();
  });

  test("writes nothing to what is served read-only", async () => {
    await using served = await nbd(SMALL, "-r");
    await guest.expect(`${functions}; attach ${served.port}; cannot_write; detach`);
    await served.stopServer();
    await served.expectClean();
  });

  test(`has all that was fsynced when the server is killed, ${ROUNDS} times`, {
    timeout: (2 + 2 * ROUNDS) * MINUTES,
  }, async () => {
    await using served = await nbd(ORDINARY);
    await guest.expect(`${functions}; attach ${served.port}; make_ext4`, 120);
    for (let round = 0; round < ROUNDS; round++) {
      await guest.expect(`${functions}; mount_ext4; start_writer ${round}; await_safe ${2 + round}`, 120);
      await sleep((round * 733) % 1500);
      await served.killServer();
      // The kernel waits for an answer until the disk is taken away.
      const said = await guest.expect(`${functions}; take_away; wait_for_writer; cat safe; umount /mnt/disk`, 120);
      await guest.expect(`${functions}; await is_detached`);
      await served.expectClean();
      await served.startServer();
      const names = safeNames(said);
      expect(names.length).toBeGreaterThan(1 + round);
      await guest.expect(`${functions}; attach ${served.port}; recover ext4 ${names.join(" ")}`, 120);
    }
    await guest.expect(`${functions}; detach`);
    await served.stopServer();
    await served.expectClean();
  });

  test("is let in over TLS with a certificate, and not without", { timeout: 5 * MINUTES }, async () => {
    const folder = mkdtempSync(join(tmpdir(), "zcow-tls-"));
    try {
      const authority = await TestAuthority.create(join(folder, "ca"));
      const pki = await authority.directory(join(folder, "pki"), {
        server: { commonName: "storage", dnsName: "storage" },
        client: { commonName: "guest" },
      });
      const file = (name: string) => `base64 -d > ${name} <<< ${readFileSync(join(pki, name)).toString("base64")}`;
      const files = ["ca-cert.pem", "client-cert.pem", "client-key.pem"].map(file).join("\n");
      const credentials = ["--object", `tls-creds-x509,id=t,endpoint=server,dir=${pki}`, "--tls-creds", "t"];
      await using served = await nbd(SMALL, ...credentials);
      const verify = "-cacertfile ca-cert.pem -tlshostname storage";
      const proof = "-certfile client-cert.pem -keyfile client-key.pem";
      const common = `${functions}\n${files}\n`;
      await guest.expect(`${common}attach ${served.port} -x ${verify} ${proof}; read_back; detach`);
      await guest.expect(`${common}is_refused ${served.port}; is_refused ${served.port} -x ${verify}`);
      await guest.expect(`${common}is_refused ${served.port} -x -cacertfile ca-cert.pem -tlshostname other ${proof}`);
      await served.stopServer();
      await served.expectClean();
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

describe.each(chosenKernels())("%s on a disk that QEMU has over NBD", (kernel) => {
  let guest: Guest | undefined;
  afterEach(async () => {
    await guest?.powerCut();
    guest = undefined;
  });

  test(`goes on when the server is killed and comes back, ${ROUNDS} times`, { timeout: 10 * MINUTES }, async () => {
    // QEMU does not make again what was acknowledged and not flushed, so nothing may be.
    await using served = await nbd(ORDINARY, "--cache", "writethrough");
    const disk = `driver=nbd,server.type=inet,server.host=127.0.0.1,server.port=${served.port},reconnect-delay=60`;
    guest = await Guest.boot(kernel, ["-blockdev", `${disk},node-name=n`, "-device", DISK_BEHIND_JOBS]);
    await guest.expect(`${functions}; DISK=/dev/vdb; make_ext4; mount_ext4; start_writer 0; await_safe 1`, 120);
    for (let round = 0; round < ROUNDS; round++) {
      await served.killServer();
      await sleep((round * 733) % 1500);
      await served.startServer();
      await guest.expect(`${functions}; await_safe ${6 * (round + 1)}`, 120);
    }
    await guest.expect(`${functions}; stop_writer; DISK=/dev/vdb; umount /mnt/disk; cp safe names; check_ext4`, 120);
    const names = safeNames(await guest.expect("cat names"));
    await guest.expect(`${functions}; DISK=/dev/vdb; recover ext4 ${names.join(" ")}; kernel_is_content`, 120);
    await guest.powerCut();
    guest = undefined;
    await served.stopServer();
    await served.expectClean();
  });
});
