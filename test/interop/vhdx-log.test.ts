import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { crc32c } from "../../src/codec/crc32c.js";
import { openImage } from "../../src/formats/open-image.js";
import { describeWithStock, qemuImg, qemuIo, temporaryDirectory } from "../support/stock-tools.js";

/**
 * A VHDX whose writer ended before its changes were in place. The log is written here by hand, to the published format;
 * the stock tool replays the same log into the file, and both must see the same disk.
 */

const KiB = 1024;
const MiB = 1024 * KiB;
const SECTOR = 4 * KiB;
const GUID = Uint8Array.from({ length: 16 }, (_, index) => index + 1);

/** A change of one 4 KiB sector of the file: its new bytes, or zeros. */
interface Change {
  readonly at: number;
  readonly bytes: Uint8Array | undefined;
}

function logEntry(sequence: bigint, tail: number, changes: readonly Change[], fileSize: number): Uint8Array {
  const data = changes.filter((change) => change.bytes !== undefined);
  const entry = new Uint8Array(SECTOR * (1 + data.length));
  const view = new DataView(entry.buffer);
  entry.set(Buffer.from("loge"), 0);
  view.setUint32(8, entry.length, true);
  view.setUint32(12, tail, true);
  view.setBigUint64(16, sequence, true);
  view.setUint32(24, changes.length, true);
  entry.set(GUID, 32);
  view.setBigUint64(48, BigInt(fileSize), true);
  view.setBigUint64(56, BigInt(fileSize), true);
  let sector = SECTOR;
  for (const [index, change] of changes.entries()) {
    const at = 64 + index * 32;
    view.setBigUint64(at + 16, BigInt(change.at), true);
    view.setBigUint64(at + 24, sequence, true);
    if (change.bytes === undefined) {
      entry.set(Buffer.from("zero"), at);
      view.setBigUint64(at + 8, BigInt(SECTOR), true);
      continue;
    }
    entry.set(Buffer.from("desc"), at);
    entry.set(change.bytes.subarray(SECTOR - 4), at + 4);
    entry.set(change.bytes.subarray(0, 8), at + 8);
    entry.set(Buffer.from("data"), sector);
    view.setUint32(sector + 4, Number(sequence >> 32n), true);
    entry.set(change.bytes.subarray(8, SECTOR - 4), sector + 8);
    view.setUint32(sector + SECTOR - 4, Number(sequence & 0xffff_ffffn), true);
    sector += SECTOR;
  }
  view.setUint32(4, crc32c(entry, 0, entry.length), true);
  return entry;
}

/** Names the log in both headers, so that it has to be replayed. */
function armLog(file: Buffer): { offset: number; length: number } {
  for (const at of [64 * KiB, 128 * KiB]) {
    const header = file.subarray(at, at + SECTOR);
    header.set(GUID, 48);
    header.writeUInt32LE(0, 4);
    header.writeUInt32LE(crc32c(header, 0, SECTOR), 4);
  }
  return { offset: Number(file.readBigUInt64LE(64 * KiB + 72)), length: file.readUInt32LE(64 * KiB + 68) };
}

function batOffset(file: Buffer): number {
  const bat = Buffer.from("6677c22d23f600429d64115e9bfd4a08", "hex");
  const entry = file.indexOf(bat, 192 * KiB);
  return Number(file.readBigUInt64LE(entry + 16));
}

async function firstBytes(path: string): Promise<number[]> {
  const device = await openImage(path, { format: "vhdx", readOnly: true });
  await using _ = device;
  const byte = new Uint8Array(1);
  const found: number[] = [];
  for (let at = 0; at < device.size; at += MiB) {
    await device.read(at, byte);
    found.push(byte[0] ?? -1);
  }
  return found;
}

