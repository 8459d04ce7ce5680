// Documentation that cannot rot: links resolve, generated pages are current, TypeScript examples compile and
// run, console examples print what the page says, and every public symbol is documented.
//
// A block marked ```ts is a whole program and is run in an empty folder; ```ts no-run is only compiled;
// ```ts fragment is not looked at. In a ```console block, lines after "$ " are commands, the others their
// exact output; a line "..." stands for any lines.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import { outdatedPages } from "./generate-docs.mjs";
import { headingAnchors, linkTargets, splitMarkdown } from "./markdown.mjs";
import { capture, findProgram, localProgram, PROJECT_ROOT } from "./run-command.mjs";

const EXAMPLES = join(PROJECT_ROOT, ".cache/examples");

async function documentPaths() {
  const listed = await capture("git", ["ls-files", "--cached", "--others", "--exclude-standard", "*.md"]);
  if (listed.code !== 0) throw new Error(`git ls-files failed:\n${listed.output}`);
  return listed.output.split("\n").filter((path) => path !== "" && existsSync(join(PROJECT_ROOT, path)));
}

/** @param {string} path relative to the project */
const readDocument = (path) => readFileSync(join(PROJECT_ROOT, path), "utf8");

/** @param {string} path */
function brokenLinks(path) {
  /** @type {string[]} */
  const problems = [];
  for (const { line, target } of linkTargets(readDocument(path))) {
    if (/^[a-z][a-z+.-]*:/.test(target)) continue;
    const [file = "", anchor] = target.split("#");
    const absolute = file === "" ? join(PROJECT_ROOT, path) : resolve(PROJECT_ROOT, dirname(path), file);
    if (!existsSync(absolute)) problems.push(`${path}:${line}: ${target}: no such file`);
    else if (anchor !== undefined && !headingAnchors(readFileSync(absolute, "utf8")).has(anchor)) {
      problems.push(`${path}:${line}: ${target}: no such heading`);
    }
  }
  return problems;
}

/**
 * @typedef {object} Example
 * @property {string} where document and line
 * @property {string} name file name without extension
 * @property {boolean} run
 * @property {string} text
 */

/**
 * @param {readonly string[]} paths
 * @returns {Example[]}
 */
function typescriptExamples(paths) {
  return paths.flatMap((path) =>
    splitMarkdown(readDocument(path))
      .blocks.filter((block) => block.info === "ts" || block.info === "ts no-run")
      .map((block) => ({
        where: `${path}:${block.line}`,
        name: `${path.replaceAll(/[^a-z0-9]+/gi, "-")}-${block.line}`,
        run: block.info === "ts",
        text: block.text,
      })),
  );
}

/** @param {readonly Example[]} examples */
async function compileExamples(examples) {
  if (examples.length === 0) return [];
  rmSync(EXAMPLES, { recursive: true, force: true });
  mkdirSync(EXAMPLES, { recursive: true });
  const compilerOptions = { noEmit: false, outDir: "out", rootDir: ".", noUnusedLocals: false };
  writeFileSync(
    join(EXAMPLES, "tsconfig.json"),
    JSON.stringify({ extends: "../../tsconfig.json", compilerOptions, include: ["*.ts"] }),
  );
  for (const example of examples) writeFileSync(join(EXAMPLES, `${example.name}.ts`), `${example.text}export {};\n`);
  const compiled = await capture(localProgram("tsc"), ["-p", EXAMPLES]);
  if (compiled.code === 0) return [];
  const places = examples.map((example) => `${example.name}.ts is ${example.where}`).join("\n");
  return [`examples do not compile:\n${compiled.output}${places}`];
}

/**
 * Runs `use` with an empty folder as its argument.
 * @template T
 * @param {(folder: string) => Promise<T>} use
 */
