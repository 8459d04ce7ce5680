import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, test } from "vitest";
import { Guest } from "./guest.js";
import { chosenKernels } from "./kernels.js";

const MIB = 1_048_576;
const ZONES = 64;
const FORMAT = "zoned=on,zoned.zone_size=16M,zoned.zone_capacity=12M,zoned.max_open=6,zoned.max_active=8";
const BLOCKS = "logical_block_size=4096,physical_block_size=4096";

// Where these fail, the fault is in the jobs or the guest, not in zcow.
describe.each(chosenKernels())(
  "what is asked of zoned images holds for the zoned disk that QEMU emulates, in %s",
  (kernel) => {
    let guest: Guest;
    let folder: string;
    const run = (script: string) =>
      // QEMU lets a zone that was opened and never written become closed, not empty.
      guest.expect(
        `set -e; DISK=$(namespace 1); UNWRITTEN=cl; blkzone reset $DISK; . /job/zoned-disk.sh; ${script}`,
        240,
      );

    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), "zcow-control-"));
      const file = join(folder, "disk.raw");
      writeFileSync(file, "");
      truncateSync(file, ZONES * 16 * MIB);
      guest = await Guest.boot(kernel, [
        "-drive",
        `file=${file},format=raw,if=none,id=disk`,
        "-device",
        "nvme,id=nvme,serial=control,mdts=5,zoned.zasl=5",
        "-device",
        `nvme-ns,drive=disk,bus=nvme,nsid=1,${FORMAT},${BLOCKS}`,
      ]);
      await guest.expect("modprobe nvme; await namespace 1");
    });
    afterAll(async () => {
      await guest?.powerCut();
      rmSync(folder, { recursive: true, force: true });
    });

    test("its zones and limits", async () => {
      await run(`attributes ${ZONES} ${16 * MIB} ${12 * MIB} 6 8 131072 4096`);
    });
    test.each(["blkzone_commands", "error_codes", "resource_limits 6 8", "appends 32", "fio_verify"])(
      "%s",
      async (job) => {
        await run(job);
      },
    );
  },
);
