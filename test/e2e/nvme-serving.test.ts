import { mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { createImage } from "../../src/formats/create-image.js";
import { checkImage } from "../../src/jobs/check.js";
import { ConnectionEnded, ioCommand, NvmeHost, parseZoneReport } from "../support/nvme-initiator.js";
import { NvmeServerProcess } from "../support/nvme-server-process.js";
import { BLOCK, ZONE_BLOCKS, zonedImage } from "../support/nvme-service.js";
import { tcpStream } from "../support/nvme-sockets.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { BuiltCommand } from "./built-command.js";

const CONVENTIONAL = 1;
const SEQUENTIAL = 2;
const inFolder = temporaryFolder();
let command: BuiltCommand;
let server: NvmeServerProcess | undefined;
let count = 0;

beforeAll(async () => {
  command = await BuiltCommand.build(inFolder("build"));
});

afterEach(async () => {
  await server?.stop("SIGKILL");
  server = undefined;
});

function newFolder(): string {
  const folder = inFolder(`test-${count++}`);
  mkdirSync(folder);
  return folder;
}

function pattern(bytes: number, seed: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, index) => (index * 7 + (index >>> 8) + seed * 31) & 0xff);
}

async function expectClean(path: string): Promise<void> {
  const result = await checkImage(path, { format: "qcow2" });
  expect(result.findings).toEqual([]);
}

/** Writes, appends, reads and reports over one connection set-up. */
async function exercise(host: NvmeHost, bytes: number): Promise<void> {
  const { io } = host;
  const blocks = bytes / BLOCK;
  const data = pattern(bytes, blocks);
  expect((await io.command(ioCommand.write(CONVENTIONAL, 3, blocks, data))).status).toBe(0);
  expect((await io.command(ioCommand.read(CONVENTIONAL, 3, blocks, BLOCK))).data).toEqual(data);
  expect((await io.command(ioCommand.zoneSend(SEQUENTIAL, 0, 4, true))).status).toBe(0);
  expect((await io.command(ioCommand.write(SEQUENTIAL, ZONE_BLOCKS, blocks, data))).status).toBe(0);
  const appends = await Promise.all(
    [1, 2, 3, 4].map((seed) => io.command(ioCommand.append(SEQUENTIAL, ZONE_BLOCKS, 1, pattern(BLOCK, seed)))),
  );
  const places = appends.map(({ low }) => low);
  expect([...places].toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3].map((n) => ZONE_BLOCKS + blocks + n));
  for (const [index, lba] of places.entries()) {
    expect((await io.command(ioCommand.read(SEQUENTIAL, lba, 1, BLOCK))).data).toEqual(pattern(BLOCK, index + 1));
  }
  const report = parseZoneReport((await io.command(ioCommand.zoneReport(SEQUENTIAL, 0, 4096))).data);
  expect(report.count).toBe(14);
  expect(report.zones[1]).toMatchObject({ writePointer: ZONE_BLOCKS + blocks + 4, capacity: 768 });
  expect((await io.command(ioCommand.flush(SEQUENTIAL))).status).toBe(0);
}

