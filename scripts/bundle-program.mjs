// Bundles a program for a fast start. A short command spends most of its time on having code read and compiled, so: a file
// to start that is nothing but a loader, packs of code that is used together, with what V8 made of them when they were
// compiled last (its code cache), and parts that are read when they are first used.
import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { build } from "esbuild";
import ts from "typescript";
import { capture, PROJECT_ROOT } from "./run-command.mjs";

/*
 * esbuild splits code at each `import()`, but for ES modules only, and those start 3 to 5 ms later than CommonJS; on Node 20
 * a program that starts as one cannot choose the size of its thread pool any more either. So every chunk becomes a function
 *
 *   (exports, load, require, __filename, __dirname) => { ... }
 *
 * whose imports are constants, and the loader calls the functions. Constants are exact as long as no module exports a variable
 * that changes, and no two chunks import each other (modules that do are always in one chunk).
 */

/**
 * @typedef {object} Program
 * @property {string} entry source file, from the root of the project
 * @property {string} folder where the program goes; its parts go to a folder in there
 * @property {string} name of the file to start, with its ending
 * @property {Readonly<Record<string, readonly string[]>>} packs by name: sources that start a chunk, whose code comes in one
 *   file together with all that they import. What an earlier pack has is left out. The first pack begins with the entry.
 * @property {Record<string, string>} [define] names replaced by expressions
 */

/** Where packs and parts lie, from the file to start. */
const PARTS = "parts";

/** @type {import("esbuild").BuildOptions} */
const SPLITTING = {
  absWorkingDir: PROJECT_ROOT,
  bundle: true,
  splitting: true,
  platform: "node",
  target: "node20.19",
  format: "esm",
  external: ["koffi"],
  // A third less to read and compile at every start; names stay, so that a stack trace can be read.
  minifyWhitespace: true,
  minifySyntax: true,
  // Packs are read byte by byte.
  charset: "ascii",
  legalComments: "eof",
  logLevel: "warning",
  chunkNames: "[name]-[hash]",
  write: false,
  metafile: true,
};

/**
 * Writes the program.
 * @param {Program} program
 * @returns {Promise<string[]>} the names of the packs' files, for {@link fillCodeCaches}
 */
export async function bundleProgram({ entry, folder, name, packs, define = {} }) {
  const { outputFiles = [], metafile } = await build({ ...SPLITTING, define, entryPoints: [entry], outdir: folder });
  const chunks = new Map(outputFiles.map((file) => [basename(file.path), asFunction(file.path, file.text)]));
  const outputs = new Map(Object.entries(metafile?.outputs ?? {}).map(([path, output]) => [basename(path), output]));
  const chunkOf = (/** @type {string} */ source) => {
    for (const [chunk, output] of outputs) if (output.entryPoint === source) return chunk;
    throw new Error(`${source} is no entry point of ${entry}`);
  };
  mkdirSync(join(folder, PARTS), { recursive: true });
  const write = (/** @type {string} */ file, /** @type {string} */ text) =>
    writeFileSync(join(folder, PARTS, file), text);
  /** @type {Map<string, string>} */
  const packOf = new Map();
  for (const [pack, sources] of Object.entries(packs)) {
    const own = [...withImports(sources.map(chunkOf), outputs)].filter((chunk) => !packOf.has(chunk));
    const text = packText(own.map((chunk) => `${JSON.stringify(chunk)}:${chunks.get(chunk)}`));
    // V8 tells a cache of other code by its length alone.
    const file = `${pack}-${createHash("sha256").update(text).digest("hex").slice(0, 16)}`;
    for (const chunk of own) packOf.set(chunk, file);
    write(`${file}.js`, text);
  }
  for (const [chunk, code] of chunks) if (!packOf.has(chunk)) write(chunk, `module.exports=${code};\n`);
  writeFileSync(join(folder, name), loaderText(chunkOf(entry), Object.fromEntries(packOf)));
  chmodSync(join(folder, name), 0o755);
  return [...new Set(packOf.values())];
}

/**
 * A script whose value are the functions, which is also a CommonJS module.
 * @param {readonly string[]} functions
 */
function packText(functions) {
  return `(chunks=>typeof module==="object"?module.exports=chunks:chunks)({\n${functions.join(",\n")}});\n`;
}

/**
 * What V8 made of a pack is good for the same V8 only, which V8 checks itself; it then compiles anew. It does not check that
 * the cache is whole, and runs what it finds there, so a cache is stored twice and both must be the same: comparing takes no
 * time, while a checksum in JavaScript takes as much as the cache gains.
 * @param {string} entry
 * @param {Readonly<Record<string, string>>} packOf
 */
function loaderText(entry, packOf) {
  return `#!/usr/bin/env node
"use strict";
const { readFileSync } = require("node:fs");
const packOf = ${JSON.stringify(packOf)};
const chunks = {};
const loaded = new Map();
function readPack(name) {
  const filename = __dirname + "/${PARTS}/" + name + ".js";
  let cache;
  try {
    cache = readFileSync(filename + "." + process.version + "-" + process.arch + ".cache");
  } catch {
    return require(filename);
  }
  const { Script } = require("node:vm");
  const cachedData = wholeCache(cache);
  return new Script(readFileSync(filename, "latin1"), { filename, cachedData }).runInThisContext();
}
function wholeCache(bytes) {
  const half = bytes.length / 2;
  const first = bytes.subarray(0, half);
  return half > 0 && first.equals(bytes.subarray(half)) ? first : undefined;
}
function chunk(name) {
  const pack = packOf[name];
  if (pack === undefined) return require("./${PARTS}/" + name);
  if (chunks[name] === undefined) Object.assign(chunks, readPack(pack));
  return chunks[name];
}
function load(name) {
  const known = loaded.get(name);
  if (known !== undefined) return known;
  const exports = {};
  loaded.set(name, exports);
  chunk(name)(exports, load, require, __filename, __dirname);
  return exports;
}
load(${JSON.stringify(entry)});
`;
}

