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