async function inEmptyFolder(use) {
  const folder = mkdtempSync(join(tmpdir(), "zcow-docs-"));
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @param {readonly Example[]} examples */
async function runExamples(examples) {
  const problems = [];
  for (const example of examples.filter(({ run }) => run)) {
    const program = join(EXAMPLES, "out", `${example.name}.js`);
    const result = await inEmptyFolder((cwd) => capture(process.execPath, [program], { cwd }));
    if (result.code !== 0) problems.push(`${example.where}: the example exited with ${result.code}:\n${result.output}`);
  }
  return problems;
}

/** @param {string} block */
function consoleSteps(block) {
  /** @type {{ command: string, expected: string[] }[]} */
  const steps = [];
  for (const line of block.trimEnd().split("\n")) {
    if (line.startsWith("$ ")) steps.push({ command: line.slice(2), expected: [] });
    else if (steps.at(-1)?.command.endsWith("\\")) steps[steps.length - 1] = continued(steps.at(-1), line);
    else steps.at(-1)?.expected.push(line.trimEnd());
  }
  return steps;
}

/**
 * @param {{ command: string, expected: string[] } | undefined} step
 * @param {string} line
 */
const continued = (step, line) => ({ command: `${step?.command.slice(0, -1)}${line.trimStart()}`, expected: [] });

/**
 * @param {readonly string[]} expected
 * @param {readonly string[]} actual
 * @returns {boolean}
 */
function linesMatch(expected, actual) {
  const [first, ...rest] = expected;
  if (first === undefined) return actual.length === 0;
  if (first === "...") return actual.some((_, at) => linesMatch(rest, actual.slice(at))) || linesMatch(rest, []);
  return actual.length > 0 && first === actual[0]?.trimEnd() && linesMatch(rest, actual.slice(1));
}

/**
 * @param {string} where
 * @param {string} block
 * @param {string} cwd
 */
async function consoleProblems(where, block, cwd) {
  const bin = join(cwd, ".bin");
  mkdirSync(bin);
  symlinkSync(join(PROJECT_ROOT, "dist/cli/zcow.js"), join(bin, "zcow"));
  const env = { ...process.env, PATH: `${bin}${delimiter}${process.env["PATH"]}`, NO_COLOR: "1", LC_ALL: "C.UTF-8" };
  for (const { command, expected } of consoleSteps(block)) {
    const result = await capture("sh", ["-c", command], { cwd, env });
    const actual = result.output.trimEnd() === "" ? [] : result.output.trimEnd().split("\n");
    if (!linesMatch(expected, actual)) {
      return [`${where}: $ ${command}\n--- the page says\n${expected.join("\n")}\n--- it prints\n${actual.join("\n")}`];
    }
  }
  return [];
}

/** @param {readonly string[]} paths */
async function runConsoleBlocks(paths) {
  const problems = [];
  for (const path of paths) {
    for (const block of splitMarkdown(readDocument(path)).blocks.filter(({ info }) => info === "console")) {
      const where = `${path}:${block.line}`;
      const missing = ["qemu-img", "qemu-io"].filter(
        (name) => block.text.includes(name) && findProgram(name) === undefined,
      );
      if (missing.length > 0) console.warn(`SKIPPED ${where}: ${missing.join(", ")} not found`);
      else problems.push(...(await inEmptyFolder((cwd) => consoleProblems(where, block.text, cwd))));
    }
  }
  return problems;
}

async function apiProblems() {
  const result = await capture(localProgram("typedoc"), ["--emit", "none"]);
  return result.code === 0 ? [] : [`typedoc:\n${result.output}`];
}

/** @returns {Promise<import("./run-command.mjs").CommandResult>} */
export async function checkDocs() {
  const paths = await documentPaths();
  const examples = typescriptExamples(paths);
  const outdated = (await outdatedPages()).map((path) => `${path} is out of date: run \`npm run docs\``);
  const compileProblems = await compileExamples(examples);
  const problems = [
    ...paths.flatMap(brokenLinks),
    ...outdated,
    ...compileProblems,
    ...(compileProblems.length === 0 ? await runExamples(examples) : []),
    ...(await runConsoleBlocks(paths)),
    ...(await apiProblems()),
  ];
  return { code: problems.length === 0 ? 0 : 1, output: problems.map((problem) => `${problem}\n`).join("") };
}
