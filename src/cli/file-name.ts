import { ZcowError } from "../base/errors.js";
import { protocolOf } from "../block/image-reference.js";
import { isRemoteName } from "../storage/open-storage.js";

/**
 * The file that a name on the command line stands for: `file:` in front is left out, addresses of exports stay. Fails with `PROTOCOL_UNKNOWN`
 * for what starts with another protocol; a file of such a name has to be named with its folder (`./a:b`).
 */
export function fileOfName(name: string): string {
  const protocol = protocolOf(name);
  const file = protocol === "file" ? name.slice("file:".length) : name;
  if (file === "") {
    throw new ZcowError("FILE_REFERENCE", "the name of the image is empty", {
      data: { value: name },
      stockText: "The 'file' block driver requires a file name",
    });
  }
  if (protocol === undefined || protocol === "file" || isRemoteName(name)) return file;
  throw new ZcowError(
    "PROTOCOL_UNKNOWN",
    `'${name}' needs the protocol ${protocol}, which is not known; a file of that name is ./${name}`,
    { data: { path: name, value: protocol }, stockText: `Unknown protocol '${protocol}'` },
  );
}