/**
 * Makes the code caches of a program for the Node.js that runs this, by running it.
 * @param {string} folder
 * @param {string} name
 * @param {readonly string[]} packs the names that {@link bundleProgram} gave
 * @param {readonly (readonly string[])[]} commandLines what to run: the functions that these use are compiled beforehand
 */
export async function fillCodeCaches(folder, name, packs, commandLines) {
  const parts = join(folder, PARTS);
  for (const pack of packs) writeFileSync(join(parts, `${pack}.js.${process.version}-${process.arch}.cache`), "");
  const { NODE_OPTIONS: _options, ...env } = process.env;
  for (const args of commandLines) {
    const recorder = join(PROJECT_ROOT, "scripts/code-cache-recorder.cjs");
    const result = await capture(process.execPath, ["--require", recorder, join(folder, name), ...args], { env });
    if (result.code !== 0) throw new Error(`${name} ${args.join(" ")} failed: ${result.output}`);
  }
}

/**
 * @param {readonly string[]} names
 * @param {ReadonlyMap<string, import("esbuild").Metafile["outputs"][string]>} outputs
 * @returns {Set<string>} the chunks and those that they import at once
 */
function withImports(names, outputs) {
  const found = new Set(names);
  for (const name of found) {
    for (const { path, kind } of outputs.get(name)?.imports ?? []) {
      if (kind === "import-statement" && outputs.has(basename(path))) found.add(basename(path));
    }
  }
  return found;
}

/**
 * The text of a function that does what the ES module `text` does.
 * @param {string} path
 * @param {string} text
 */
function asFunction(path, text) {
  const file = ts.createSourceFile(path, text, ts.ScriptTarget.ESNext, false, ts.ScriptKind.JS);
  /** @type {{ start: number, end: number, text: string }[]} */
  const edits = [];
  const replace = (/** @type {ts.Node} */ node, /** @type {string} */ by) => {
    edits.push({ start: node.getStart(file), end: node.getEnd(), text: by });
  };
  const visit = (/** @type {ts.Node} */ node) => {
    if (ts.isImportDeclaration(node)) replace(node, importText(node));
    else if (ts.isExportDeclaration(node)) replace(node, exportText(node));
    else if (ts.isPropertyAccessExpression(node) && ts.isMetaProperty(node.expression)) replace(node, metaText(node));
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      replace(node, `Promise.resolve().then(()=>${moduleText(node.arguments[0])})`);
    } else ts.forEachChild(node, visit);
  };
  ts.forEachChild(file, visit);
  let body = "";
  let done = 0;
  for (const edit of edits) {
    body += text.slice(done, edit.start) + edit.text;
    done = edit.end;
  }
  return `(exports,load,require,__filename,__dirname)=>{"use strict";${body}${text.slice(done).trimEnd()}\n}`;
}

/**
 * @param {ts.Expression | undefined} specifier
 * @returns {string} a call that gives the module
 */
function moduleText(specifier) {
  if (specifier === undefined || !ts.isStringLiteral(specifier)) throw new Error("an import without a fixed name");
  const { text } = specifier;
  return text.startsWith("./") ? `load(${JSON.stringify(text.slice(2))})` : `require(${JSON.stringify(text)})`;
}

/** @param {ts.PropertyAccessExpression} node */
function metaText({ name }) {
  if (name.text === "filename" || name.text === "dirname") return `__${name.text}`;
  if (name.text === "url") return 'require("node:url").pathToFileURL(__filename).href';
  throw new Error(`import.meta.${name.text} is not known to the loader`);
}

/** @param {ts.ImportDeclaration} node */
function importText({ importClause, moduleSpecifier }) {
  const module = moduleText(moduleSpecifier);
  if (importClause === undefined) return `${module};`;
  const bindings = importClause.namedBindings;
  if (importClause.name !== undefined || bindings === undefined) throw new Error(`default import from ${module}`);
  if (ts.isNamespaceImport(bindings)) return `const ${bindings.name.text}=${module};`;
  const names = bindings.elements.map(({ name, propertyName }) =>
    propertyName === undefined ? name.text : `${propertyName.text}:${name.text}`,
  );
  return `const {${names.join(",")}}=${module};`;
}

/** @param {ts.ExportDeclaration} node */
function exportText({ exportClause, moduleSpecifier }) {
  if (exportClause === undefined || !ts.isNamedExports(exportClause) || moduleSpecifier !== undefined) {
    throw new Error("an export that is no list of names");
  }
  const names = exportClause.elements.map(({ name, propertyName }) => `${name.text}:${(propertyName ?? name).text}`);
  return `Object.assign(exports,{${names.join(",")}});`;
}
