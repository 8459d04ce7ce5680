import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { Random } from "../support/random.js";
import { temporaryDirectory } from "../support/stock-tools.js";
import { exerciseImage } from "./exercise.js";
import { type KeptCase, replay } from "./kinds.js";

/** Damaged images worth keeping: what fuzzing found, and what is too rare to wait for. Named by what is wrong with them. */
const folder = join(import.meta.dirname, "../corpus/fuzz");
const files = readdirSync(folder).filter((name) => name.endsWith(".qcow2.gz"));

describe("a damaged image of the corpus ends in a clean error or a working image", () => {
  it.each(files)("%s", async (name) => {
    const image = gunzipSync(readFileSync(join(folder, name)));
    for (let seed = 0; seed < 3; seed++) {
      const outcome = await exerciseImage(new Uint8Array(image), new Random(seed));
      expect(outcome.length).toBeGreaterThan(2);
    }
  });
});

/** Cases of other kinds, with their files, as `npm run fuzz -- --keep test/fuzz/cases` writes them. Named by what was found. */
const cases = join(import.meta.dirname, "cases");

describe("a case that once failed ends in a clean error or a working image", () => {
  it.each(readdirSync(cases))("%s", async (name) => {
    const kept = JSON.parse(gunzipSync(readFileSync(join(cases, name))).toString()) as KeptCase;
    const before = process.cwd();
    try {
      await replay(kept, temporaryDirectory());
    } finally {
      process.chdir(before);
    }
  });
});
