import { isZcowError } from "../../src/base/errors.js";
import { alignDown, alignUp } from "../../src/base/integers.js";
import type { BlockDevice } from "../../src/block/block-device.js";
import { isZonedDevice, type ZonedDevice } from "../../src/block/zoned-device.js";
import { checkQcow2 } from "../../src/formats/qcow2/check/check.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { compressibleBytes, type Random, taggedBytes } from "../support/random.js";
import { equalBytes } from "../support/sector-history.js";

/**
 * Everything a user may do with an image that came from somebody else. Each step may be refused with a
 * `ZcowError`; anything else that is thrown is a finding, and so is a write that does not read back.
 */
const MOST_EXTENTS = 2000;
const GROWTH = 300 * 1024;
const FULL_READ_LIMIT = 2 * 1024 * 1024;

/** What happened, in a few words that depend on the image only: the same image gives the same outcome. */
export type Outcome = string[];

/** The steps that a damaged image goes through, and what came of each. */
export class Exercise {
  readonly outcome: Outcome = [];

  async step<T>(what: string, act: () => T | Promise<T>): Promise<T | undefined> {
    try {
      const result = await act();
      this.outcome.push(`${what}: ok`);
      return result;
    } catch (error) {
      if (!isZcowError(error)) throw new Error(`${what}: not a ZcowError`, { cause: error });
      if (error.message === "" || error.message.includes("undefined") || error.message.includes("NaN")) {
        throw new Error(`${what}: poor message "${error.message}"`, { cause: error });
      }
      this.outcome.push(`${what}: ${error.code}`);
      return undefined;
    }
  }

  async open(bytes: Uint8Array, readOnly: boolean): Promise<BlockDevice | undefined> {
    const storage = memoryStorage(bytes);
    const what = readOnly ? "open ro" : "open rw";
    return this.step(what, () => openQcow2(storage, { readOnly, cacheBytes: 1024 * 1024 }));
  }

  async readAround(device: BlockDevice, random: Random): Promise<void> {
    const buffer = new Uint8Array(65536);
    const full = Math.min(device.size, FULL_READ_LIMIT);
    for (let at = 0; at < full; at += buffer.length) {
      const piece = buffer.subarray(0, Math.min(buffer.length, full - at));
      await this.step("read", () => device.read(at, piece));
    }
    for (let i = 0; i < 4; i++) {
      const unit = device.limits.requestAlignment;
      const length = 512 * random.between(1, 8);
      if (device.size < length) continue;
      const last = device.size - length;
      const at = random.chance(0.3) ? last : Math.floor(random.below(last + 1) / unit) * unit;
      await this.step("read", () => device.read(at, buffer.subarray(0, length)));
    }
    await this.step("extents", async () => {
      let count = 0;
      let end = 0;
      for await (const extent of device.extents(0, device.size)) {
        if (extent.offset !== end || extent.length <= 0) throw new Error(`extent at ${extent.offset} after ${end}`);
        end += extent.length;
        if (++count > MOST_EXTENTS) return;
      }
      if (end !== device.size) throw new Error(`extents end at ${end} of ${device.size}`);
    });
  }

  async changePlain(device: BlockDevice, random: Random): Promise<void> {
    for (let i = 0; i < 8; i++) {
      const unit = device.limits.requestAlignment;
      const length = alignUp(random.pick([512, 4096, 100, 20_000]), unit);
      const reach = random.chance(0.7) ? Math.min(device.size, FULL_READ_LIMIT) : device.size;
      if (reach < length) continue;
      const at = Math.floor(random.below(reach - length + 1) / unit) * unit;
      const kind = random.weighted({ write: 5, zeroes: 2, discard: 2, compressed: 1 });
      if (kind === "write") await this.writeAndReadBack(device, at, taggedBytes(i, at, length));
      else if (kind === "compressed") await this.writeCompressed(device, at);
      else if (kind === "zeroes") await this.step("zeroes", () => device.writeZeroes(at, length));
      else await this.step("discard", () => device.discard(at, length));
    }
  }

  async writeCompressed(device: BlockDevice, at: number): Promise<void> {
    const { optimalAlignment: clusterSize } = device.limits;
    const offset = at - (at % clusterSize);
    const bytes = compressibleBytes(at, offset, Math.min(clusterSize, device.size - offset));
    await this.step("write compressed", () => device.writeCompressed(offset, bytes));
  }

