import { beforeAll, describe, expect, test } from "vitest";
import { checkQcow2 } from "../../../../../src/formats/qcow2/check/check.js";
import { type CheckResult, checkExitCode } from "../../../../../src/formats/qcow2/check/check-result.js";
import { memoryStorage } from "../../../../../src/storage/memory-storage.js";
import { holdingsOf, type ImageToChange } from "../../../../support/operation-crash.js";
import { FEATURE_IMAGES, featureImage } from "../../../../support/operation-images.js";

/** Where the header says that something lies, and where it then seems to lie. */
interface Loss {
  readonly what: string;
  /** Byte offset of the field of 8 bytes. */
  readonly field: (image: Uint8Array) => number;
  readonly value: (stored: bigint) => bigint;
  readonly says: string;
}

const CRYPT_EXTENSION = 0x0537be77;

/** Where the data of the encryption header's extension begin. */
function cryptExtension(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  for (let at = view.getUint32(100); at < 4096; at += 8 + Math.ceil(view.getUint32(at + 4) / 8) * 8) {
    if (view.getUint32(at) === CRYPT_EXTENSION) return at + 8;
  }
  throw new Error("no encryption header");
}

const snapshotTable = (bytes: Uint8Array): number =>
  Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(64));

const SNAPSHOTS: readonly Loss[] = [
  {
    what: "the snapshot table lies past the end of the file",
    field: () => 64,
    value: (stored) => stored | (1n << 41n),
    says: "the snapshot table is not where the header says",
  },
  {
    what: "the snapshot table lies at the start of the file",
    field: () => 64,
    value: () => 0n,
    says: "ERROR snapshot table offset invalid",
  },
  {
    what: "a snapshot has no L1 table",
    field: snapshotTable,
    value: () => 0n,
    says: "the L1 table of a snapshot cannot be found",
  },
];

const CRYPT: readonly Loss[] = [
  {
    what: "the encryption header lies past the end of the file",
    field: cryptExtension,
    value: (stored) => stored | (1n << 41n),
    says: "the encryption header is not where the header says",
  },
  {
    what: "the encryption header lies in the place of guest data",
    field: cryptExtension,
    value: (stored) => stored + 0x1000n,
    says: "the encryption header is not where the header says",
  },
  {
    what: "the encryption header is cut before its last keys",
    field: (bytes) => cryptExtension(bytes) + 8,
    value: (stored) => stored / 2n,
    says: "the encryption header is not where the header says",
  },
];

const told = ({ findings }: CheckResult): string => findings.map(({ message }) => message).join("\n");

function patched(bytes: Uint8Array, at: number, value: (stored: bigint) => bigint): Uint8Array {
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  view.setBigUint64(at, value(view.getBigUint64(at)));
  return copy;
}

/** Repairs the image in which the field is wrong, then puts the field right, as somebody who finds the fault would. */
async function repairedAndRestored(bytes: Uint8Array, loss: Loss, repair: "leaks" | "all"): Promise<Uint8Array> {
  const at = loss.field(bytes);
  const storage = memoryStorage(patched(bytes, at, loss.value));
  const result = await checkQcow2(storage, { repair });
  expect(checkExitCode(result), told(result)).not.toBe(0);
  expect(result.leaksFixed).toBe(0);
  expect(told(result)).toContain(loss.says);
  const stored = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(at);
  return patched(storage.bytes(), at, () => stored);
}

interface Whole extends ImageToChange {
  readonly holdings: Awaited<ReturnType<typeof holdingsOf>>;
}

async function expectWhole(file: Uint8Array, image: Whole): Promise<void> {
  const storage = memoryStorage(file);
  await checkQcow2(storage, { repair: "all" });
  expect(checkExitCode(await checkQcow2(storage))).toBe(0);
  expect(await holdingsOf(storage.bytes(), image)).toEqual(image.holdings);
}

async function imageOf(name: string): Promise<Whole> {
  const feature = FEATURE_IMAGES.find((one) => one.name === name);
  if (feature === undefined) throw new Error(`no image ${name}`);
  const image = await featureImage(feature);
  return { ...image, holdings: await holdingsOf(image.bytes, image) };
}

describe("what looks leaked is kept while a table that may refer to it cannot be found", () => {
  let plain: Whole;
  let luks: Whole;
  beforeAll(async () => {
    plain = await imageOf("plain");
    luks = await imageOf("LUKS");
  });

  test.each(SNAPSHOTS)("repair leaks, $what: all is there once the field is right again", async (loss) => {
    await expectWhole(await repairedAndRestored(plain.bytes, loss, "leaks"), plain);
  });

  test.each(CRYPT)("repair leaks, $what: all is there once the field is right again", async (loss) => {
    await expectWhole(await repairedAndRestored(luks.bytes, loss, "leaks"), luks);
  });

  test.each(CRYPT)("repair all, $what: all is there once the field is right again", async (loss) => {
    await expectWhole(await repairedAndRestored(luks.bytes, loss, "all"), luks);
  });

  test.each(CRYPT)("$what: refcounts are not made anew", async (loss) => {
    const bytes = luks.bytes.slice();
    // Without the block nobody knows a count.
    const view = new DataView(bytes.buffer);
    view.setBigUint64(Number(view.getBigUint64(48)), 0n);
    const at = loss.field(bytes);
    const storage = memoryStorage(patched(bytes, at, loss.value));
    const result = await checkQcow2(storage, { repair: "all" });
    expect(checkExitCode(result)).toBe(1);
    expect(told(result)).toContain("not rebuilding refcount structures");
  });
});
