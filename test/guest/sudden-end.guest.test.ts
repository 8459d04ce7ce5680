import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import { Guest } from "./guest.js";
import { chosenKernels, chosenNumber } from "./kernels.js";
import { type ImageWish, ServedImages } from "./served-images.js";

const ROUNDS = chosenNumber("ZCOW_GUEST_ROUNDS", 10);
const MINUTES = 60_000;
const ZONES = "zone.mode=host-managed,zone.size=16M,zone.max_open_zones=6,zone.max_active_zones=8";

interface FileSystem {
  readonly kind: string;
  readonly image: ImageWish;
  readonly namespaces: 1 | 2;
}

const FILE_SYSTEMS: readonly FileSystem[] = [
  { kind: "btrfs", image: { name: "z.qcow2", size: "1536M", options: `${ZONES},zone.capacity=12M` }, namespaces: 1 },
  {
    kind: "f2fs",
    image: { name: "m.qcow2", size: "1536M", options: `${ZONES},zone.conventional_zones=24` },
    namespaces: 2,
  },
  { kind: "ext4", image: { name: "o.qcow2", size: "1G" }, namespaces: 1 },
];

const functions = "DISK=$(namespace 1); ZONED=$(namespace 2); . /job/filesystems.sh";
const safeNames = (lines: readonly string[]) =>
  lines.filter((line) => line.startsWith("safe ")).map((line) => line.slice("safe ".length));

/** The cut comes when so many files are safe, however long that takes, */
const filesBeforeCut = (round: number) => 2 + (round % 4);
/** and so many milliseconds later: never at the same point of the writing twice. */
const untilCut = (round: number) => (round * 733) % 1500;
/** How long a slow machine may take to make so many files safe, seconds. */
const WRITING_SECONDS = 120;

describe.each(chosenKernels())("with %s, after a sudden end", (kernel) => {
  let guest: Guest | undefined;
  const boot = async (): Promise<Guest> => {
    guest = await Guest.boot(kernel);
    return guest;
  };
  afterEach(async () => {
    await guest?.powerCut();
    guest = undefined;
  });

  test.for(FILE_SYSTEMS)(
    `of the server, ${ROUNDS} times, $kind has all that was fsynced and the image is clean`,
    { timeout: (2 + 2 * ROUNDS) * MINUTES },
    async (system) => {
      const guest = await boot();
      await using served = await ServedImages.start([system.image]);
      const connect = `connect ${served.port} ${served.nqn} ${system.namespaces}; ${functions}`;
      await guest.expect(`${connect}; make_${system.kind}`, 120);
      let total = 0;
      for (let round = 0; round < ROUNDS; round++) {
        const write = `start_writer ${round}; await_safe ${filesBeforeCut(round)}`;
        await guest.expect(`${functions}; mount_${system.kind} && { ${write}; }`, WRITING_SECONDS);
        await sleep(untilCut(round));
        await served.killServer();
        // Nobody answers any more: taking the disk away is what ends the writer.
        const said = await guest.expect("disconnect > /dev/null; wait_for_writer; cat safe; umount /mnt/disk", 120);
        await served.expectSound();
        await served.startServer();
        const names = safeNames(said.split("\n"));
        total += names.length;
        await guest.expect(`${connect}; recover ${system.kind} ${names.join(" ")}`, 120);
        await expectQuietEnd(guest, served);
        await served.startServer();
        await guest.expect(connect, 120);
      }
      console.log(`${system.kind}: ${ROUNDS} kills of the server, ${total} files of 1 MiB fsynced before them`);
      expect(total).toBeGreaterThan(2 * ROUNDS - 1);
    },
  );

  test.for(FILE_SYSTEMS)(
    `of the guest, ${ROUNDS} times, $kind has all that was fsynced and the image is clean`,
    { timeout: (2 + 3 * ROUNDS) * MINUTES },
    async (system) => {
      await using served = await ServedImages.start([system.image]);
      const connect = `connect ${served.port} ${served.nqn} ${system.namespaces}; ${functions}`;
      let current = await boot();
      await current.expect(`${connect}; make_${system.kind}`, 120);
      let total = 0;
      for (let round = 0; round < ROUNDS; round++) {
        const names = await writeUntilPowerCut(current, `${functions}; mount_${system.kind} || exit`, round);
        total += names.length;
        current = await boot();
        await current.expect(`${connect}; recover ${system.kind} ${names.join(" ")}`, 120);
      }
      await expectQuietEnd(current, served);
      console.log(`${system.kind}: ${ROUNDS} power cuts of the guest, ${total} files of 1 MiB fsynced before them`);
      expect(total).toBeGreaterThan(2 * ROUNDS - 1);
    },
  );
});

/** Names of the files that the guest had called safe when its power went. */
async function writeUntilPowerCut(guest: Guest, preparation: string, round: number): Promise<string[]> {
  const lines: string[] = [];
  let enough: () => void = () => undefined;
  const progress = new Promise<void>((resolve) => {
    enough = resolve;
  });
  const writing = guest.run(`${preparation}; write_until_cut ${round}`, WRITING_SECONDS, (line) => {
    lines.push(line);
    if (safeNames(lines).length >= filesBeforeCut(round)) enough();
  });
  // It ends by the cut: that it fails is the point. When it ends before, there is nothing to wait for.
  const ended = writing.then(enough, enough);
  await progress;
  await sleep(untilCut(round));
  await guest.powerCut();
  await ended;
  return safeNames(lines);
}

async function expectQuietEnd(guest: Guest, served: ServedImages): Promise<void> {
  await guest.expect("disconnect");
  await served.stopServer();
  await served.expectClean();
}
