import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { createImage } from "../../src/formats/create-image.js";
import { openImage } from "../../src/formats/open-image.js";
import { parseCreateOptions } from "../../src/formats/qcow2/create-options-parse.js";
import { amendImage } from "../../src/jobs/amend.js";
import { describeImage } from "../../src/jobs/info.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { describeWithStock, qemuImg, qemuIo, temporaryDirectory } from "../support/stock-tools.js";

const SECRETS = ["--object", "secret,id=s0,data=hello", "--object", "secret,id=s1,data=world"];
const SIZE = 4 * 1024 * 1024;

const opened = (path: string, secret = "s0"): string =>
  `driver=qcow2,encrypt.key-secret=${secret},file.filename=${path}`;

async function stockCreate(path: string, options: string): Promise<void> {
  const all = `${options},encrypt.key-secret=s0`;
  const made = await qemuImg(["create", "-q", ...SECRETS, "-f", "qcow2", "-o", all, path, String(SIZE)]);
  expect(made.stderr).toBe("");
}

async function ourCreate(path: string, options: string): Promise<void> {
  const parsed = parseCreateOptions(`${options},encrypt.key-secret=s0`, () => "hello");
  await createImage(path, { format: "qcow2", ...parsed, size: SIZE });
}

/** Random writes through both programs in turns; each must read what the other wrote. */
async function takeTurns(path: string, seed: number): Promise<void> {
  const random = new Random(seed);
  const model = new Uint8Array(SIZE);
  for (let turn = 0; turn < 3; turn++) {
    const writes = Array.from({ length: 8 }, () => {
      const offset = random.below(SIZE - 1);
      const length = 1 + random.below(Math.min(200_000, SIZE - offset));
      return { offset, length, value: random.chance(0.25) ? 0 : random.between(1, 255) };
    });
    if (turn % 2 === 0) {
      const device = await openImage(path, { format: "qcow2", passphrase: "hello" });
      const all = new Uint8Array(SIZE);
      await device.read(0, all);
      expect(Buffer.compare(all, model), `seed ${seed}, turn ${turn}`).toBe(0);
      for (const { offset, length, value } of writes) {
        if (value === 0) await device.writeZeroes(offset, length);
        else await device.write(offset, new Uint8Array(length).fill(value));
      }
      await device.close();
    } else {
      const commands = writes.flatMap(({ offset, length, value }) => [
        "-c",
        `write -q ${value === 0 ? "-z" : `-P ${value}`} ${offset} ${length}`,
      ]);
      const wrote = await qemuIo([...SECRETS, "--image-opts", opened(path), ...commands]);
      expect(wrote.stdout + wrote.stderr).toBe("");
    }
    for (const { offset, length, value } of writes) model.fill(value, offset, offset + length);
    const raw = join(temporaryDirectory(), "plain.raw");
    const converted = await qemuImg(["convert", ...SECRETS, "--image-opts", opened(path), "-O", "raw", raw]);
    expect(converted.stderr).toBe("");
    expect(Buffer.compare(readFileSync(raw), model), `seed ${seed}, turn ${turn}, as stock reads it`).toBe(0);
    const checked = await qemuImg(["check", ...SECRETS, "--image-opts", opened(path)]);
    expect(checked.stdout).toContain("No errors were found on the image.");
  }
}

const LUKS = "encrypt.format=luks,encrypt.iter-time=10";

