import { writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { runProgram } from "../../../src/cli/program.js";
import { plainImage, put32, put64 } from "../../corpus/images.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const path = temporaryFolder();

async function inspect(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  let [stdout, stderr] = ["", ""];
  const out = (text: string): unknown => (stdout += text);
  const err = (text: string): unknown => (stderr += text);
  return { code: await runProgram("zcow", ["inspect", ...args], { out, err }), stdout, stderr };
}

async function imageWithBacking(name: string): Promise<string> {
  const bytes = await plainImage();
  put64(8, 1024)(bytes);
  put32(16, name.length)(bytes);
  bytes.set(new TextEncoder().encode(name), 1024);
  const file = path("backed.qcow2");
  writeFileSync(file, bytes);
  return file;
}

describe("zcow inspect", () => {
  it("tells scripts by its exit status", async () => {
    const file = path("plain.qcow2");
    writeFileSync(file, await plainImage());
    expect((await inspect(file)).code).toBe(0);
    expect((await inspect("--max-size", "1M", file)).code).toBe(3);
    expect((await inspect("-f", "raw", file)).code).toBe(2);
    expect(await inspect(path("missing"))).toMatchObject({ code: 1, stdout: "" });
    expect((await inspect("-f", "zip", file)).stderr).toContain("there is no format 'zip'");
    expect((await inspect("--max-size", "0", file)).stderr).toContain("--max-size '0' is no size above 0");
  });

  it("prints JSON for programs", async () => {
    const { code, stdout } = await inspect("--output", "json", await imageWithBacking("/dev/sda"));
    expect(code).toBe(2);
    expect(JSON.parse(stdout)).toMatchObject({
      format: "qcow2",
      references: [{ role: "backing file", name: "/dev/sda", reach: "outside" }],
      verdict: "danger",
    });
  });

  it("shows no control characters of the image to a terminal", async () => {
    const { stdout } = await inspect(await imageWithBacking("a\u001b[2Jb"));
    expect(stdout).toContain("names the backing file 'a\\x1b[2Jb'");
  });
});
