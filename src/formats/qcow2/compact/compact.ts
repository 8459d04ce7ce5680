/**
 * Moves what lies at the end of an image file into free clusters before it, and cuts the file off.
 *
 *     step                                            | a crash in this step leaves
 *     ------------------------------------------------+---------------------------------------------------------
 *     counts of the new places raised, bytes copied   | the old image; at worst leaked clusters
 *     flush                                           | the same
 *     references changed, in tables and in the header | each reference leads to the old place or to the new one, which
 *                                                     | hold the same and are both counted for all references: leaks
 *     flush                                           | the new image, the old places leaked
 *     counts of the old places lowered; flush         | the new image; at worst leaked clusters
 *     (the next step, until nothing can be moved)     |
 *     empty refcount blocks taken out of their table; | the same
 *     flush; their counts lowered; flush              |
 *     file truncated                                  | the file longer than it needs to be
 *
 * Tables that move are changed at their new place; the old copy stays whole until the step is durable.
 */

import { isZcowError, ZcowError } from "../../../base/errors.js";
import { ceilDiv } from "../../../base/integers.js";
import { isPromise } from "../../../base/maybe-promise.js";
import type { PassphraseSource } from "../../../block/passphrase.js";
import type { Storage } from "../../../storage/storage.js";
import { checkQcow2 } from "../check/check.js";
import type { CheckResult } from "../check/check-result.js";
import { CheckSession, CheckStopped, FindingLog } from "../check/check-session.js";
import { clearUnknownAutoclear } from "../check/header-patch.js";
import { countReferences } from "../check/image-references.js";
import { countRefcountBlocks, type RefcountTable, readRefcountTable } from "../check/refcount-structures.js";
import { INCOMPATIBLE } from "../features.js";
import { type GuestData, ImageFileData } from "../guest-data.js";
import type { Qcow2Header } from "../header.js";
import { readHeader } from "../header-read.js";
import { FreeClusters } from "./free-clusters.js";
import { copyMoves } from "./move-data.js";
import { MoveApplier, Moves, TailCollector } from "./moves.js";
import { type ReferenceVisitor, ReferenceWalk } from "./reference-walk.js";
import { shrinkRefcounts } from "./shrink-refcounts.js";
import { changeCounts } from "./stored-counts.js";

/** How an image is compacted. */
export interface CompactOptions {
  /** Told how much is done, from 0 to 1. */
  readonly onProgress?: ((done: number) => void) | undefined;
  /** Opens an image encrypted with LUKS: what is encrypted there depends on where it lies, and is encrypted anew when it moves. */
  readonly passphrase?: PassphraseSource | undefined;
}

/** What a compaction did. */
export interface CompactResult {
  /** Length of the file before and after. */
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  /** Clusters with a new place; of compressed data, clusters that hold some at the new place. */
  readonly clustersMoved: number;
  /** Lost clusters that were freed first. */
  readonly leaksFixed: number;
  /** Structures that must lie in one piece, stand in the way of a shorter file, and found no free piece that is long enough. */
  readonly kept: readonly string[];
}

/** Each round makes the file shorter; what is left after so many is a handful of clusters. */
const MOST_ROUNDS = 4;

/**
 * Compacts an image that nobody uses. Durable when it resolves; whenever it fails or stops, the image holds the same data and has leaked
 * clusters at worst. Clusters are moved in steps of bounded memory; counting references takes as much as a check does.
 *
 * Throws `READ_ONLY`, `IO_ERROR`, `IMAGE_CORRUPT` for images that a check does not find sound or that were not closed properly, `NOT_SUPPORTED` for
 * images with an external data file, `PASSPHRASE_REQUIRED` and `PASSPHRASE_WRONG`, and as `readHeader` and `checkQcow2` do.
 */
export async function compactQcow2(storage: Storage, options: CompactOptions = {}): Promise<CompactResult> {
  const bytesBefore = storage.size();
  const { header, leaksFixed } = await prepare(storage);
  const encrypted = await reencrypting(storage, header, options.passphrase);
  const { clustersMoved, kept } = await withErrors(storage, async () => {
    const compaction = await Compaction.open(storage, header, encrypted, options.onProgress);
    await compaction.run();
    return compaction;
  });
  options.onProgress?.(1);
  return { bytesBefore, bytesAfter: storage.size(), clustersMoved, leaksFixed, kept: [...kept] };
}

