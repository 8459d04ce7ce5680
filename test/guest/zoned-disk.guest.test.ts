import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { Guest } from "./guest.js";
import { chosenKernels } from "./kernels.js";
import { ServedImages } from "./served-images.js";

interface Geometry {
  readonly name: string;
  readonly zones: number;
  readonly zoneMiB: number;
  readonly capacityMiB: number;
  readonly maxOpen: number;
  readonly maxActive: number;
  readonly blockSize: 512 | 4096;
}

const GEOMETRIES: readonly Geometry[] = [
  { name: "capacity below size", zones: 64, zoneMiB: 16, capacityMiB: 12, maxOpen: 6, maxActive: 8, blockSize: 4096 },
  { name: "small limits", zones: 40, zoneMiB: 4, capacityMiB: 4, maxOpen: 2, maxActive: 2, blockSize: 512 },
  { name: "many zones, no limits", zones: 4096, zoneMiB: 1, capacityMiB: 1, maxOpen: 0, maxActive: 0, blockSize: 4096 },
];
const APPEND_BYTES = 131_072;

function zoneOptions({ zoneMiB, capacityMiB, maxOpen, maxActive }: Geometry): string {
  const limits = `zone.max_open_zones=${maxOpen},zone.max_active_zones=${maxActive}`;
  return `zone.mode=host-managed,zone.size=${zoneMiB}M,zone.capacity=${capacityMiB}M,${limits}`;
}

describe.each(chosenKernels())("a served zoned image in %s", (kernel) => {
  let guest: Guest;
  beforeAll(async () => {
    guest = await Guest.boot(kernel);
  });
  afterAll(async () => {
    await guest?.powerCut();
  });

  describe.each(GEOMETRIES)("with $name", (geometry) => {
    const { zones, zoneMiB, capacityMiB, maxOpen, maxActive, blockSize } = geometry;
    let served: ServedImages;
    const run = (script: string, seconds = 120) =>
      guest.expect(`set -e; DISK=$(namespace 1); . /job/zoned-disk.sh\n${script}`, seconds);

    beforeAll(async () => {
      served = await ServedImages.start(
        [{ name: "zoned.qcow2", size: `${zones * zoneMiB}M`, options: zoneOptions(geometry) }],
        ["--lba-size", String(blockSize)],
      );
      await guest.expect(`connect ${served.port} ${served.nqn} 1`);
    });
    afterEach(async () => {
      await guest.run("DISK=$(namespace 1); blkzone reset $DISK");
    });
    afterAll(async () => {
      await guest?.run("disconnect");
      await served?.[Symbol.asyncDispose]();
    });

    test("is a host-managed disk with the zones and limits of the image", async () => {
      const limits = `${maxOpen} ${maxActive} ${APPEND_BYTES} ${blockSize}`;
      await run(`attributes ${zones} ${zoneMiB * 1048576} ${capacityMiB * 1048576} ${limits}`);
    });

    test("obeys every command of blkzone", async () => {
      await run("blkzone_commands");
    });

    test("obeys every command of nvme zns", async () => {
      await run("nvme_commands");
    });

    test("refuses misplaced requests with the status of the specification", async () => {
      await run("error_codes");
    });

    test.runIf(maxActive > 0)("keeps its limits of open and active zones", async () => {
      await run(`resource_limits ${maxOpen} ${maxActive}`);
    });

    test("says for each of many appends at once where it went", async () => {
      await run("appends 32");
    });

    test("returns what fio wrote, in order, at random and from several jobs", async () => {
      await run("fio_verify", 300);
    });

    test("leaves a clean image and a kernel without complaint", async () => {
      await guest.expect("disconnect; kernel_is_content");
      await served.stopServer();
      await expect(served.expectClean()).resolves.toBeUndefined();
    });
  });
});
