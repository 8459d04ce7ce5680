import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { Random } from "../support/random.js";
import { exerciseImage } from "./exercise.js";

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