/** Makes sure that every reference is known and every count right. Leaks are freed, since they are what holes are made of. */
async function prepare(storage: Storage): Promise<{ readonly header: Qcow2Header; readonly leaksFixed: number }> {
  if (!storage.capabilities.writable) {
    throw new ZcowError("READ_ONLY", `${storage.name} is open for reading only`, { data: { path: storage.name } });
  }
  const header = await readHeader(storage, { writable: true });
  const { incompatible } = header.features;
  if ((incompatible & INCOMPATIBLE.externalData) !== 0n) {
    throw new ZcowError(
      "NOT_SUPPORTED",
      `${storage.name} keeps its data in an external file, where each byte has its fixed place; there is nothing to compact`,
      { data: { path: storage.name, structure: "external data file" } },
    );
  }
  if ((incompatible & INCOMPATIBLE.dirty) !== 0n) {
    throw notSound(storage, "it was not closed properly");
  }
  const found = await checkQcow2(storage);
  if (found.failure !== undefined) throw notSound(storage, found.failure, codeOf(found));
  if (found.corruptions + found.checkErrors > 0) {
    const what = `a check finds ${found.corruptions} corruptions and ${found.checkErrors} errors`;
    throw notSound(storage, what, codeOf(found));
  }
  await clearUnknownAutoclear(storage, header);
  if (found.leaks > 0) {
    const mended = await checkQcow2(storage, { repair: "leaks" });
    if (mended.leaks + mended.corruptions + mended.checkErrors > 0 || mended.failure !== undefined) {
      throw notSound(storage, "its lost clusters cannot be freed", codeOf(mended));
    }
  }
  return { header: await readHeader(storage, { writable: true }), leaksFixed: found.leaks };
}

/** A storage that fails says nothing about the image. */
function codeOf({ findings, corruptions }: CheckResult): "IO_ERROR" | "IMAGE_CORRUPT" {
  const isUnread = findings.some(({ kind }) => kind === "io-error" || kind === "refcount-unreadable");
  return isUnread && corruptions === 0 ? "IO_ERROR" : "IMAGE_CORRUPT";
}

function notSound(storage: Storage, why: string, code: "IO_ERROR" | "IMAGE_CORRUPT" = "IMAGE_CORRUPT"): ZcowError {
  const advice = code === "IMAGE_CORRUPT" ? "; check and repair the image first" : "";
  return new ZcowError(code, `${storage.name} cannot be compacted: ${why}${advice}`, {
    data: { path: storage.name },
  });
}

/** Only LUKS ties what is stored to its place in the file; everything else moves as it is. */
async function reencrypting(
  storage: Storage,
  header: Qcow2Header,
  passphrase: PassphraseSource | undefined,
): Promise<GuestData | undefined> {
  if (header.cryptHeader === undefined) return undefined;
  const { openEncryptedData } = await import("../encryption/open-encryption.js");
  return openEncryptedData(storage, header, passphrase, new ImageFileData(storage));
}

/** What ends a check early is an error here. */
async function withErrors<T>(storage: Storage, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof CheckStopped)) throw error;
    throw isZcowError(error.cause) ? error.cause : notSound(storage, error.reason);
  }
}

class Compaction {
  clustersMoved = 0;
  readonly kept = new Set<string>();
  readonly #session: CheckSession;
  #table: RefcountTable;
  readonly #encrypted: GuestData | undefined;
  readonly #onProgress: ((done: number) => void) | undefined;
  #total = 0;

  private constructor(
    session: CheckSession,
    table: RefcountTable,
    encrypted: GuestData | undefined,
    onProgress: ((done: number) => void) | undefined,
  ) {
    this.#session = session;
    this.#table = table;
    this.#encrypted = encrypted;
    this.#onProgress = onProgress;
  }

  static async open(
    storage: Storage,
    header: Qcow2Header,
    encrypted: GuestData | undefined,
    onProgress: ((done: number) => void) | undefined,
  ): Promise<Compaction> {
    const session = new CheckSession(storage, header, undefined, new FindingLog(undefined));
    const table = await readRefcountTable(session);
    await countReferences(session, true);
    countRefcountBlocks(session, table);
    return new Compaction(session, table, encrypted, onProgress);
  }