describeWithStock("encrypted images", () => {
  test.each([
    LUKS,
    `${LUKS},encrypt.cipher-alg=aes-128,encrypt.hash-alg=sha1`,
    `${LUKS},encrypt.cipher-alg=aes-192,encrypt.hash-alg=sha512,cluster_size=512`,
    `${LUKS},encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,cluster_size=4k`,
    `${LUKS},encrypt.cipher-mode=cbc,encrypt.cipher-alg=aes-128,encrypt.ivgen-alg=plain,refcount_bits=1`,
    `${LUKS},encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=md5,lazy_refcounts=on`,
    `${LUKS},compat=0.10,cluster_size=2M`,
    "encrypt.format=aes",
    "encryption=on,compat=0.10,cluster_size=1k",
  ])("are read and written by both programs in turns: %s", async (options) => {
    const seed = seedFromEnvironment(1);
    for (const create of [stockCreate, ourCreate]) {
      const path = join(temporaryDirectory(), "disk.qcow2");
      await create(path, options);
      await takeTurns(path, seed);
    }
  });

  test.each([
    "cluster_size=512",
    "cluster_size=4k,refcount_bits=64",
    "cluster_size=2M,compat=0.10",
    "preallocation=metadata",
    "preallocation=full",
    "preallocation=falloc,cluster_size=4k",
  ])("are laid out as the stock tool lays them out: %s", async (options) => {
    const folder = temporaryDirectory();
    const [ours, stock] = [join(folder, "ours.qcow2"), join(folder, "stock.qcow2")];
    await ourCreate(ours, `${LUKS},${options}`);
    await stockCreate(stock, `${LUKS},${options}`);
    const area = (await describeImage(ours, { format: "qcow2" })).qcow2?.encryption;
    expect(area).toMatchObject({ format: "luks", payloadOffset: 2_068_480 });
    for (const path of [ours, stock]) {
      const bytes = readFileSync(path);
      // Salts, digests, counts, UUID and key material are random; everything else is not.
      const at = bytes.indexOf("LUKS\xba\xbe", 0, "latin1");
      bytes.fill(0, at + 112, at + 208);
      bytes.fill(0, at + 212, at + 248);
      bytes.fill(0, at + 4096, at + 260_096);
      writeFileSync(path, bytes);
    }
    const difference = execFileSync("sh", ["-c", `cmp ${ours} ${stock} 2>&1 || true`], { encoding: "utf8" });
    expect(difference).toBe("");
  });

  test("are described as the stock tool describes them", async () => {
    const path = join(temporaryDirectory(), "disk.qcow2");
    await ourCreate(path, `${LUKS},encrypt.ivgen-alg=essiv`);
    const stock = JSON.parse((await qemuImg(["info", "--output=json", path])).stdout);
    const ours = (await describeImage(path, { format: "qcow2" })).qcow2?.encryption;
    if (ours?.format !== "luks") throw new Error("not LUKS");
    expect(stock["format-specific"].data.encrypt).toEqual({
      "ivgen-alg": "essiv",
      "hash-alg": "sha256",
      "cipher-alg": "aes-256",
      uuid: ours.uuid,
      "ivgen-hash-alg": "sha256",
      format: "luks",
      "cipher-mode": "xts",
      slots: ours.slots.map(({ active, iterations, keyOffset, stripes }) =>
        active ? { active, iters: iterations, "key-offset": keyOffset, stripes } : { active, "key-offset": keyOffset },
      ),
      "payload-offset": ours.payloadOffset,
      "master-key-iters": ours.masterKeyIterations,
    });
  });

  test("open with passphrases added by either program, in any slot, until they are erased", async () => {
    const path = join(temporaryDirectory(), "disk.qcow2");
    await ourCreate(path, LUKS);
    const change = (encrypt: Parameters<typeof amendImage>[1]["encrypt"], passphrase = "hello"): Promise<void> =>
      amendImage(path, { format: "qcow2", passphrase, encrypt });
    const opensInStock = async (secret: string): Promise<boolean> =>
      (await qemuIo([...SECRETS, "--image-opts", opened(path, secret), "-c", "read -q 0 512"])).code === 0;
    const opensHere = async (passphrase: string): Promise<boolean> =>
      openImage(path, { format: "qcow2", passphrase }).then(
        (device) => device.close().then(() => true),
        () => false,
      );

    for (const keyslot of [7, undefined, 3])
      await change({ state: "active", newPassphrase: "world", keyslot, iterTime: 10 });
    const slots = async (): Promise<number[]> => {
      const encryption = (await describeImage(path, { format: "qcow2" })).qcow2?.encryption;
      if (encryption?.format !== "luks") throw new Error("not LUKS");
      return encryption.slots.flatMap(({ active }, index) => (active ? [index] : []));
    };
    expect(await slots()).toEqual([0, 1, 3, 7]);
    expect(await opensInStock("s1")).toBe(true);

    const erase = "encrypt.state=inactive,encrypt.old-secret=s0";
    const erased = await qemuImg(["amend", ...SECRETS, "--image-opts", opened(path, "s1"), "-o", erase]);
    expect(erased.stderr).toBe("");
    expect(await slots()).toEqual([1, 3, 7]);
    expect([await opensHere("hello"), await opensHere("world")]).toEqual([false, true]);

    await change({ state: "active", newPassphrase: "hello", keyslot: 5, iterTime: 10 }, "world");
    await change({ state: "inactive", oldPassphrase: "world" });
    expect(await slots()).toEqual([5]);
    expect([await opensInStock("s0"), await opensInStock("s1")]).toEqual([true, false]);

    await expect(change({ state: "inactive", keyslot: 5 })).rejects.toMatchObject({ code: "KEYSLOT_LAST" });
    await expect(change({ state: "inactive", keyslot: 1 })).rejects.toMatchObject({ code: "KEYSLOT_INACTIVE" });
    await expect(change({ state: "active", newPassphrase: "x", keyslot: 5 })).rejects.toMatchObject({
      code: "KEYSLOT_ACTIVE",
    });
    await expect(change({ state: "active", newPassphrase: "x" }, "nope")).rejects.toMatchObject({
      code: "PASSPHRASE_WRONG",
    });
    await change({ state: "inactive", keyslot: 5, force: true });
    expect(await slots()).toEqual([]);
  });

  test("with a cipher that is not supported are described, and refused by name", async () => {
    const path = join(temporaryDirectory(), "disk.qcow2");
    await stockCreate(path, `${LUKS},encrypt.cipher-alg=serpent-256`);
    const info = await describeImage(path, { format: "qcow2" });
    expect(info.qcow2?.encryption).toMatchObject({ cipherAlg: "serpent-256" });
    await expect(openImage(path, { format: "qcow2", passphrase: "hello" })).rejects.toMatchObject({
      code: "LUKS_CIPHER",
      message: expect.stringContaining("serpent"),
    });
  });

  test("over a backing file are not brought to version 2, where their zero clusters would read as noise", async () => {
    const folder = temporaryDirectory();
    const base = join(folder, "base.raw");
    writeFileSync(base, new Uint8Array(SIZE).fill(7));
    const path = join(folder, "overlay.qcow2");
    await stockCreate(path, `encrypt.format=aes,backing_file=${base},backing_fmt=raw`);
    const wrote = await qemuIo([...SECRETS, "--image-opts", opened(path), "-c", "write -q -z 0 64k"]);
    expect(wrote.stdout + wrote.stderr).toBe("");
    const before = readFileSync(path);
    const amended = amendImage(path, { format: "qcow2", compat: "0.10", passphrase: "hello" });
    await expect(amended).rejects.toMatchObject({ code: "DOWNGRADE" });
    expect(Buffer.compare(readFileSync(path), before)).toBe(0);
  });
});
