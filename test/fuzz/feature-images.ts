import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { isZonedDevice } from "../../src/block/zoned-device.js";
import { crc32c } from "../../src/codec/crc32c.js";
import { createQcow2 } from "../../src/formats/qcow2/create.js";
import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import type { FormatName } from "../../src/formats/registry.js";
import { changeBitmap } from "../../src/jobs/bitmap.js";
import { createSnapshot } from "../../src/jobs/snapshot.js";
import { borrowedStorage } from "../../src/storage/borrowed-storage.js";
import { type MemoryStorage, memoryStorage } from "../../src/storage/memory-storage.js";
import { compressibleBytes, taggedBytes } from "../support/random.js";
import { type FuzzImage, readNow, sparseStorage } from "./fuzz-image.js";

/** The sound images with features that fuzzing starts from: made here, or by the stock tools (test/corpus/good). */

const KIB = 1024;
const PASSPHRASE = "correct-horse";
/** A bundle of this code lies elsewhere, and is told. */
const CORPUS = process.env["ZCOW_FUZZ_CORPUS"] ?? join(import.meta.dirname, "../corpus/good");

/** An image of the corpus, and the files that it stands on. */
export function corpusImage(
  name: string,
  format: FormatName,
  files: readonly string[],
  passphrase?: string,
): FuzzImage {
  const main = files[0] ?? "";
  const unpacked = new Map(
    files.map((file) => [file, sparseStorage(new Uint8Array(gunzipSync(readFileSync(join(CORPUS, `${file}.gz`)))))]),
  );
  return { name, format, main, files: unpacked, passphrase };
}

type Fill = (storage: MemoryStorage) => Promise<void>;

async function made(name: string, options: CreateQcow2Options, ...fills: readonly Fill[]): Promise<FuzzImage> {
  const storage = memoryStorage();
  await createQcow2(storage, options);
  for (const fill of fills) await fill(storage);
  const encrypted = options.encrypt !== undefined;
  return {
    name,
    format: "qcow2",
    main: "image.qcow2",
    files: new Map([["image.qcow2", storage]]),
    passphrase: encrypted ? PASSPHRASE : undefined,
  };
}

/** Writes through the device, some of it compressed. */
function filled(seed: number, compressed = false): Fill {
  return async (storage) => {
    const writer = await openQcow2(borrowedStorage(storage), { passphrase: PASSPHRASE });
    const cluster = writer.limits.optimalAlignment;
    if (isZonedDevice(writer)) {
      for (const zone of [2, 3])
        await writer.append(writer.report()[zone]?.start ?? 0, taggedBytes(seed + zone, 0, 4096));
      if (seed > 1) await writer.finishZones(writer.report()[4]?.start ?? 0, writer.report()[4]?.length ?? 0);
    } else if (compressed) {
      // A cluster can be compressed once; part of one is written anew.
      await writer.writeCompressed(seed * 5 * cluster, compressibleBytes(seed, 0, 4 * cluster));
      await writer.write((seed * 5 + 1) * cluster + 100, taggedBytes(seed, 0, 300));
      await writer.write(writer.size - 8192 + seed * 1000, taggedBytes(seed, 0, 700));
    } else {
      for (let i = 0; i < 4; i++) await writer.write(i * 9000 + seed * 3000, taggedBytes(seed + i, i * 9000, 3000));
      await writer.writeZeroes(16_384 + seed * 4096, 8192, { unmap: seed % 2 === 0 });
      await writer.discard(40_960, 4096);
    }
    await writer.close();
  };
}

const snapshot =
  (name: string): Fill =>
  async (storage) => {
    await createSnapshot(storage, { format: "qcow2", name, date: new Date(1_700_000_000_000) });
  };

const bitmap =
  (name: string, granularity: number, disabled = false): Fill =>
  async (storage) => {
    const actions = [{ do: "add", granularity } as const, ...(disabled ? [{ do: "disable" } as const] : [])];
    await changeBitmap(storage, { format: "qcow2", name, actions });
  };

const zone = {
  mode: "host-managed",
  size: 32 * KIB,
  capacity: 24 * KIB,
  conventionalZones: 1,
  layout: "current",
} as const;
const size = 128 * KIB;

