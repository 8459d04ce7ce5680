import { ZcowError } from "../../base/errors.js";
import { NodeOptions } from "../../block/node-options.js";

const JSON_PREFIX = "json:";
const NULL_NAME = /^(null-co|null-aio):(.*)$/;
const PAIR_NAME = /^(blkdebug|blkverify):(.*)$/;

/** The options that a name stands for, of which `isNodeName` is true. Fails with `FILE_REFERENCE`. */
export function optionsOfName(name: string): NodeOptions {
  if (name.startsWith(JSON_PREFIX)) return NodeOptions.ofJson(name.slice(JSON_PREFIX.length));
  const nothing = NULL_NAME.exec(name);
  if (nothing !== null) {
    const driver = nothing[1] ?? "";
    if (nothing[2] !== "//") throw badName(name, `The only allowed filename for this driver is '${driver}://'`);
    return new NodeOptions([["driver", driver]]);
  }
  const pair = PAIR_NAME.exec(name);
  const [driver = "", rest = ""] = pair === null ? [] : pair.slice(1);
  const colon = rest.indexOf(":");
  const [first, second] = [rest.slice(0, Math.max(0, colon)), rest.slice(colon + 1)];
  if (driver === "blkdebug") {
    if (colon < 0) throw badName(name, "blkdebug requires both config file and image path");
    return new NodeOptions([
      ["driver", driver],
      ...(first === "" ? [] : [["config", first] as const]),
      ["image", second],
    ]);
  }
  if (colon < 0) throw badName(name, "blkverify requires raw copy and original image path");
  return new NodeOptions([
    ["driver", driver],
    ["raw", first],
    ["test", second],
  ]);
}

function badName(name: string, stockText: string): ZcowError {
  return new ZcowError("FILE_REFERENCE", `'${name}' cannot be used: ${stockText}`, {
    data: { value: name },
    stockText,
  });
}

/** Options that change what is read, not only how: an image that has some is not told by the name of its file. */
const TELLING = /(^|\.)(offset|size|encrypt\.key-secret)$|^backing(\.|$)/;

/** The description `json:{...}` of what `options` describe, where the name of the file does not say it all; undefined where it does. */
export function nodeName(options: ReadonlyMap<string, string>): string | undefined {
  const isTelling = ([name, value]: readonly [string, string]): boolean =>
    TELLING.test(name) || (/^(file\.)+driver$/.test(name) && isFormat(value));
  if (![...options].some(isTelling)) return undefined;
  const tree: Tree = {};
  for (const [name, value] of options) if (isShown(name)) insert(tree, name.split("."), value);
  return `json:${treeText(withFileDrivers(tree))}`;
}

interface Tree {
  [name: string]: string | Tree;
}

/** Formats take their bytes from a file of their own. */
function isFormat(driver: string): boolean {
  return ["qcow2", "raw", "vmdk", "vhdx", "vpc", "vdi"].includes(driver);
}

function isShown(name: string): boolean {
  return TELLING.test(name) || /(^|\.)(driver|filename)$/.test(name);
}

function insert(tree: Tree, [name = "", ...rest]: readonly string[], value: string): void {
  if (rest.length === 0 || name === "encrypt") {
    tree[[name, ...rest].join(".")] = value;
    return;
  }
  const child = tree[name];
  const inner = typeof child === "object" ? child : {};
  tree[name] = inner;
  insert(inner, rest, value);
}

function withFileDrivers(tree: Tree): Tree {
  const entries = Object.entries(tree).map(([name, value]): [string, string | Tree] => [
    name,
    typeof value === "object" ? withFileDrivers(value) : value,
  ]);
  const isFile = "filename" in tree && !("driver" in tree);
  return Object.fromEntries(isFile ? [["driver", "file"], ...entries] : entries);
}

function treeText(value: string | Tree): string {
  if (typeof value === "string") return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([name, entry]) => `${JSON.stringify(name)}: ${treeText(entry)}`)
    .join(", ")}}`;
}
