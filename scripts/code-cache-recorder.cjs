// Loaded before a program whose code caches are to be made (`node --require`): keeps each script that the program compiles for
// a cache, and writes what V8 has compiled of it when the program ends. The program must have cache files to ask for;
// empty ones will do.
const { writeFileSync } = require("node:fs");
const vm = require("node:vm");

/** @type {{ script: vm.Script, cache: string }[]} */
const scripts = [];

class RecordedScript extends vm.Script {
  /**
   * @param {string} code
   * @param {{ filename: string, cachedData?: NodeJS.ArrayBufferView }} options
   */
  constructor(code, options) {
    super(code, options);
    scripts.push({ script: this, cache: `${options.filename}.${process.version}-${process.arch}.cache` });
  }
}

Object.assign(vm, { Script: RecordedScript });

process.on("exit", () => {
  for (const { script, cache } of scripts) {
    const data = script.createCachedData();
    // Twice, as the loader in bundle-program.mjs wants it.
    writeFileSync(cache, Buffer.concat([data, data]));
  }
});
