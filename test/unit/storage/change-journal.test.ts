import { chmodSync, existsSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { crc32 } from "node:zlib";
import { describe, expect, test } from "vitest";
import { createQcow2 } from "../../../src/formats/qcow2/create.js";
import { openQcow2 } from "../../../src/formats/qcow2/open.js";
import { generationOf } from "../../../src/formats/qcow2/session.js";
import { checkImage } from "../../../src/jobs/check.js";
import { ChangeJournal } from "../../../src/storage/change-journal.js";
import { openFileStorage } from "../../../src/storage/file-storage.js";
import { JournalFile, journalPathBeside, journalPathIn } from "../../../src/storage/journal-file.js";
import { replayJournal } from "../../../src/storage/journal-replay.js";
import { memoryStorage } from "../../../src/storage/memory-storage.js";
import { MemoryJournal } from "../../support/memory-journal.js";
import { describeWithStock, expectCleanCheck, qemuIo } from "../../support/stock-tools.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const inFolder = temporaryFolder();
const SESSION = 16;

/** A source with one byte to tell, at an offset of its own. */
function source(stage = 0) {
  const changes: [number, number][] = [];
  const unsaved: [number, number][] = [];
  return {
    changes,
    unsaved,
    takeChanges: (add: (stage: number, offset: number, bytes: Uint8Array) => void) => {
      for (const [offset, value] of changes.splice(0)) add(stage, offset, Uint8Array.of(value));
    },
    allUnsaved: (add: (stage: number, offset: number, bytes: Uint8Array) => void) => {
      for (const [offset, value] of unsaved) add(stage, offset, Uint8Array.of(value));
    },
  };
}

function begun() {
  const place = new MemoryJournal();
  const journal = new ChangeJournal(place);
  const one = source();
  journal.register(one);
  const session = journal.begin();
  const commit = (...changes: [number, number][]): void => {
    one.changes.push(...changes);
    journal.touch();
    journal.commit();
  };
  const records = (bytes = place.bytes) =>
    new ChangeJournal(new MemoryJournal(bytes))
      .recordsOf(session)
      ?.map(({ offset, bytes: [value] }) => [offset, value]);
  return { place, journal, one, session, commit, records };
}

describe("a change journal", () => {
  test("gives back what was committed, in order", () => {
    const { commit, records } = begun();
    expect(records()).toEqual([]);
    commit([5, 1], [2 ** 40 + 1, 2]);
    commit([5, 3]);
    expect(records()).toEqual([
      [5, 1],
      [2 ** 40 + 1, 2],
      [5, 3],
    ]);
  });

  test("counts a batch whole or not at all, wherever it was cut", () => {
    const { commit, records, place } = begun();
    commit([5, 1]);
    const one = place.bytes?.length ?? 0;
    commit([6, 2], [7, 3]);
    const bytes = place.bytes ?? new Uint8Array();
    for (let length = one; length < bytes.length; length++) expect(records(bytes.slice(0, length))).toEqual([[5, 1]]);
    for (let at = one; at < bytes.length; at++) {
      const damaged = bytes.slice();
      damaged[at] = (damaged[at] ?? 0) ^ 0x40;
      expect(records(damaged)).toEqual([[5, 1]]);
    }
  });

  test("is not taken for that of another session, another boot or another version", () => {
    const { commit, records, place, session } = begun();
    commit([5, 1]);
    const bytes = place.bytes ?? new Uint8Array();
    for (let at = 0; at < 48; at++) {
      const other = bytes.slice();
      other[at] = (other[at] ?? 0) ^ 1;
      expect(records(other)).toBeUndefined();
    }
    const wrong = session.slice();
    wrong[0] = (wrong[0] ?? 0) ^ 1;
    expect(new ChangeJournal(place).recordsOf(wrong)).toBeUndefined();
    expect(wrong).toHaveLength(SESSION);
    expect(records(new Uint8Array())).toBeUndefined();
  });

  test("is taken when the version before wrote it", () => {
    const { commit, records, place } = begun();
    commit([5, 1]);
    const bytes = (place.bytes ?? new Uint8Array()).slice();
    bytes[8] = 1;
    bytes.fill(0, 12, 16);
    const sum = crc32(bytes.subarray(0, 48));
    new DataView(bytes.buffer).setUint32(12, sum, true);
    expect(records(bytes)).toEqual([[5, 1]]);
    expect(place.bytes?.[8]).toBe(2);
  });

  test("forgets at a checkpoint what the image has, and keeps what it has not", () => {
    const { commit, records, journal, one, place } = begun();
    commit([5, 1], [6, 2]);
    one.unsaved.push([6, 2]);
    journal.checkpoint();
    expect(records()).toEqual([[6, 2]]);
    one.unsaved.length = 0;
    journal.checkpoint();
    expect(records()).toEqual([]);
    expect(place.bytes).toHaveLength(48);
    commit([7, 3]);
    expect(records()).toEqual([[7, 3]]);
  });

  test("is void while it cannot be written, tells so once, and begins again at a checkpoint", () => {
    const { commit, records, journal, one, place } = begun();
    const failures: unknown[] = [];
    journal.onFailure = (error) => failures.push(error);
    commit([5, 1]);
    place.failing = true;
    commit([6, 2]);
    commit([7, 3]);
    expect(failures).toHaveLength(1);
    expect(records()).toBeUndefined();
    place.failing = false;
    one.unsaved.push([7, 3]);
    journal.checkpoint();
    expect(records()).toEqual([[7, 3]]);
    commit([8, 4]);
    expect(records()).toEqual([
      [7, 3],
      [8, 4],
    ]);
  });

  test("asks for a flush when it has grown large", () => {
    const { journal, one, place } = begun();
    let asked = 0;
    journal.onLarge = () => {
      asked += 1;
    };
    place.append = () => undefined;
    const large = new Uint8Array(5 * 1024 * 1024);
    one.takeChanges = (add) => add(0, 0, large);
    for (let i = 0; i < 12; i++) {
      journal.touch();
      journal.commit();
    }
    expect(asked).toBe(1);
  });

  test("is applied stage by stage, later records over earlier ones, and refused when it points past the image", async () => {
    const image = memoryStorage(new Uint8Array(4096));
    const record = (stage: number, offset: number, ...bytes: number[]) => ({
      stage,
      offset,
      bytes: Uint8Array.from(bytes),
    });
    await replayJournal(image, [record(1, 510, 1, 2, 3, 4), record(0, 100, 9), record(1, 511, 8)]);
    expect([...image.bytes().subarray(509, 515)]).toEqual([0, 1, 8, 3, 4, 0]);
    expect(image.bytes()[100]).toBe(9);
    await expect(replayJournal(image, [record(0, 4095, 1, 2)])).rejects.toMatchObject({ code: "IMAGE_CORRUPT" });
  });
});

describe("a journal in a file", () => {
  test("lies beside the image, or under a name of its own in a directory", () => {
    writeFileSync(inFolder("real"), "");
    symlinkSync(inFolder("real"), inFolder("link"));
    expect(journalPathBeside(inFolder("link"))).toBe(journalPathBeside(inFolder("real")));
    expect(journalPathIn("/j", inFolder("link"))).toBe(journalPathIn("/j", inFolder("real")));
    expect(journalPathIn("/j", inFolder("other/real"))).not.toBe(journalPathIn("/j", inFolder("real")));
  });

  test("is for its owner's eyes only, and is taken from nobody else", () => {
    const path = inFolder("owned");
    const file = new JournalFile(path);
    file.replace(Uint8Array.of(1, 2));
    file.append(Uint8Array.of(3));
    expect([...(new JournalFile(path).load() ?? [])]).toEqual([1, 2, 3]);
    file.truncate(1);
    file.append(Uint8Array.of(4));
    expect([...readFileSync(path)]).toEqual([1, 4]);
    chmodSync(path, 0o620);
    expect(() => new JournalFile(path).load()).toThrow(expect.objectContaining({ code: "ACCESS_DENIED" }));
    symlinkSync(path, inFolder("linked"));
    expect(() => new JournalFile(inFolder("linked")).load()).toThrow();
    file.remove();
    expect(existsSync(path)).toBe(false);
    expect(new JournalFile(path).load()).toBeUndefined();
  });
});

/** An image in a file whose process was killed after one write that it acknowledged. */
async function killedImage(name: string, compat: "0.10" | "1.1" = "1.1"): Promise<{ path: string; codes: string[] }> {
  const path = inFolder(name);
  const created = await openFileStorage(path, { writable: true, create: true });
  await createQcow2(created, { size: 1024 * 1024, compat });
  await created.close();
  // No lock: a killed process holds none.
  const storage = await openFileStorage(path, { writable: true, lock: false });
  const journal = new ChangeJournal(new JournalFile(journalPathBeside(path)));
  const codes: string[] = [];
  const device = await openQcow2(storage, { journal, onWarning: ({ code }) => codes.push(code) });
  await device.write(4096, new Uint8Array(4096).fill(7));
  journal.commit();
  // Nobody closes anything: what a killed process leaves.
  return { path, codes };
}

async function readBack(
  path: string,
): Promise<{ first: number | undefined; codes: string[]; generation: Uint8Array | undefined }> {
  const codes: string[] = [];
  const storage = await openFileStorage(path, { writable: true, lock: false });
  const device = await openQcow2(storage, { onWarning: ({ code }) => codes.push(code) });
  const bytes = new Uint8Array(4096);
  await device.read(4096, bytes);
  const generation = generationOf(device.header);
  await device.close();
  return { first: bytes[0], codes, generation };
}

describe("an image with the mark of a session", () => {
  test("is completed from the journal beside it by whoever opens it", async () => {
    const { path } = await killedImage("completed.qcow2");
    expect(await readBack(path)).toMatchObject({ first: 7, codes: ["SESSION_RESUMED"] });
    expect(existsSync(journalPathBeside(path))).toBe(false);
    expect(await readBack(path)).toMatchObject({ first: 7, codes: [] });
  });

  test("is completed before it is repaired", async () => {
    const { path } = await killedImage("repaired.qcow2");
    await checkImage(path, { format: "qcow2", repair: "leaks" });
    expect(await readBack(path)).toMatchObject({ first: 7, codes: [] });
  });

  test("tells when its journal is gone, until somebody writes to it", async () => {
    const { path } = await killedImage("lost.qcow2");
    new JournalFile(journalPathBeside(path)).remove();
    expect(await readBack(path)).toMatchObject({ first: 0, codes: ["SESSION_LOST"] });
    const device = await openQcow2(await openFileStorage(path, { writable: true, lock: false }));
    await device.write(0, new Uint8Array(512));
    await device.close();
    const { codes, generation } = await readBack(path);
    expect(codes).toEqual([]);
    // What was lost is remembered, over sessions that lose nothing.
    expect(generation).toBeDefined();
    const next = await openQcow2(await openFileStorage(path, { writable: true, lock: false }), {
      journal: new ChangeJournal(new JournalFile(journalPathBeside(path))),
    });
    await next.write(0, new Uint8Array(512));
    await next.close();
    expect((await readBack(path)).generation).toEqual(generation);
  });

  test("of version 2 cannot be: there is a warning instead", async () => {
    const { path, codes } = await killedImage("old.qcow2", "0.10");
    expect(codes).toEqual(["NO_JOURNAL"]);
    expect(existsSync(journalPathBeside(path))).toBe(false);
  });
});

describeWithStock("an image with the mark of a session, and stock tools", () => {
  test("is clean for them, and their writes make the journal void", async () => {
    const { path } = await killedImage("stock.qcow2");
    await expectCleanCheck(path);
    const { code, stderr } = await qemuIo(["-f", "qcow2", "-c", "write -P 9 512k 64k", path]);
    expect(stderr).toBe("");
    expect(code).toBe(0);
    expect((await readBack(path)).first).toBe(0);
    await expectCleanCheck(path);
  });

  test("keeps its journal while they only read", async () => {
    const { path } = await killedImage("read.qcow2");
    await qemuIo(["-r", "-f", "qcow2", "-c", "read 0 64k", path]);
    expect((await readBack(path)).first).toBe(7);
    await expectCleanCheck(path);
  });
});
