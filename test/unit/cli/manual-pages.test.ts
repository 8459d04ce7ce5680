import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { findTool, runTool } from "../../support/stock-tools.js";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../../..");
const pages = readdirSync(join(ROOT, "man"));

describe("manual pages", () => {
  it("are installed with the program, all of them", () => {
    const { man } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { man: string[] };
    expect(man.toSorted()).toEqual(pages.map((page) => `./man/${page}`).toSorted());
    expect(pages).toEqual(expect.arrayContaining(["zcow.1", "zcow-io.1", "zcow-zone-report.1"]));
  });

  it.skipIf(findTool("groff") === undefined)("are rendered without a warning", async () => {
    const { stdout, stderr, code } = await runTool("groff", [
      "-man",
      "-Tutf8",
      "-ww",
      ...pages.map((page) => join(ROOT, "man", page)),
    ]);
    expect([stderr, code]).toEqual(["", 0]);
    expect(stdout).toContain("backing-chain");
  });
});