  async run(): Promise<void> {
    for (let round = 0; round < MOST_ROUNDS; round++) {
      const before = this.#lastUsed();
      await this.#pack();
      this.#table = await shrinkRefcounts(this.#session, this.#table);
      if (this.#lastUsed() >= before) break;
    }
    await this.#truncate();
  }

  /** One past the last cluster that an image without holes would have, and how many clusters lie behind it now. */
  async #pack(): Promise<void> {
    const used = this.#usedFrom(0);
    this.#total ||= this.#usedFrom(used);
    const pinned = await this.#moveRegions(used);
    const cut = Math.max(used, pinned);
    for (;;) {
      const moves = new Moves(this.#session);
      const free = new FreeClusters(this.#session, this.#table, cut);
      await new ReferenceWalk(this.#session, new TailCollector(this.#session, moves, free, cut)).run();
      moves.placeExtents(free);
      if (moves.isEmpty) return;
      await this.#move(moves);
    }
  }

  /** Moves the structures that lie in one piece, the longest first. Returns one past the last cluster of those that stay. */
  async #moveRegions(cut: number): Promise<number> {
    const { clusterSize } = this.#session.geometry;
    const regions: { readonly name: string; readonly first: number; readonly count: number }[] = [];
    const collector: ReferenceVisitor = {
      region(name, offset, length) {
        const count = ceilDiv(length, clusterSize);
        if (offset / clusterSize + count > cut) regions.push({ name, first: offset / clusterSize, count });
        return offset;
      },
      cluster: (_kind, offset) => offset,
      compressed: (offset) => offset,
    };
    await new ReferenceWalk(this.#session, collector).run();
    const moves = new Moves(this.#session);
    const free = new FreeClusters(this.#session, this.#table, Number.POSITIVE_INFINITY);
    let pinned = 0;
    this.kept.clear();
    for (const { name, first, count } of regions.toSorted((a, b) => b.count - a.count)) {
      const to = free.takeRun(count, first);
      if (to === undefined) {
        pinned = Math.max(pinned, first + count);
        this.kept.add(name);
        continue;
      }
      for (let index = 0; index < count; index++) {
        moves.clusters.set(first + index, { kind: "region", to: to + index, references: 1 });
      }
      if (to + count > cut) pinned = Math.max(pinned, to + count);
    }
    if (!moves.isEmpty) await this.#move(moves);
    return pinned;
  }

  async #move(moves: Moves): Promise<void> {
    const { storage, geometry } = this.#session;
    moves.requireComplete();
    const gains = moves.gains();
    await changeCounts(this.#session, this.#table, gains);
    await copyMoves(storage, geometry.clusterSize, moves, this.#encrypted);
    await this.#flush();
    const applier = new MoveApplier(this.#session, moves);
    await new ReferenceWalk(this.#session, applier).run();
    applier.requireAll();
    await this.#flush();
    this.#session.header = await readHeader(storage, { writable: true });
    this.#table = await readRefcountTable(this.#session);
    await changeCounts(this.#session, this.#table, moves.losses());
    await this.#flush();
    this.clustersMoved += gains.size;
    this.#onProgress?.(Math.min(1, this.clustersMoved / Math.max(1, this.#total)));
  }

  #lastUsed(): number {
    const { counts } = this.#session;
    let last = 0;
    // From the start, because what was never counted is passed over at once: a sparse file may be long.
    for (let cluster = counts.nextTouched(1); cluster < counts.clusters; cluster = counts.nextTouched(cluster + 1)) {
      if (counts.get(cluster) > 0) last = cluster;
    }
    return last;
  }

  #usedFrom(first: number): number {
    const { counts } = this.#session;
    let used = 0;
    for (
      let cluster = counts.nextTouched(first);
      cluster < counts.clusters;
      cluster = counts.nextTouched(cluster + 1)
    ) {
      if (counts.get(cluster) > 0) used++;
    }
    return used;
  }

  async #truncate(): Promise<void> {
    const { storage, geometry } = this.#session;
    const length = (this.#lastUsed() + 1) * geometry.clusterSize;
    if (length >= storage.size() || storage.capabilities.growsOnly === true) return;
    const wait = storage.truncate(length);
    if (isPromise(wait)) await wait;
    await this.#flush();
  }

  async #flush(): Promise<void> {
    const wait = this.#session.storage.flush();
    if (isPromise(wait)) await wait;
  }
}
