import { type MemoryStorage, memoryStorage } from "../../src/storage/memory-storage.js";
import { Random } from "../support/random.js";
import { exerciseImage } from "./exercise.js";
import { exerciseFeatures } from "./exercise-features.js";
import {
  bitmapImages,
  compressedImages,
  encryptedImages,
  extendedL2Images,
  referringImages,
  snapshotImages,
  vdiImages,
  vhdxImages,
  vmdkImages,
  vpcImages,
  zonedImages,
} from "./feature-images.js";
import { placeVdi, placeVhdx, placeVmdk, placeVpc } from "./foreign-places.js";
import type { FuzzImage } from "./fuzz-image.js";
import { goodImages } from "./good-images.js";
import { applyCoreDamages, type CoreDamage, randomCoreDamages } from "./mutations.js";
import { applyDamages, type PlacedImage, randomDamages } from "./places.js";
import { placeQcow2, type Weights } from "./qcow2-places.js";

/** A case that can be run, made smaller and kept. */
export interface FuzzCase {
  readonly image: string;
  /** What is wrong with the image; each can be left out. */
  readonly damages: readonly { readonly what: string }[];
  /** Runs the case with these of its damages only. Throws when the outcome is a fault of the product. */
  run(damages: FuzzCase["damages"]): Promise<void>;
  keep(damages: FuzzCase["damages"]): KeptCase;
}

/** A case as it is kept in test/fuzz/cases: the damaged files, whatever becomes of the code that made them. */
export interface KeptCase {
  readonly format: string;
  readonly main: string;
  readonly passphrase?: string | undefined;
  readonly seed: number;
  readonly damages: readonly string[];
  /** Pieces that are not zero, by offset in base64, and the length, for each file. */
  readonly files: Readonly<
    Record<string, { readonly length: number; readonly pieces: Readonly<Record<string, string>> }>
  >;
}

const FOLDER = { path: "" };

/** Where images of several files are put; no other process may use it. */
export function useFolder(path: string): void {
  FOLDER.path = path;
}

async function coreCases(): Promise<(random: Random) => FuzzCase> {
  const images = await goodImages();
  return (random) => {
    const image = random.pick(images);
    const damages = randomCoreDamages(random, image.bytes, image.pointerTable);
    const seed = random.u32();
    const bytes = (chosen: FuzzCase["damages"]): Uint8Array => applyCoreDamages(image.bytes, chosen as CoreDamage[]);
    return {
      image: image.name,
      damages,
      run: async (chosen) => {
        await exerciseImage(bytes(chosen), new Random(seed));
      },
      keep: (chosen) =>
        keep({ format: "qcow2", main: "image.qcow2", seed }, chosen, [["image.qcow2", memoryStorage(bytes(chosen))]]),
    };
  };
}

function featureCases(
  make: () => Promise<FuzzImage[]>,
  place: (image: FuzzImage) => PlacedImage,
): () => Promise<(random: Random) => FuzzCase> {
  return async () => {
    const images = (await make()).map(place);
    return (random) => {
      const image = random.pick(images);
      const damages = randomDamages(random, image);
      const seed = random.u32();
      const { format, main, passphrase } = image;
      const files = (chosen: FuzzCase["damages"]): Map<string, MemoryStorage> =>
        applyDamages(image, chosen as typeof damages);
      return {
        image: image.name,
        damages,
        run: async (chosen) => {
          await exerciseFeatures(
            { format, main, passphrase, files: files(chosen), folder: FOLDER.path },
            new Random(seed),
          );
        },
        keep: (chosen) => keep({ format, main, passphrase, seed }, chosen, files(chosen)),
      };
    };
  };
}

const qcow2 =
  (weights: Weights) =>
  (image: FuzzImage): PlacedImage =>
    placeQcow2(image, weights);