  /** Makes the disk larger while it is open. In a sound image the new part reads as zeros. */
  async grow(device: BlockDevice, sound: boolean): Promise<void> {
    const old = device.size;
    const size = Math.min(alignUp(old + GROWTH, 512), alignDown(Number.MAX_SAFE_INTEGER, 512));
    await this.step("grow", () => device.grow?.(size));
    if (device.size === old || !sound) return;
    const behind = new Uint8Array(size - old).fill(1);
    await device.read(old, behind);
    if (behind.some((byte) => byte !== 0))
      throw new Error(`the disk grew from ${old} to ${size}, and shows what is no zero`);
  }

  async writeAndReadBack(device: BlockDevice, at: number, bytes: Uint8Array): Promise<void> {
    const done = await this.step("write", async () => {
      await device.write(at, bytes);
      return true;
    });
    if (done !== true) return;
    const back = new Uint8Array(bytes.length);
    const read = await this.step("read back", async () => {
      await device.read(at, back);
      return true;
    });
    // In a damaged image two clusters of one request may share a host cluster: then the later one wins in both.
    const unit = device.limits.optimalAlignment;
    const oneCluster = Math.floor(at / unit) === Math.floor((at + bytes.length - 1) / unit);
    if (read === true && oneCluster && !equalBytes(back, bytes))
      throw new Error(`${bytes.length} bytes at ${at} do not read back`);
  }

  async changeZones(device: ZonedDevice, random: Random): Promise<void> {
    const zones = device.report();
    this.outcome.push(`zones: ${zones.length}`);
    for (let i = 0; i < 6 && zones.length > 0; i++) {
      const zone = random.pick(zones.slice(0, 64));
      const now = device.report(zone.start, 1)[0] ?? zone;
      const bytes = taggedBytes(i, now.writePointer, random.pick([512, 4096]));
      const kind = random.weighted({ write: 3, append: 3, reset: 2, finish: 1, open: 1, close: 1 });
      if (kind === "write" && now.writePointer + bytes.length <= device.size) {
        await this.writeAndReadBack(device, now.writePointer, bytes);
      } else if (kind === "append") await this.step("append", () => device.append(zone.start, bytes));
      else if (kind === "reset") await this.step("reset", () => device.resetZones(zone.start, zone.length));
      else if (kind === "finish") await this.step("finish", () => device.finishZones(zone.start, zone.length));
      else if (kind === "open") await this.step("open zone", () => device.openZones(zone.start, zone.length));
      else await this.step("close zone", () => device.closeZones(zone.start, zone.length));
    }
  }

  async checks(bytes: Uint8Array, random: Random): Promise<void> {
    const storage = memoryStorage(bytes);
    await this.step("check", () => checkQcow2(storage));
    await this.step("check leaks", () => checkQcow2(memoryStorage(bytes), { repair: "leaks" }));
    const repaired = memoryStorage(bytes);
    const result = await this.step("check all", () => checkQcow2(repaired, { repair: "all" }));
    if (result === undefined) return;
    const device = await this.step("open repaired", () => openQcow2(repaired, { cacheBytes: 1024 * 1024 }));
    if (device === undefined) return;
    await this.readAround(device, random);
    if (isZonedDevice(device)) await this.changeZones(device, random);
    else await this.changePlain(device, random);
    await this.step("close repaired", () => device.close());
  }
}

/** Opens, reads, writes, checks and repairs a damaged image. Throws when anything but a clean refusal happens. */
export async function exerciseImage(bytes: Uint8Array, random: Random): Promise<Outcome> {
  const exercise = new Exercise();
  const reader = await exercise.open(bytes, true);
  if (reader !== undefined) {
    await exercise.readAround(reader, random);
    if (isZonedDevice(reader)) exercise.outcome.push(`zones: ${reader.report().length}`);
    await exercise.step("close", () => reader.close());
  }
  const writer = await exercise.open(bytes, false);
  if (writer !== undefined) {
    await exercise.readAround(writer, random);
    if (isZonedDevice(writer)) await exercise.changeZones(writer, random);
    await exercise.changePlain(writer, random);
    await exercise.step("flush", () => writer.flush());
    await exercise.readAround(writer, random);
    await exercise.grow(writer, false);
    await exercise.step("close", () => writer.close());
  }
  await exercise.checks(bytes, random);
  return exercise.outcome;
}