export async function snapshotImages(): Promise<FuzzImage[]> {
  const rounds = [filled(1), snapshot("one"), filled(2), snapshot("two"), filled(3)];
  return [
    await made("snapshots-4k", { size, clusterSize: 4 * KIB }, ...rounds),
    await made("snapshots-512", { size, clusterSize: 512, refcountBits: 8 }, ...rounds),
    await made("snapshots-v2", { size, clusterSize: 4 * KIB, compat: "0.10" }, ...rounds),
    await made(
      "snapshots-compressed",
      { size, clusterSize: 4 * KIB },
      filled(1, true),
      snapshot("one"),
      filled(2, true),
      snapshot("two"),
    ),
    await made("snapshots-extended-l2", { size, clusterSize: 16 * KIB, extendedL2: true }, ...rounds),
    await made("snapshots-bitmaps", { size, clusterSize: 4 * KIB }, bitmap("b", 4096), ...rounds),
    corpusImage("snapshots-stock", "qcow2", ["snapshots.qcow2"]),
  ];
}

export async function bitmapImages(): Promise<FuzzImage[]> {
  const bitmaps = [bitmap("fine", 512), bitmap("coarse", 64 * KIB), filled(1), bitmap("still", 4096, true), filled(2)];
  return [
    await made("bitmaps-4k", { size, clusterSize: 4 * KIB }, ...bitmaps),
    // Tables of several entries: a cluster of bits covers 2 MiB.
    await made("bitmaps-512", { size: 8192 * KIB, clusterSize: 512 }, ...bitmaps),
    await made("bitmaps-extended-l2", { size, clusterSize: 16 * KIB, extendedL2: true }, ...bitmaps),
    corpusImage("bitmaps-stock", "qcow2", ["bitmaps.qcow2"]),
  ];
}

export async function encryptedImages(): Promise<FuzzImage[]> {
  return [
    corpusImage("luks-cbc-essiv", "qcow2", ["luks.qcow2"], PASSPHRASE),
    await made(
      "luks-xts",
      {
        size,
        clusterSize: 4 * KIB,
        encrypt: { format: "luks", passphrase: PASSPHRASE, cipherAlg: "aes-128", iterTime: 1 },
      },
      filled(1),
    ),
    corpusImage("aes", "qcow2", ["aes.qcow2"], PASSPHRASE),
    await made(
      "aes-snapshots",
      { size, clusterSize: 512, encrypt: { format: "aes", passphrase: PASSPHRASE } },
      filled(1),
      snapshot("one"),
      filled(2),
    ),
  ];
}

export async function compressedImages(): Promise<FuzzImage[]> {
  return [
    await made("zlib-4k", { size, clusterSize: 4 * KIB }, filled(1, true), filled(3, true)),
    await made("zstd-4k", { size, clusterSize: 4 * KIB, compressionType: "zstd" }, filled(1, true), filled(3, true)),
    await made("zlib-extended-l2", { size: 512 * KIB, clusterSize: 16 * KIB, extendedL2: true }, filled(1, true)),
    await made("zstd-64k", { size: 1024 * KIB, clusterSize: 64 * KIB, compressionType: "zstd" }, filled(1, true)),
    corpusImage("zlib-stock", "qcow2", ["compressed-zlib.qcow2"]),
    corpusImage("zstd-stock", "qcow2", ["compressed-zstd.qcow2"]),
  ];
}

export async function extendedL2Images(): Promise<FuzzImage[]> {
  return [
    await made("extended-l2", { size, clusterSize: 16 * KIB, extendedL2: true }, filled(1), filled(2)),
    await made(
      "extended-l2-compressed",
      { size: 512 * KIB, clusterSize: 16 * KIB, extendedL2: true },
      filled(1, true),
      filled(2),
    ),
    await made(
      "extended-l2-zoned",
      { size: 256 * KIB, clusterSize: 16 * KIB, extendedL2: true, zone },
      filled(1),
      filled(2),
    ),
    corpusImage("extended-l2-stock", "qcow2", ["extended-l2.qcow2"]),
  ];
}

export async function zonedImages(): Promise<FuzzImage[]> {
  const layouts = ["append-limit", "v8", "v5", "v3"] as const;
  const options = { size: 256 * KIB, clusterSize: 4 * KIB };
  return [
    await made("zoned-snapshots", { ...options, zone }, filled(1), snapshot("one"), filled(2), snapshot("two")),
    await made("zoned-limits", { ...options, zone: { ...zone, maxActiveZones: 4, maxOpenZones: 2 } }, filled(1)),
    ...(await Promise.all(
      layouts.map((layout) => made(`zoned-${layout}`, { ...options, zone: { ...zone, layout } }, filled(1))),
    )),
  ];
}

