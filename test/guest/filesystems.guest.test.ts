import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { Guest } from "./guest.js";
import { chosenKernels, chosenNumber } from "./kernels.js";
import { type ImageWish, ServedImages } from "./served-images.js";

/** MiB that each file system takes: hundreds. */
const MIB = chosenNumber("ZCOW_GUEST_MIB", 256);
const SECONDS = 600;

const ZONES = "zone.mode=host-managed,zone.size=16M,zone.max_open_zones=6,zone.max_active_zones=8";
const IMAGES = {
  zoned: { name: "zoned.qcow2", size: "1536M", options: `${ZONES},zone.capacity=12M` },
  /** 24 conventional zones: namespace 1 holds them, namespace 2 the others. */
  mixed: { name: "mixed.qcow2", size: "1536M", options: `${ZONES},zone.conventional_zones=24` },
  ordinary: { name: "ordinary.qcow2", size: "1G" },
} satisfies Record<string, ImageWish>;

interface FileSystem {
  readonly kind: string;
  readonly image: ImageWish;
  readonly namespaces: 1 | 2;
  readonly script: string;
  /** Whether the tools of the guest know it; a script that succeeds when they do. */
  readonly available?: string;
}

const twoDisks = "DISK=$(namespace 1); ZONED=$(namespace 2)";
const oneDisk = "DISK=$(namespace 1)";
const FILE_SYSTEMS: readonly FileSystem[] = [
  {
    kind: "zonefs",
    image: IMAGES.zoned,
    namespaces: 1,
    script: `${oneDisk}; round_trip_zonefs ${Math.ceil(MIB / 12)}`,
  },
  { kind: "btrfs", image: IMAGES.zoned, namespaces: 1, script: `${oneDisk}; round_trip btrfs ${MIB}` },
  { kind: "f2fs", image: IMAGES.mixed, namespaces: 2, script: `${twoDisks}; round_trip f2fs ${MIB}` },
  {
    kind: "zoned xfs",
    image: IMAGES.mixed,
    namespaces: 2,
    script: `${twoDisks}; round_trip zoned-xfs ${MIB}`,
    available: "[[ $(mkfs.xfs 2>&1) == *zoned=* ]]",
  },
  { kind: "ext4", image: IMAGES.ordinary, namespaces: 1, script: `${oneDisk}; round_trip ext4 ${MIB}` },
  { kind: "xfs", image: IMAGES.ordinary, namespaces: 1, script: `${oneDisk}; round_trip xfs ${MIB}` },
];

describe.each(chosenKernels())("a file system of %s on a served image", (kernel) => {
  let guest: Guest;
  beforeAll(async () => {
    guest = await Guest.boot(kernel);
  });
  afterEach(async () => {
    await guest.run("umount /mnt/disk; disconnect");
  });
  afterAll(async () => {
    await guest?.powerCut();
  });

  test.for(FILE_SYSTEMS)("$kind holds what was written, and its check is clean", async (system, context) => {
    const { image, namespaces, script, available = "true" } = system;
    if ((await guest.run(available)).status !== 0) context.skip("the tools of this guest do not know it");
    await using served = await ServedImages.start([image]);
    await guest.expect(`connect ${served.port} ${served.nqn} ${namespaces}`);
    await guest.expect(`. /job/filesystems.sh; ${script}`, SECONDS);
    await guest.expect("disconnect; kernel_is_content");
    await served.stopServer();
    await expect(served.expectClean()).resolves.toBeUndefined();
  });
});
