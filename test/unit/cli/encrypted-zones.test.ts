import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runProgram } from "../../../src/cli/program.js";
import { createImage } from "../../../src/index.js";
import { openServedImage } from "../../../src/servers/nvme-tcp/served-image.js";

const KIB = 1024;
const passphrase = "zones";
const folder = mkdtempSync(join(tmpdir(), "zcow-test-"));
const path = join(folder, "secret.qcow2");

async function zcow(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  let out = "";
  let err = "";
  const output = { out: (text: string) => void (out += text), err: (text: string) => void (err += text) };
  const code = await runProgram("zcow", args, output);
  return { code, out, err };
}

describe("an encrypted zoned image", () => {
  const secret = ["--object", `secret,id=s,file=${join(folder, "passphrase")}`];
  const image = ["--image-opts", `driver=qcow2,file.filename=${path},encrypt.key-secret=s`];

  beforeAll(async () => {
    writeFileSync(join(folder, "passphrase"), passphrase);
    await createImage(path, {
      format: "qcow2",
      size: 256 * KIB,
      clusterSize: 4 * KIB,
      zone: { mode: "host-managed", size: 64 * KIB },
      encrypt: { format: "luks", passphrase, iterTime: 1 },
    });
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it("is opened by the zone commands with a secret", async () => {
    expect(await zcow("zone", "append", ...secret, ...image, "-l", "4k", "64k")).toMatchObject({ code: 0, err: "" });
    const closed = await zcow("zone", "finish", "-q", ...secret, ...image, "128k", "64k");
    expect(closed).toMatchObject({ code: 0, err: "" });
    const { out } = await zcow("zone", "report", "--output", "json", ...secret, ...image);
    const { zones } = JSON.parse(out) as { zones: { "write-pointer": number }[] };
    expect(zones.map((zone) => zone["write-pointer"] / KIB)).toEqual([0, 68, 192, 192]);
  });

  it("is refused without one", async () => {
    const { code, err } = await zcow("zone", "append", "-l", "4k", path, "64k");
    expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining("no passphrase was given") as string });
  });

  it("is served with its passphrase", async () => {
    const { device } = await openServedImage({ path, format: "qcow2", passphrase, journal: false });
    const bytes = new Uint8Array(512);
    await device.read(64 * KIB, bytes);
    expect(bytes[0]).toBe(0xcd);
    await device.close();
  });
});