async function makeDisk(): Promise<{ path: string; file: Buffer }> {
  const path = join(temporaryDirectory(), "disk.vhdx");
  expect((await qemuImg(["create", "-q", "-f", "vhdx", "-o", "block_size=1M", path, "6M"])).code).toBe(0);
  expect((await qemuIo(["-f", "vhdx", "-c", "write -P 7 1M 1M", "-c", "write -P 8 3M 1M", path])).code).toBe(0);
  return { path, file: readFileSync(path) };
}

async function expectAsReplayedByStock(path: string, expected: number[]): Promise<void> {
  expect(await firstBytes(path)).toEqual(expected);
  // The stock tool changes the file: it comes second.
  const check = await qemuImg(["check", "-r", "all", "-f", "vhdx", path]);
  expect(check.code, check.stderr).toBe(0);
  expect(
    readFileSync(path)
      .subarray(64 * KiB + 48, 64 * KiB + 64)
      .every((byte) => byte === 0),
  ).toBe(true);
  expect(await firstBytes(path)).toEqual(expected);
}

describeWithStock("a VHDX whose log was not replayed", () => {
  it("reads as if it had been", async () => {
    const { path, file } = await makeDisk();
    const bat = batOffset(file);
    const current = Uint8Array.from(file.subarray(bat, bat + SECTOR));
    file.fill(0, bat, bat + SECTOR);
    const log = armLog(file);
    file.set(logEntry(1n, 0, [{ at: bat, bytes: current }], file.length), log.offset);
    writeFileSync(path, file);
    await expectAsReplayedByStock(path, [0, 7, 0, 8, 0, 0]);
  });

  it("takes entries in order, a zero descriptor after data", async () => {
    const { path, file } = await makeDisk();
    const bat = batOffset(file);
    const current = Uint8Array.from(file.subarray(bat, bat + SECTOR));
    const log = armLog(file);
    file.set(logEntry(5n, 0, [{ at: bat, bytes: current }], file.length), log.offset);
    file.set(logEntry(6n, 0, [{ at: bat, bytes: undefined }], file.length), log.offset + 2 * SECTOR);
    writeFileSync(path, file);
    await expectAsReplayedByStock(path, [0, 0, 0, 0, 0, 0]);
  });

  it("leaves out entries older than the tail of the newest", async () => {
    const { path, file } = await makeDisk();
    const bat = batOffset(file);
    const current = Uint8Array.from(file.subarray(bat, bat + SECTOR));
    file.fill(0, bat, bat + SECTOR);
    const log = armLog(file);
    file.set(logEntry(5n, 0, [{ at: bat + SECTOR, bytes: undefined }], file.length), log.offset);
    file.set(logEntry(6n, SECTOR, [{ at: bat, bytes: current }], file.length), log.offset + SECTOR);
    writeFileSync(path, file);
    await expectAsReplayedByStock(path, [0, 7, 0, 8, 0, 0]);
  });

  it("wraps around the end of the log", async () => {
    const { path, file } = await makeDisk();
    const bat = batOffset(file);
    const current = Uint8Array.from(file.subarray(bat, bat + SECTOR));
    file.fill(0, bat, bat + SECTOR);
    const log = armLog(file);
    const tail = log.length - SECTOR;
    const entry = logEntry(9n, tail, [{ at: bat, bytes: current }], file.length);
    file.set(entry.subarray(0, SECTOR), log.offset + tail);
    file.set(entry.subarray(SECTOR), log.offset);
    writeFileSync(path, file);
    await expectAsReplayedByStock(path, [0, 7, 0, 8, 0, 0]);
  });

  it("is refused when the log has no valid entry, or needs a longer file", async () => {
    const { path, file } = await makeDisk();
    const log = armLog(file);
    writeFileSync(path, file);
    const open = () => openImage(path, { format: "vhdx", readOnly: true });
    await expect(open()).rejects.toMatchObject({ code: "FORMAT_FIELD" });
    file.set(logEntry(1n, 0, [{ at: 3 * MiB, bytes: undefined }], file.length + MiB), log.offset);
    writeFileSync(path, file);
    await expect(open()).rejects.toMatchObject({ code: "FORMAT_TRUNCATED" });
  });
});