export async function referringImages(): Promise<FuzzImage[]> {
  const base = ["middle.qcow2", "base.raw"];
  return [
    corpusImage("backing-chain", "qcow2", ["overlay.qcow2", ...base]),
    corpusImage("backing-json", "qcow2", ["json-overlay.qcow2", ...base]),
    corpusImage("data-file", "qcow2", ["data-file.qcow2", "outside.raw"]),
    corpusImage("data-file-raw", "qcow2", ["data-file-raw.qcow2", "outside-raw.raw"]),
  ];
}

export async function vmdkImages(): Promise<FuzzImage[]> {
  return [
    corpusImage("vmdk-sparse", "vmdk", ["sparse.vmdk"]),
    corpusImage("vmdk-zero-grains", "vmdk", ["zero-grains.vmdk"]),
    corpusImage("vmdk-stream", "vmdk", ["stream.vmdk"]),
    corpusImage("vmdk-flat", "vmdk", ["flat.vmdk", "flat-flat.vmdk"]),
    corpusImage("vmdk-split", "vmdk", ["split.vmdk", "split-s001.vmdk"]),
  ];
}

export async function vhdxImages(): Promise<FuzzImage[]> {
  return [
    corpusImage("vhdx-dynamic", "vhdx", ["dynamic.vhdx"]),
    corpusImage("vhdx-fixed", "vhdx", ["fixed.vhdx"]),
    withLog(corpusImage("vhdx-log", "vhdx", ["dynamic.vhdx"])),
  ];
}

/** The same disk as if its writer had ended while the last changes were in the log only: one of data, one of zeros. */
function withLog(image: FuzzImage): FuzzImage {
  const storage = image.files.get(image.main);
  if (storage === undefined) throw new Error("the image has no main file");
  const guid = Uint8Array.from({ length: 16 }, (_, index) => index + 1);
  const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (const at of [64 * KIB, 128 * KIB]) {
    const header = readNow(storage, at, 4 * KIB);
    header.set(guid, 48);
    view(header).setUint32(4, 0, true);
    view(header).setUint32(4, crc32c(header, 0, header.length), true);
    void storage.write(at, header);
  }
  const log = Number(view(readNow(storage, 64 * KIB + 72, 8)).getBigUint64(0, true));
  const entries = [1n, 2n].map((sequence) => {
    const target = 1024 * KIB * (sequence === 1n ? 3 : 4);
    const entry = new Uint8Array(8 * KIB);
    const fields = view(entry);
    entry.set(Buffer.from("loge"), 0);
    fields.setUint32(8, entry.length, true);
    fields.setBigUint64(16, sequence, true);
    fields.setUint32(24, 2, true);
    entry.set(guid, 32);
    fields.setBigUint64(48, BigInt(storage.size()), true);
    fields.setBigUint64(56, BigInt(storage.size()), true);
    for (const [at, kind] of [
      [64, "desc"],
      [96, "zero"],
    ] as const) {
      entry.set(Buffer.from(kind), at);
      fields.setBigUint64(at + 8, 4096n, true);
      fields.setBigUint64(at + 16, BigInt(target + (kind === "zero" ? 8 * KIB : 0)), true);
      fields.setBigUint64(at + 24, sequence, true);
    }
    entry.set(Buffer.from("data"), 4 * KIB);
    fields.setUint32(8 * KIB - 4, Number(sequence), true);
    fields.setUint32(4, crc32c(entry, 0, entry.length), true);
    return entry;
  });
  void storage.write(log, entries[0] as Uint8Array);
  void storage.write(log + 8 * KIB, entries[1] as Uint8Array);
  return image;
}

export async function vpcImages(): Promise<FuzzImage[]> {
  return [corpusImage("vpc-dynamic", "vpc", ["dynamic.vhd"]), corpusImage("vpc-fixed", "vpc", ["fixed.vhd"])];
}

export async function vdiImages(): Promise<FuzzImage[]> {
  return [corpusImage("vdi-dynamic", "vdi", ["dynamic.vdi"]), corpusImage("vdi-static", "vdi", ["static.vdi"])];
}
