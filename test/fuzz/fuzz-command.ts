import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { describeFailure, runFuzz } from "./fuzz-run.js";
import { KIND_NAMES } from "./kinds.js";

/** `npm run fuzz`: see docs/testing.md. */
const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    cases: { type: "string", default: "1000" },
    kind: { type: "string", default: "all" },
    from: { type: "string", default: "0" },
    case: { type: "string" },
    keep: { type: "string" },
  },
});

const kinds = values.kind === "all" ? KIND_NAMES : values.kind.split(",");
const unknown = kinds.find((kind) => !KIND_NAMES.includes(kind));
const seed = Number(values.seed);
const cases = Number(values.cases);
const from = Number(values.from);
const only = values.case === undefined ? undefined : Number(values.case);
const areNumbers = [seed, cases, from, only ?? 0].every((number) => Number.isSafeInteger(number));
if (unknown !== undefined || !areNumbers) {
  process.stderr.write(
    `usage: npm run fuzz -- [--seed N] [--cases N] [--from K] [--kind KIND,...] [--case K] [--keep FOLDER]\nkinds: all, ${KIND_NAMES.join(", ")}\n`,
  );
  process.exit(2);
}

const result = await runFuzz({
  seed,
  kinds,
  ...(only === undefined ? { cases, from } : { cases: 1, from: only }),
  onFailure: (failure) => {
    process.stdout.write(`\n${describeFailure(seed, kinds, failure)}\n`);
    if (values.keep === undefined || failure.kept === undefined) return;
    mkdirSync(values.keep, { recursive: true });
    const path = join(values.keep, `${failure.kind}-${seed}-${failure.index}.json.gz`);
    writeFileSync(path, gzipSync(JSON.stringify(failure.kept), { level: 9 }));
    process.stdout.write(`kept as ${path}\n`);
  },
  onProgress: (next) => process.stderr.write(`\rcase ${next}`),
});
process.stdout.write(
  `\n${result.cases} cases of ${kinds.join(", ")}, seed ${seed}, from case ${only ?? from}: ${result.failures.length} failed; highest memory of a case ${result.peakMiB} MiB\n`,
);
process.exitCode = result.failures.length === 0 ? 0 : 1;
