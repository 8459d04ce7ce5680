// What users will install: packs the package, checks it with publint and attw, installs the tarball in an
// empty project without optional packages, imports every subpath and runs the command.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { capture, localProgram, PROJECT_ROOT } from "./run-command.mjs";

const packageJson = JSON.parse(readFileSync(join(PROJECT_ROOT, "package.json"), "utf8"));

/** Import specifiers of all subpath exports, as users write them. */
const specifiers = Object.keys(packageJson.exports).map((subpath) => subpath.replace(/^\./, packageJson.name));

function importAllProgram() {
  const modules = specifiers.filter((specifier) => !specifier.endsWith(".json"));
  return `for (const name of ${JSON.stringify(modules)}) {
  const names = Object.keys(await import(name));
  if (names.length === 0) throw new Error(name + " exports nothing");
  console.log(name, names.length);
}`;
}

/**
 * @param {string} folder an empty one
 * @returns {Promise<import("./run-command.mjs").CommandResult>}
 */
async function checkIn(folder) {
  let output = "";
  /**
   * @param {string} command
   * @param {readonly string[]} args
   * @param {string} cwd
   */
  const step = async (command, args, cwd) => {
    const result = await capture(command, args, { cwd });
    output += `$ ${command} ${args.join(" ")}\n${result.output}`;
    return result;
  };

  const packed = await step("npm", ["pack", "--ignore-scripts", "--pack-destination", folder], PROJECT_ROOT);
  if (packed.code !== 0) return { code: 1, output };
  const tarball = join(folder, readdirSync(folder).find((name) => name.endsWith(".tgz")) ?? "missing.tgz");

  const project = mkdtempSync(join(folder, "project-"));
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "probe", private: true, type: "module" }));
  writeFileSync(join(project, "import-all.mjs"), importAllProgram());
  const install = ["install", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", tarball];
  const steps = [
    () => step(localProgram("publint"), ["run", tarball, "--strict"], folder),
    () => step(localProgram("attw"), [tarball, "--profile", "esm-only", "--no-emoji"], folder),
    () => step("npm", install, project),
    () => step(process.execPath, ["import-all.mjs"], project),
    () => step("npx", ["--no-install", "zcow", "--version"], project),
  ];
  for (const run of steps) {
    if ((await run()).code !== 0) return { code: 1, output };
  }
  if (!output.trimEnd().endsWith(packageJson.version)) {
    return { code: 1, output: `${output}zcow --version did not end with ${packageJson.version}\n` };
  }
  return { code: 0, output };
}

export async function checkPackaging() {
  const folder = mkdtempSync(join(tmpdir(), "zcow-pack-"));
  try {
    return await checkIn(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
