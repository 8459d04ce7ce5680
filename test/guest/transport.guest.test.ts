import { afterAll, afterEach, beforeAll, describe, test } from "vitest";
import { Guest } from "./guest.js";
import { chosenKernels } from "./kernels.js";
import { type ImageWish, ServedImages } from "./served-images.js";

interface Variant {
  readonly name: string;
  /** Of `zcow nvme`. */
  readonly server?: readonly string[];
  /** Of `nvme connect`. */
  readonly host?: string;
}

const VARIANTS: readonly Variant[] = [
  { name: "the defaults" },
  { name: "no in-capsule data", server: ["--in-capsule", "0"] },
  { name: "4 KiB of in-capsule data", server: ["--in-capsule", "4k"] },
  { name: "16 KiB of in-capsule data", server: ["--in-capsule", "16k"] },
  { name: "write data in pieces of 4 KiB", server: ["--maxh2cdata", "4k"] },
  { name: "transfers of at most 8 KiB", server: ["--mdts", "8k", "--zasl", "8k"] },
  { name: "blocks of 512 bytes", server: ["--lba-size", "512"] },
  { name: "multipath", server: ["--multipath"] },
  { name: "header and data digests", host: "--hdr-digest --data-digest" },
  { name: "header digests and small pieces", server: ["--maxh2cdata", "4k"], host: "--hdr-digest" },
  { name: "data digests and no in-capsule data", server: ["--in-capsule", "0"], host: "--data-digest" },
  { name: "no flow control of the submission queue", host: "--disable-sqflow" },
  { name: "queues of 16 entries", host: "--queue-size=16" },
];

const ZONES = "zone.mode=host-managed,zone.size=8M,zone.capacity=6M,zone.max_open_zones=6,zone.max_active_zones=8";
const IMAGE: ImageWish = { name: "m.qcow2", size: "256M", options: `${ZONES},zone.conventional_zones=4` };

describe.each(chosenKernels())("data of fio in %s", (kernel) => {
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

  test.for(VARIANTS)("comes back as written with $name", async ({ server = [], host = "" }) => {
    await using served = await ServedImages.start([IMAGE], server);
    await guest.expect(`connect ${served.port} ${served.nqn} 2 ${host}`);
    await guest.expect(". /job/transport.sh; set -e; verify_conventional; verify_zoned", 240);
    await guest.expect("disconnect; kernel_is_content");
    await served.stopServer();
    await served.expectClean();
  });
});
