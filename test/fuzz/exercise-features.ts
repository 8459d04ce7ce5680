import { closeSync, ftruncateSync, mkdirSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { BlockDevice } from "../../src/block/block-device.js";
import { isZonedDevice } from "../../src/block/zoned-device.js";
import { openImage } from "../../src/formats/open-image.js";
import { readDirectory } from "../../src/formats/qcow2/bitmaps/load-bitmaps.js";
import { createQcow2 } from "../../src/formats/qcow2/create.js";
import { readHeader } from "../../src/formats/qcow2/header-read.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import type { FormatName } from "../../src/formats/registry.js";
import { amendImage } from "../../src/jobs/amend.js";
import { changeBitmap, readBitmap } from "../../src/jobs/bitmap.js";
import { checkImage, type ImageCheck } from "../../src/jobs/check.js";
import { compactImage } from "../../src/jobs/compact.js";
import { convertDisks } from "../../src/jobs/convert/convert.js";
import { describeImage } from "../../src/jobs/info.js";
import { describeChain } from "../../src/jobs/info-chain.js";
import { inspectImage } from "../../src/jobs/inspect/inspect.js";
import { mapImage } from "../../src/jobs/map.js";
import { resizeImage } from "../../src/jobs/resize.js";
import { applySnapshot, createSnapshot, deleteSnapshot, listSnapshots } from "../../src/jobs/snapshot.js";
import { borrowedStorage } from "../../src/storage/borrowed-storage.js";
import { type MemoryStorage, memoryStorage } from "../../src/storage/memory-storage.js";
import type { Storage } from "../../src/storage/storage.js";
import type { Random } from "../support/random.js";
import { equalBytes } from "../support/sector-history.js";
import { Exercise, type Outcome } from "./exercise.js";
import { readNow } from "./fuzz-image.js";

/** Snapshots and bitmaps that are gone through of one image. */
const MOST_OF_A_KIND = 3;
/** Disks up to this size are converted whole. */
const CONVERT_LIMIT = 4 * 1024 * 1024;
const MAP_ENTRIES = 2000;

/** A damaged image, to be handed out untouched as often as it is wanted. */
export interface Subject {
  readonly format: FormatName;
  readonly main: string;
  readonly files: ReadonlyMap<string, MemoryStorage>;
  readonly passphrase?: string | undefined;
  /** Where images of several files are put. */
  readonly folder: string;
}

/** One file stays in memory; several go to a folder, where they find each other. */
function untouched({ main, files, folder }: Subject): string | Storage {
  const only = files.get(main);
  if (only === undefined) throw new Error(`there is no file ${main}`);
  if (files.size === 1) return borrowedStorage(only.clone());
  if (process.cwd() !== folder) {
    mkdirSync(folder, { recursive: true });
    // Names of data files start in the working directory.
    process.chdir(folder);
  }
  for (const [name, storage] of files) put(join(folder, name), storage);
  return join(folder, main);
}

/** No file system holds more than that; what is beyond would be a hole anyway. */
const LONGEST_FILE = 2 ** 43;
/** The good images are shorter; damage makes files longer by holes only. */
const MOST_STORED = 2 * 1024 * 1024;

function put(path: string, storage: MemoryStorage): void {
  const file = openSync(path, "w");
  const length = Math.min(storage.size(), LONGEST_FILE);
  const piece = 65_536;
  const stored = Math.min(length, MOST_STORED);
  for (let at = 0; at < stored; at += piece) {
    const bytes = readNow(storage, at, Math.min(piece, stored - at));
    if (bytes.some((byte) => byte !== 0)) writeSync(file, bytes, 0, bytes.length, at);
  }
  ftruncateSync(file, length);
  closeSync(file);
}

class FeatureExercise extends Exercise {
  readonly #subject: Subject;
  readonly #random: Random;

  constructor(subject: Subject, random: Random) {
    super();
    this.#subject = subject;
    this.#random = random;
  }

  get #format(): FormatName {
    return this.#subject.format;
  }

  async run(): Promise<void> {
    const clean = await this.#look();
    const readable = await this.#read();
    if (this.#format !== "qcow2") return;
    const writable = await this.#write(clean);
    await this.#repair();
    // What cannot be opened at all is mostly refused for the same reason by everything else.
    if (!readable && !writable && this.#random.chance(0.8)) return;
    await this.#snapshots(clean);
    await this.#bitmaps(clean);
    await this.#rework(clean);
  }

  async #look(): Promise<boolean> {
    const format = this.#format;
    const source = untouched(this.#subject);
    const asked = { format, implicitFiles: "allow" } as const;
    await this.step("info", async () => JSON.stringify(await describeImage(source, asked), plain).length);
    await this.step(
      "inspect",
      async () => JSON.stringify(await inspectImage(source, { maxVirtualSize: 2 ** 40 })).length,
    );
    await this.step("snapshot list", () => listSnapshots(source, { format }));
    if (typeof source === "string") await this.step("info chain", () => all(describeChain(source, asked)));
    return this.#isClean(await this.step("check", () => checkImage(source, { format })));
  }

  #isClean(check: ImageCheck | undefined): boolean {
    return (
      check !== undefined && check.failure === undefined && check.corruptions + check.leaks + check.checkErrors === 0
    );
  }

  /**
   * What was sound before must be sound after. Counts of clusters behind the end of the file are not looked at by a check before
   * the file grows, so leaks may show later; and where a repair found two guest clusters in one host cluster, it stays so until one
   * is written, which leaves the other alone with its cluster and without the flag that says so.
   */
  async #expectClean(what: string, clean: boolean, source: string | Storage, mayShare = false): Promise<void> {
    const check = await this.step(`check after ${what}`, () => checkImage(source, { format: this.#format }));
    if (!clean) return;
    const alone = (message: string): boolean => mayShare && /OFLAG_COPIED.*refcount=1$/.test(message);
    const found = check?.findings.find(
      ({ severity, message }) => (severity === "corruption" || severity === "error") && !alone(message),
    );
    if (check !== undefined && check.failure === undefined && found === undefined) return;
    throw new Error(
      `a sound image is damaged after ${what}: ${found?.message ?? check?.failure ?? "it cannot be checked"}`,
    );
  }

  async #openDevice(source: string | Storage, readOnly: boolean, snapshot?: string): Promise<BlockDevice | undefined> {
    const { passphrase } = this.#subject;
    const which = snapshot === undefined ? {} : { snapshot };
    return this.step(readOnly ? "open ro" : "open rw", () =>
      openImage(source, {
        format: this.#format,
        readOnly,
        implicitFiles: "probe",
        cacheBytes: 1024 * 1024,
        passphrase,
        ...which,
      }),
    );
  }

  async #read(): Promise<boolean> {
    const reader = await this.#openDevice(untouched(this.#subject), true);
    if (reader === undefined) return false;
    await this.readAround(reader, this.#random);
    await this.step("map", async () => {
      let count = 0;
      for await (const entry of mapImage(reader)) {
        if (entry.length <= 0) throw new Error(`an entry of ${entry.length} bytes`);
        if (++count > MAP_ENTRIES) return;
      }
    });
    if (isZonedDevice(reader)) this.outcome.push(`zones: ${reader.report().length}`);
    if (reader.size <= CONVERT_LIMIT) await this.#convert(reader);
    await this.step("close", () => reader.close());
    return true;
  }

  async #convert(source: BlockDevice): Promise<void> {
    const target = memoryStorage();
    await createQcow2(target, { size: source.size, clusterSize: 4096 });
    const device = await openQcow2(target);
    const compressed = this.#random.chance(0.2);
    const done = await this.step("convert", async () => {
      await convertDisks([source], device, { targetIsZero: true, compressed, piecesInFlight: 2 });
      return true;
    });
    if (done === true) {
      const [from, to] = [new Uint8Array(65_536), new Uint8Array(65_536)];
      for (let at = 0; at < source.size; at += from.length) {
        const length = Math.min(from.length, source.size - at);
        await source.read(at, from.subarray(0, length));
        await device.read(at, to.subarray(0, length));
        if (!equalBytes(from.subarray(0, length), to.subarray(0, length)))
          throw new Error(`the copy differs near ${at}`);
      }
    }
    await device.close();
  }

  async #write(clean: boolean): Promise<boolean> {
    const source = untouched(this.#subject);
    const writer = await this.#openDevice(source, false);
    if (writer === undefined) return false;
    if (isZonedDevice(writer)) await this.changeZones(writer, this.#random);
    await this.changePlain(writer, this.#random);
    await this.step("flush", () => writer.flush());
    await this.readAround(writer, this.#random);
    await this.grow(writer, clean);
    const closed = await this.step("close", async () => {
      await writer.close();
      return true;
    });
    await this.#expectClean("writing", clean && closed === true, source);
    return true;
  }

  async #repair(): Promise<void> {
    const format = this.#format;
    await this.step("check leaks", () => checkImage(untouched(this.#subject), { format, repair: "leaks" }));
    const source = untouched(this.#subject);
    const repaired = await this.step("check all", () => checkImage(source, { format, repair: "all" }));
    if (repaired === undefined) return;
    const sound = repaired.failure === undefined && repaired.corruptions + repaired.leaks + repaired.checkErrors === 0;
    await this.#expectClean("repair", sound, source);
    const device = await this.#openDevice(source, false);
    if (device === undefined) return;
    await this.readAround(device, this.#random);
    if (isZonedDevice(device)) await this.changeZones(device, this.#random);
    await this.changePlain(device, this.#random);
    const closed = await this.step("close repaired", async () => {
      await device.close();
      return true;
    });
    await this.#expectClean("writing to the repaired image", sound && closed === true, source, true);
  }

  async #snapshots(clean: boolean): Promise<void> {
    const format = this.#format;
    const list = (await this.step("snapshot list", () => listSnapshots(untouched(this.#subject), { format }))) ?? [];
    for (const { id, name } of list.slice(0, MOST_OF_A_KIND)) {
      const reader = await this.#openDevice(untouched(this.#subject), true, id);
      if (reader !== undefined) {
        await this.readAround(reader, this.#random);
        await this.step("close", () => reader.close());
      }
      const source = untouched(this.#subject);
      await this.step("snapshot apply", () => applySnapshot(source, { format, snapshot: id }));
      await this.#expectClean("applying a snapshot", clean, source);
      if (this.#random.chance(0.5)) {
        await this.step("snapshot delete", () => deleteSnapshot(source, { format, snapshot: name }));
        await this.#expectClean("deleting a snapshot", clean, source);
      }
    }
    if (list.length === 0 && this.#random.chance(0.8)) return;
    const source = untouched(this.#subject);
    await this.step("snapshot create", () => createSnapshot(source, { format, name: "new", date: new Date(0) }));
    await this.#expectClean("taking a snapshot", clean, source);
  }

  async #bitmaps(clean: boolean): Promise<void> {
    const format = this.#format;
    const source = untouched(this.#subject);
    const names = await this.step("bitmap list", async () => this.#bitmapNames(source));
    if (names === undefined || names.length === 0) return;
    const { passphrase } = this.#subject;
    for (const name of names.slice(0, MOST_OF_A_KIND)) {
      await this.step("bitmap read", async () => {
        let count = 0;
        for (const range of (await readBitmap(source, { format, name })).ranges()) {
          if (range.length <= 0) throw new Error(`a range of ${range.length} bytes`);
          if (++count > MAP_ENTRIES) break;
        }
      });
      const from = names.at(-1) ?? name;
      await this.step("bitmap merge", () =>
        changeBitmap(source, { format, name, passphrase, actions: [{ do: "merge", from }] }),
      );
      const action = this.#random.pick(["clear", "remove", "enable", "disable"] as const);
      await this.step(`bitmap ${action}`, () =>
        changeBitmap(source, { format, name, passphrase, actions: [{ do: action }] }),
      );
    }
    await this.step("bitmap add", () =>
      changeBitmap(source, { format, name: "new", passphrase, actions: [{ do: "add" }] }),
    );
    await this.#expectClean("changing bitmaps", clean, source);
  }

  async #bitmapNames(source: string | Storage): Promise<string[]> {
    const info = await describeImage(source, { format: this.#format });
    if (info.qcow2?.bitmaps !== undefined) return info.qcow2.bitmaps.map(({ name }) => name);
    if (typeof source === "string") return [];
    const header = await readHeader(source, { mode: "info" });
    return header.bitmaps === undefined ? [] : (await readDirectory(source, header)).map(({ name }) => name);
  }

  /** One of the jobs that change an image as a whole. */
  async #rework(clean: boolean): Promise<void> {
    const format = this.#format;
    const { passphrase } = this.#subject;
    const source = untouched(this.#subject);
    const job = this.#random.weighted({ compact: 2, grow: 1, shrink: 1, widen: 1, narrow: 1, downgrade: 1, layout: 1 });
    const info = await this.step("info", () => describeImage(source, { format }));
    if (info === undefined) return;
    const half = Math.floor(info.virtualSize / 1024) * 512;
    const acts = {
      compact: () => compactImage(source, { format }),
      grow: () =>
        resizeImage(source, {
          format,
          size: Math.min(half * 2 + 1024 * 1024, Number.MAX_SAFE_INTEGER),
          implicitFiles: "allow",
        }),
      shrink: () => resizeImage(source, { format, size: half, shrink: true, implicitFiles: "allow" }),
      widen: () => amendImage(source, { format, refcountBits: 64, passphrase }),
      narrow: () => amendImage(source, { format, refcountBits: 1, passphrase }),
      downgrade: () => amendImage(source, { format, compat: "0.10", passphrase }),
      layout: () => amendImage(source, { format, zoneLayout: "current", passphrase }),
    };
    await this.step(job, async () => {
      await acts[job]();
    });
    await this.#expectClean(job, clean, source);
  }
}

/** Numbers of 64 bits are text in JSON. */
function plain(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

/** Does with a damaged image whatever a user may do. Throws when anything but a clean refusal or a right result happens. */
export async function exerciseFeatures(subject: Subject, random: Random): Promise<Outcome> {
  const exercise = new FeatureExercise(subject, random);
  await exercise.run();
  return exercise.outcome;
}
