import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runProgram } from "../../../src/cli/program.js";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "zcow-json-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function run(
  ...args: string[]
): Promise<{ readonly status: number; readonly out: string; readonly reports: unknown[] }> {
  let [out, err] = ["", ""];
  const output = { out: (text: string) => void (out += text), err: (text: string) => void (err += text) };
  const status = await runProgram("zcow", ["--json", ...args], output);
  const lines = err.split("\n").filter((line) => line !== "");
  return { status, out, reports: lines.map((line): unknown => JSON.parse(line)) };
}

describe("with --json, standard error", () => {
  it("has the code, the message and the data of a failure", async () => {
    const path = join(folder, "missing.qcow2");
    expect(await run("info", path)).toMatchObject({
      status: 1,
      out: "",
      reports: [
        {
          level: "error",
          code: "NOT_FOUND",
          category: "storage",
          errno: "ENOENT",
          message: expect.stringContaining(path),
          data: { path },
        },
      ],
    });
  });

  it("has the limit that was broken", async () => {
    const image = join(folder, "limit.qcow2");
    const { status, reports } = await run("create", "-q", "-f", "qcow2", "-o", "cluster_size=3", image, "1M");
    expect([status, reports]).toEqual([1, [expect.objectContaining({ level: "error", code: "INVALID_ARGUMENT" })]]);
    expect(reports[0]).toHaveProperty("data.option", "cluster_size");
  });

  it("tells a command line that makes no sense by its own code", async () => {
    expect(await run("bogus")).toMatchObject({
      status: 1,
      reports: [{ level: "error", code: "USAGE", message: "Command not found: bogus" }],
    });
    expect((await run("info", "--bogus")).reports).toMatchObject([{ code: "USAGE" }]);
  });

  it("tells what a command says of its failure, and its notes, in the same way", async () => {
    const raw = join(folder, "disk.raw");
    writeFileSync(raw, new Uint8Array(1 << 20));
    const { status, out, reports } = await run("io", "-c", "read -q 0 512", "-c", "open x", raw);
    expect([status, out]).toEqual([1, ""]);
    expect(reports).toEqual([
      expect.objectContaining({
        level: "note",
        message: expect.stringContaining("WARNING: Image format was not specified"),
      }),
      expect.objectContaining({ level: "note" }),
      expect.objectContaining({ level: "note" }),
      { level: "error", code: "FAILED", message: "file open already, try 'help close'" },
    ]);
  });

  it("stays empty when nothing goes wrong", async () => {
    const image = join(folder, "fine.qcow2");
    expect(await run("create", "-q", "-f", "qcow2", image, "1M")).toEqual({ status: 0, out: "", reports: [] });
  });
});