const KINDS: Readonly<Record<string, () => Promise<(random: Random) => FuzzCase>>> = {
  core: coreCases,
  snapshots: featureCases(
    snapshotImages,
    qcow2({ header: 4, extensions: 1, l1: 2, l2: 3, refcounts: 2, snapshots: 12, bitmaps: 4, compressed: 1 }),
  ),
  bitmaps: featureCases(bitmapImages, qcow2({ header: 4, extensions: 2, l1: 2, l2: 3, refcounts: 3, bitmaps: 10 })),
  encryption: featureCases(encryptedImages, qcow2({ header: 4, extensions: 2, l2: 3, luks: 10, snapshots: 4 })),
  compression: featureCases(
    compressedImages,
    qcow2({ header: 2, extensions: 1, l1: 1, l2: 16, refcounts: 4, compressed: 8 }),
  ),
  "extended-l2": featureCases(
    extendedL2Images,
    qcow2({ header: 4, extensions: 1, l1: 4, l2: 30, refcounts: 4, compressed: 1, zones: 4 }),
  ),
  zones: featureCases(
    zonedImages,
    qcow2({ header: 4, extensions: 3, l1: 2, l2: 4, refcounts: 2, snapshots: 8, zones: 12 }),
  ),
  references: featureCases(referringImages, qcow2({ header: 8, extensions: 3, l1: 3, l2: 6, refcounts: 2, names: 20 })),
  vmdk: featureCases(vmdkImages, placeVmdk),
  vhdx: featureCases(vhdxImages, placeVhdx),
  vpc: featureCases(vpcImages, placeVpc),
  vdi: featureCases(vdiImages, placeVdi),
};

export const KIND_NAMES: readonly string[] = Object.keys(KINDS);

/** All but what the first suite has: features of qcow2, and the formats of other virtual machines. */
export const FEATURE_KINDS: readonly string[] = KIND_NAMES.filter((kind) => kind !== "core");

/** The cases of one kind; its images are made now. */
export async function casesOf(kind: string): Promise<(random: Random) => FuzzCase> {
  const make = KINDS[kind];
  if (make === undefined) throw new Error(`there is no kind '${kind}'; known kinds: ${KIND_NAMES.join(", ")}`);
  return make();
}

function keep(
  about: Pick<KeptCase, "format" | "main" | "passphrase" | "seed">,
  damages: FuzzCase["damages"],
  files: Iterable<readonly [string, MemoryStorage]>,
): KeptCase {
  const kept: Record<string, KeptCase["files"][string]> = {};
  for (const [name, storage] of files) kept[name] = { length: storage.size(), pieces: piecesOf(storage) };
  return { ...about, damages: damages.map(({ what }) => what), files: kept };
}

const PIECE = 4096;
/** Beyond it a file is a hole: damage writes only where the good image had something. */
const LAST_PIECE = 64 * 1024 * 1024;

function piecesOf(storage: MemoryStorage): Record<string, string> {
  const pieces: Record<string, string> = {};
  const bytes = new Uint8Array(PIECE);
  const end = Math.min(storage.size(), LAST_PIECE);
  for (let at = 0; at < end; at += PIECE) {
    const piece = bytes.subarray(0, Math.min(PIECE, end - at));
    void storage.read(at, piece);
    if (piece.some((byte) => byte !== 0)) pieces[at] = Buffer.from(piece).toString("base64");
  }
  return pieces;
}

/** Runs a kept case. Throws as {@link FuzzCase.run}. */
export async function replay(kept: KeptCase, folder: string): Promise<void> {
  const files = new Map<string, MemoryStorage>();
  for (const [name, { length, pieces }] of Object.entries(kept.files)) {
    const storage = memoryStorage(length);
    for (const [at, text] of Object.entries(pieces))
      void storage.write(Number(at), new Uint8Array(Buffer.from(text, "base64")));
    files.set(name, storage);
  }
  const { main, passphrase, seed } = kept;
  await exerciseFeatures({ format: kept.format as "qcow2", main, passphrase, files, folder }, new Random(seed));
}
