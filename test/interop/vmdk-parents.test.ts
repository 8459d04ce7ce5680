import { mkdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { openImage } from "../../src/index.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { ourQemuImg } from "../support/stand-in-here.js";
import { describeWithStock, qemuImg, qemuIo, temporaryDirectory } from "../support/stock-tools.js";

const MIB = 1024 * 1024;
const CHAINS = ["monolithicSparse", "twoGbMaxExtentSparse"] as const;

async function stock(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await qemuImg(args);
  expect(code, stderr).toBe(0);
  return stdout;
}

/** Three disks, each a difference to the one before, in folders of their own. Returns the path of the last. */
async function chain(kind: string, zeroGrains: boolean): Promise<{ root: string; path: string }> {
  const root = temporaryDirectory();
  const random = new Random(seedFromEnvironment(0x7d3));
  mkdirSync(join(root, "sub"));
  const layers = [
    ["base.vmdk", undefined, 9 * MIB],
    ["sub/one.vmdk", "../base.vmdk", 9 * MIB],
    ["sub/two.vmdk", "one.vmdk", 9 * MIB],
  ] as const;
  for (const [name, parent, size] of layers) {
    const path = join(root, name);
    const options = `subformat=${kind}${zeroGrains ? ",zeroed_grain=on" : ""}`;
    const behind = parent === undefined ? [] : ["-b", parent, "-F", "vmdk"];
    await stock("create", "-q", "-f", "vmdk", "-o", options, ...behind, path, `${size}`);
    const commands: string[] = [];
    for (let i = 0; i < 8; i++) {
      const at = random.below((size - 300_032) / 512) * 512;
      const what = zeroGrains && i % 4 === 3 ? "write -q -z" : `write -q -P ${1 + random.below(255)}`;
      commands.push("-c", `${what} ${at} ${random.pick([512, 65_536, 300_032])}`);
    }
    expect((await qemuIo(["-f", "vmdk", ...commands, path])).code).toBe(0);
  }
  return { root, path: join(root, "sub/two.vmdk") };
}

describeWithStock("a VMDK that is a difference to another", () => {
  for (const kind of CHAINS) {
    it.each([false, true])(
      `reads, is described, mapped and converted as by the stock tool (${kind}, zero grains: %s)`,
      async (zeroGrains) => {
        const { root, path } = await chain(kind, zeroGrains);
        const raw = join(root, "stock.raw");
        await stock("convert", "-f", "vmdk", "-O", "raw", path, raw);
        const expected = await readFile(raw);
        const device = await openImage(path, { format: "vmdk", readOnly: true, implicitFiles: "allow" });
        const bytes = new Uint8Array(device.size);
        await device.read(0, bytes);
        await device.close();
        expect(Buffer.compare(bytes, expected)).toBe(0);
        const ours = join(root, "ours.raw");
        expect(await ourQemuImg(["convert", "-f", "vmdk", "-O", "raw", path, ours])).toMatchObject({
          code: 0,
          stderr: "",
        });
        expect(Buffer.compare(await readFile(ours), expected)).toBe(0);
        for (const args of [["info"], ["info", "--backing-chain"], ["map"], ["map", "--output=json"]]) {
          expect(await ourQemuImg([...args, "-f", "vmdk", path]), args.join(" ")).toEqual(
            await qemuImg([...args, "-f", "vmdk", path]),
          );
        }
      },
    );
  }

  it("is refused when its parent has changed, and needs leave to open it", async () => {
    const { root, path } = await chain("monolithicSparse", false);
    const opened = { format: "vmdk", readOnly: true } as const;
    await expect(openImage(path, opened)).rejects.toMatchObject({ code: "IMPLICIT_FILE_DENIED" });
    expect((await qemuIo(["-f", "vmdk", "-c", "write -q 0 512", join(root, "sub/one.vmdk")])).code).toBe(0);
    await expect(openImage(path, { ...opened, implicitFiles: "allow" })).rejects.toMatchObject({
      code: "FORMAT_FIELD",
      data: { field: "parentCID" },
    });
    expect((await qemuIo(["-r", "-f", "vmdk", "-c", "read 0 9M", path])).stdout).toContain("Invalid argument");
  });
});
