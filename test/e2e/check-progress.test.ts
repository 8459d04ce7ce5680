import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { runProgram } from "../../src/cli/program.js";
import { createImage } from "../../src/formats/create-image.js";
import { openImage } from "../../src/formats/open-image.js";
import { ourQemuImg } from "../support/stand-in-here.js";
import { hasStockTools, qemuImg, type ToolResult, temporaryDirectory } from "../support/stock-tools.js";

/** `check -p`: a progress line, and after it what `check` prints anyway. */

const MIB = 1024 * 1024;

async function zcow(...args: string[]): Promise<ToolResult> {
  let stdout = "";
  let stderr = "";
  const output = { out: (text: string) => void (stdout += text), err: (text: string) => void (stderr += text) };
  const code = await runProgram("zcow", args, output);
  return { stdout, stderr, code };
}

/** The percentages of a progress line, and what follows it. */
function progressOf(stdout: string): { readonly percents: number[]; readonly rest: string } {
  const match = /^((?: {4}\(\d+\.\d\d\/100%\)\r)+)\n/.exec(stdout);
  if (match === null) throw new Error(`no progress line: ${JSON.stringify(stdout)}`);
  const percents = [...(match[1] as string).matchAll(/\((\d+\.\d\d)\//g)].map(([, number]) => Number(number));
  return { percents, rest: stdout.slice(match[0].length) };
}

describe("check -p", () => {
  const root = temporaryDirectory();
  const [sound, leaky, damaged] = ["sound", "leaky", "damaged"].map((name) => join(root, `${name}.qcow2`)) as [
    string,
    string,
    string,
  ];

  beforeAll(async () => {
    await createImage(sound, { format: "qcow2", size: 8 * MIB, clusterSize: 4096 });
    const device = await openImage(sound, { format: "qcow2" });
    for (let at = 0; at < 8 * MIB; at += MIB) await device.write(at, new Uint8Array(4096).fill(1));
    await device.close();
    const bytes = readFileSync(sound);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const block = Number(view.getBigUint64(Number(view.getBigUint64(48))));
    const last = bytes.length / 4096 - 1;
    const longer = Buffer.concat([bytes, Buffer.alloc(4096)]);
    longer.writeUInt16BE(1, block + (last + 1) * 2);
    writeFileSync(leaky, longer);
    view.setUint16(block + last * 2, 0);
    writeFileSync(damaged, bytes);
  });

  it.each([
    ["a sound image", (): string => sound, 0],
    ["a leaky image", (): string => leaky, 3],
    ["a damaged image", (): string => damaged, 2],
  ])("shows how far it is, then the result of %s with its exit status", async (_what, path, code) => {
    const plain = await zcow("check", path());
    const shown = await zcow("check", "-p", path());
    const { percents, rest } = progressOf(shown.stdout);
    expect(percents.at(-1)).toBe(100);
    expect(percents).toEqual(percents.toSorted((a, b) => a - b));
    expect(percents.length).toBeGreaterThan(1);
    expect({ ...shown, stdout: rest }).toEqual(plain);
    expect(shown.code).toBe(code);
  });

  it("shows how far a repair is, too", async () => {
    const path = join(root, "repaired.qcow2");
    copyFileSync(damaged, path);
    const { stdout, code } = await zcow("check", "-p", "-r", "all", path);
    const { percents, rest } = progressOf(stdout);
    expect(percents).toEqual(percents.toSorted((a, b) => a - b));
    expect(percents.at(-1)).toBe(100);
    expect(rest).toContain("No errors were found on the image.");
    expect(code).toBe(0);
  });

  it.each([["-q"], ["--output=json"]])("shows nothing of it with %s", async (option) => {
    const shown = await zcow("check", "-p", option, sound);
    expect(shown).toEqual(await zcow("check", option, sound));
  });

  it.skipIf(!hasStockTools)("is no option of the stock tool, and none when standing in for it", async () => {
    const stock = await qemuImg(["check", "-p", sound]);
    expect(await ourQemuImg(["check", "-p", sound])).toEqual(stock);
    expect(stock.code).toBe(1);
  });
});