describe("zcow nvme", () => {
  test("serves a zoned image as two namespaces and says how to attach it", async () => {
    const image = await zonedImage(newFolder());
    server = await NvmeServerProcess.start(command, [image]);
    expect(server.banner).toContain("namespace 1: conventional zones, 8 MiB");
    expect(server.banner).toContain("namespace 2: 14 zones of 4 MiB");
    const host = await server.host();
    expect((await host.identify(0x05, SEQUENTIAL, 2)).status).toBe(0);
    await exercise(host, BLOCK);
    expect(await server.stop()).toBe(0);
    await expectClean(image);
  });

  test.each([
    ["in the capsule", { inCapsule: 8192 }, 8192],
    ["on request", {}, 8192],
    ["in many pieces", {}, 512 * 1024],
    ["with both digests", { headerDigest: true, dataDigest: true }, 256 * 1024],
    ["with digests and in the capsule", { headerDigest: true, dataDigest: true, inCapsule: 8192 }, 4096],
    ["without flow control", { disableFlowControl: true }, 8192],
  ])("takes and gives data %s", async (_how, options, bytes) => {
    const image = await zonedImage(newFolder());
    server = await NvmeServerProcess.start(command, ["--maxh2cdata", "64k", image]);
    const host = await server.host(options);
    await exercise(host, bytes);
    host.close();
    expect(await server.stop()).toBe(0);
    await expectClean(image);
  });

  test.each([
    ["keeps the space of zones that are reset, when told to", ["--keep-space"], true],
    ["gives back the space of zones that are reset", [], false],
  ])("%s", async (_what, options, keeps) => {
    const image = await zonedImage(newFolder());
    server = await NvmeServerProcess.start(command, [...options, image]);
    const { io } = await server.host();
    const blocks = 64;
    const data = pattern(blocks * BLOCK, 1);
    expect((await io.command(ioCommand.write(SEQUENTIAL, 0, blocks, data))).status).toBe(0);
    expect((await io.command(ioCommand.flush(SEQUENTIAL))).status).toBe(0);
    const full = statSync(image).blocks;
    expect((await io.command(ioCommand.zoneSend(SEQUENTIAL, 0, 4, true))).status).toBe(0);
    expect((await io.command(ioCommand.read(SEQUENTIAL, 0, blocks, BLOCK))).data).toEqual(new Uint8Array(data.length));
    expect(await server.stop()).toBe(0);
    const given = (full - statSync(image).blocks) * 512;
    if (keeps) expect(given).toBe(0);
    else expect(given).toBeGreaterThanOrEqual(data.length);
    await expectClean(image);
  });

  test("serves an ordinary image in blocks of 512 bytes when told to", async () => {
    const path = join(newFolder(), "plain.raw");
    await createImage(path, { format: "raw", size: 1024 * 1024 });
    server = await NvmeServerProcess.start(command, ["-f", "raw", "--lba-size", "512", path]);
    const { io } = await server.host();
    const data = pattern(512, 1);
    expect((await io.command(ioCommand.write(1, 2047, 1, data))).status).toBe(0);
    expect((await io.command(ioCommand.read(1, 2047, 1, 512))).data).toEqual(data);
    expect((await io.command(ioCommand.read(1, 2048, 1, 512))).status).toBe(0x80);
  });

  test("serves several images as namespaces of one subsystem, or each as its own", async () => {
    const folder = newFolder();
    const [one, two] = [join(folder, "1.raw"), join(folder, "2.raw")];
    for (const path of [one, two]) await createImage(path, { format: "raw", size: 1024 * 1024 });
    server = await NvmeServerProcess.start(command, ["-f", "raw", one, two]);
    const { io } = await server.host();
    expect((await io.command(ioCommand.write(2, 0, 1, pattern(BLOCK, 2)))).status).toBe(0);
    expect((await io.command(ioCommand.read(1, 0, 1, BLOCK))).data).toEqual(new Uint8Array(BLOCK));
    await server.stop();
    server = await NvmeServerProcess.start(command, ["-f", "raw", "--separate", "-n", "nqn.2026-01.test:d", one, two]);
    const { port } = server;
    const second = await NvmeHost.connect(() => tcpStream(port), { subsystemNqn: "nqn.2026-01.test:d:2" });
    expect((await second.io.command(ioCommand.read(1, 0, 1, BLOCK))).data).toEqual(pattern(BLOCK, 2));
  });

  test("many queues work side by side", async () => {
    const image = await zonedImage(newFolder());
    server = await NvmeServerProcess.start(command, [image]);
    const host = await server.host({}, 6);
    const appends = host.queues.flatMap((queue, index) =>
      [0, 1, 2, 3, 4, 5, 6, 7].map(() => queue.command(ioCommand.append(SEQUENTIAL, 0, 2, pattern(2 * BLOCK, index)))),
    );
    const places = (await Promise.all(appends)).map(({ status, low }) => (status === 0 ? low : -1));
    expect([...places].toSorted((a, b) => a - b)).toEqual(places.map((_, index) => index * 2));
  });

  test("names stay the same over restarts and differ between images", async () => {
    const folder = newFolder();
    const names: string[] = [];
    for (const name of ["a.raw", "a.raw", "b.raw"]) {
      const path = join(folder, name);
      await createImage(path, { format: "raw", size: 1024 * 1024 });
      server = await NvmeServerProcess.start(command, ["-f", "raw", path]);
      const host = await server.host();
      const descriptors = (await host.identify(0x03, 1)).data;
      names.push(`${server.nqn} ${Buffer.from(descriptors.subarray(0, 64)).toString("hex")}`);
      await server.stop();
    }
    expect(names[0]).toBe(names[1]);
    expect(names[2]).not.toBe(names[0]);
  });

  test("an image in use, a port in use and a missing image end it with a message", async () => {
    const image = await zonedImage(newFolder());
    server = await NvmeServerProcess.start(command, [image]);
    const start = (...args: string[]): Promise<string> =>
      NvmeServerProcess.start(command, args).then(
        () => "started",
        (error: unknown) => String(error),
      );
    expect(await start(image)).toMatch(/ended with 1: zcow: .*lock/);
    expect(await start("--read-only", "-l", `127.0.0.1:${server.port}`, `${image}.missing`)).toMatch(
      /ended with 1: .*missing/,
    );
    const other = join(newFolder(), "o.raw");
    await createImage(other, { format: "raw", size: 1024 * 1024 });
    expect(await start("-f", "raw", "-l", `127.0.0.1:${server.port}`, other)).toMatch(/ended with 1: .*EADDRINUSE/);
    expect(await start("--nqn", "iqn.x", "-f", "raw", other)).toMatch(/ended with 1: .*nqn\./);
  });

  test("a read-only image takes no writes", async () => {
    const image = await zonedImage(newFolder());
    server = await NvmeServerProcess.start(command, ["--read-only", image]);
    const { io } = await server.host();
    expect((await io.command(ioCommand.write(CONVENTIONAL, 0, 1, pattern(BLOCK, 1)))).status).not.toBe(0);
    expect((await io.command(ioCommand.append(SEQUENTIAL, 0, 1, pattern(BLOCK, 1)))).status).not.toBe(0);
    expect((await io.command(ioCommand.read(SEQUENTIAL, 0, 1, BLOCK))).status).toBe(0);
  });

  test("a stop under load loses nothing that was acknowledged", async () => {
    const image = await zonedImage(newFolder());
    server = await NvmeServerProcess.start(command, [image]);
    const host = await server.host({}, 2);
    const acknowledged = await appendUntilGone(host, server, "SIGTERM");
    await expectAppended(image, acknowledged);
  });

  test.each([1, 2, 3])(
    "killed under write load without a journal (round %i), what was flushed is there and the image is clean",
    async () => {
      const image = await zonedImage(newFolder());
      server = await NvmeServerProcess.start(command, [image, "--journal", "off"]);
      const host = await server.host({}, 2);
      const flushed = await appendUntilGone(host, server, "SIGKILL", "flushed");
      await expectClean(image);
      await expectAppended(image, flushed);
    },
  );

  test.each([
    [1, "beside"],
    [2, "beside"],
    [3, "beside"],
    [4, "elsewhere"],
  ])("killed under write load (round %i, journal %s), everything that was acknowledged is there", async (_, place) => {
    const folder = newFolder();
    const image = await zonedImage(folder);
    const options = place === "beside" ? [] : ["--journal", `${folder}/journals`];
    mkdirSync(`${folder}/journals`);
    server = await NvmeServerProcess.start(command, [image, ...options]);
    const host = await server.host({}, 2);
    const random = writeRandomly(host);
    const acknowledged = await appendUntilGone(host, server, "SIGKILL");
    const blocks = await random;
    expect(blocks.size).toBeGreaterThan(20);
    await expectAppended(image, acknowledged, options, blocks);
    expect(server?.log).toContain("nothing that it had acknowledged is lost");
    expect(readdirSync(folder, { recursive: true }).filter((name) => String(name).includes("journal"))).toEqual([
      "journals",
    ]);
  });

  test("killed again before anybody has written, the second start finds everything too", async () => {
    const image = await zonedImage(newFolder());
    server = await NvmeServerProcess.start(command, [image]);
    const acknowledged = await appendUntilGone(await server.host({}, 2), server, "SIGKILL");
    server = await NvmeServerProcess.start(command, [image]);
    await server.stop("SIGKILL");
    await expectAppended(image, acknowledged);
  });

  test("whoever writes to the image of a killed server first finds everything, and so does the next server", async () => {
    const image = await zonedImage(newFolder());
    server = await NvmeServerProcess.start(command, [image]);
    const acknowledged = await appendUntilGone(await server.host({}, 2), server, "SIGKILL");
    expect((await command.zcow(newFolder(), ["zone", "finish", image, "52M"])).stderr).toContain("was killed");
    await expectAppended(image, acknowledged);
  });

  test("whoever only reads the image of a killed server is told that it does not see everything", async () => {
    const image = await zonedImage(newFolder());
    server = await NvmeServerProcess.start(command, [image]);
    await appendUntilGone(await server.host({}, 2), server, "SIGKILL");
    const reading = [["check"], ["map"], ["convert", "-O", "raw"]];
    const said = async (): Promise<string[]> => {
      const folder = newFolder();
      const all = await Promise.all(
        reading.map(([name = "", ...options]) =>
          command.zcow(folder, [name, ...options, image, ...(name === "convert" ? ["all.raw"] : [])]),
        ),
      );
      return all.map(({ stderr }) => stderr);
    };
    for (const text of await said()) expect(text).toContain("does not show before the image is closed");
    await command.zcow(newFolder(), ["zone", "finish", image, "52M"]);
    expect(await said()).toEqual(["", "", ""]);
  });

  test("killed, and its journal lost: the disk has another NGUID from then on, and the same UUID", async () => {
    const folder = newFolder();
    const image = await zonedImage(folder);
    const identifiers = async (): Promise<{ nguid: string; uuid: string }> => {
      server = await NvmeServerProcess.start(command, [image]);
      const host = await server.host();
      // Descriptors of CNS 03: type, length, two reserved bytes, identifier.
      const { data } = await host.identify(0x03, SEQUENTIAL);
      const found = new Map<number, string>();
      for (let at = 0; (data[at] ?? 0) !== 0; at += 4 + (data[at + 1] ?? 0)) {
        found.set(data[at] ?? 0, Buffer.from(data.subarray(at + 4, at + 4 + (data[at + 1] ?? 0))).toString("hex"));
      }
      return { nguid: found.get(2) ?? "", uuid: found.get(3) ?? "" };
    };
    const before = await identifiers();
    await server?.stop();
    expect(await identifiers()).toEqual(before);
    await server?.stop();
    server = await NvmeServerProcess.start(command, [image]);
    await appendUntilGone(await server.host({}, 2), server, "SIGKILL");
    rmSync(`${image}.zcow-journal`);
    const after = await identifiers();
    expect(after.uuid).toBe(before.uuid);
    expect(after.nguid).not.toBe(before.nguid);
    expect(server.log).toContain("last flush is not there");
    await server.stop();
    expect(await identifiers()).toEqual(after);
    await server.stop();
    await expectClean(image);
  });

  /** Writes blocks of the conventional zones until the server is gone; resolves to those that were acknowledged. */
  async function writeRandomly(host: NvmeHost): Promise<ReadonlyMap<number, number>> {
    const written = new Map<number, number>();
    try {
      for (let seed = 0; seed < 2 * ZONE_BLOCKS; seed++) {
        const lba = (seed * 677) % (2 * ZONE_BLOCKS);
        const { status } = await host.io.command(ioCommand.write(CONVENTIONAL, lba, 1, pattern(BLOCK, seed)));
        expect(status).toBe(0);
        written.set(lba, seed);
      }
    } catch (error) {
      if (!(error instanceof ConnectionEnded)) throw error;
    }
    return written;
  }

  /** Appends to four zones until the server is gone; resolves to the blocks that must be there. */
  async function appendUntilGone(
    host: NvmeHost,
    target: NvmeServerProcess,
    signal: "SIGTERM" | "SIGKILL",
    kept: "acknowledged" | "flushed" = "acknowledged",
  ) {
    const written = new Map<number, number>();
    const certain = new Map<number, number>();
    const { io } = host;
    let ending: Promise<number | null> | undefined;
    const writer = async (zone: number): Promise<void> => {
      for (let seed = 0; seed < 760; seed++) {
        const { status, low } = await io.command(
          ioCommand.append(SEQUENTIAL, zone * ZONE_BLOCKS, 1, pattern(BLOCK, seed)),
        );
        expect(status).toBe(0);
        written.set(low, seed);
        if (kept === "acknowledged") certain.set(low, seed);
      }
    };
    const flusher = async (): Promise<void> => {
      for (;;) {
        const before = [...written];
        expect((await (host.queues[1] ?? io).command(ioCommand.flush(SEQUENTIAL))).status).toBe(0);
        for (const [lba, seed] of before) certain.set(lba, seed);
        // Once: a second signal would mean to stop at once.
        if (certain.size > 200) ending ??= target.stop(signal);
      }
    };
    await Promise.allSettled([writer(0), writer(1), writer(2), writer(3), flusher()]);
    expect(await ending).toBe(signal === "SIGTERM" ? 0 : null);
    expect(certain.size).toBeGreaterThan(200);
    return certain;
  }

  async function expectAppended(
    image: string,
    blocks: ReadonlyMap<number, number>,
    options: readonly string[] = [],
    conventional: ReadonlyMap<number, number> = new Map(),
  ): Promise<void> {
    server = await NvmeServerProcess.start(command, [image, ...options]);
    const { io } = await server.host();
    for (const [lba, seed] of conventional) {
      const { data } = await io.command(ioCommand.read(CONVENTIONAL, lba, 1, BLOCK));
      expect(Buffer.compare(data, pattern(BLOCK, seed))).toBe(0);
    }
    const reads = [...blocks].map(async ([lba, seed]) => {
      const { data } = await io.command(ioCommand.read(SEQUENTIAL, lba, 1, BLOCK));
      return Buffer.compare(data, pattern(BLOCK, seed)) === 0;
    });
    expect((await Promise.all(reads.slice(0, 120))).every(Boolean)).toBe(true);
    for (const read of reads) expect(await read).toBe(true);
    expect(await server.stop()).toBe(0);
    await expectClean(image);
  }
});
